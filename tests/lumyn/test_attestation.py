"""Attestations: what they say, who can check them, and that no edit of one, or of the log behind it, goes unseen."""

from __future__ import annotations

import copy
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from hypothesis import given
from hypothesis import strategies as st
from inside import Inside

from lumyn import sdk, wiring
from schemas.canonical import encode
from schemas.record import record_digest
from streams.attestation import Collected, check_attestation, is_unchanged, sign_attestation
from streams.signing import SigningKey

pytest_plugins = ("inside_plugin",)

PERIOD = ("--from", "2020-01-01", "--to", "2099-12-31")
STRICTER = POLICY.replace("4.1.0", "4.2.0").replace("gt: 250", "gt: 100")


def attest(inside: Inside, *options: object, code: int = 0) -> dict[str, Any]:
    """The attestation of everything, also in `a.json`."""
    done = inside.run("verify", "--logic-unchanged", *PERIOD, "--out", "a.json", "--json", *options, code=code)
    found = json.loads(done.stdout)
    assert json.loads((inside.folder / "a.json").read_bytes()) == found
    return dict(found)


def decide_under(inside: Inside, policy: str, *amounts: float, **more: Any) -> None:
    inside.write("policy.yml", policy)
    for amount in amounts:
        inside.decide(refund(amount, 0.1, **more))


@pytest.fixture
def signed(inside: Inside) -> dict[str, Any]:
    decide_under(inside, POLICY, 20, 300)
    return attest(inside, "--with-policies")


# What it says


def test_one_policy_throughout_is_unchanged(inside: Inside) -> None:
    records = [inside.decide(refund(amount, 0.1)) for amount in (20, 300, 30)]
    found = attest(inside, "--environment", "production")["statement"]
    assert found["unchanged"] and found["decisions"] == 3
    (logic,) = found["logic"]
    assert logic["ir_hash"] == records[0]["ir_hash"] and logic["asked"] is None
    assert logic["verdicts"] == {"ALLOW": 2, "ESCALATE": 1}
    assert [logic["first"]["decision_id"], logic["last"]["decision_id"]] == [records[0]["decision_id"], records[2]["decision_id"]]
    assert found["environment"] == "production" and found["tenant"] == "default"
    assert found["checkpoints"]["decisions"] == 3 and found["checkpoints"]["not_covered"] == 0
    told = inside.run("verify", "--logic-unchanged", *PERIOD).stdout
    assert "logic unchanged" in told and "3 decisions, all verified" in told


def test_another_rule_in_between_is_a_change_and_both_are_dated(inside: Inside) -> None:
    decide_under(inside, POLICY, 20)
    decide_under(inside, STRICTER, 20, 150)
    decide_under(inside, POLICY, 30)
    found = attest(inside, code=1)["statement"]
    assert not found["unchanged"]
    assert [logic["decisions"] for logic in found["logic"]] == [2, 2]
    first, second = found["logic"]
    assert first["first"]["at"] < second["first"]["at"] <= second["last"]["at"] < first["last"]["at"]
    assert "logic CHANGED" in inside.run("verify", "--logic-unchanged", *PERIOD, code=1).stdout


def test_words_and_version_numbers_are_no_logic(inside: Inside) -> None:
    decide_under(inside, POLICY, 20)
    decide_under(inside, "# reviewed\n" + POLICY.replace("4.1.0", "4.1.1"), 20)
    found = attest(inside)["statement"]
    (logic,) = found["logic"]
    assert [document["version"] for document in logic["documents"]] == ["4.1.0", "4.1.1"]


def test_another_policy_for_requests_that_name_none_is_a_change_however_it_is_called(inside: Inside) -> None:
    decide_under(inside, POLICY, 20)
    decide_under(inside, STRICTER.replace("policy: refunds", "policy: other"), 20)
    assert {logic["policy"] for logic in attest(inside, code=1)["statement"]["logic"]} == {"refunds", "other"}


def test_policies_that_were_asked_for_by_name_are_told_apart(inside: Inside) -> None:
    for name, text in (("refunds", POLICY), ("other", STRICTER.replace("policy: refunds", "policy: other"))):
        inside.write(f"{name}.yml", text)
        inside.run("policy", "publish", f"{name}.yml")
        inside.run("policy", "activate", name)
        for amount in (20, 30):
            inside.decide(refund(amount, 0.1, policy=name))
    found = attest(inside)["statement"]
    assert found["unchanged"] and [logic["asked"] for logic in found["logic"]] == ["other", "refunds"]


def test_kill_switches_and_memory_are_counted_not_hidden(inside: Inside) -> None:
    first = inside.decide(refund(120, 0.1))
    inside.run("label", first["decision_id"], "--label", "failure")
    assert inside.decide(refund(121, 0.1))["verdict"] == "DENY"
    inside.run("kill-switch", "on", "--everything", "--why", "incident")
    inside.decide(refund(20, 0.1))
    found = attest(inside)["statement"]
    assert found["unchanged"] and found["kill_switch"] == 1
    (memory,) = found["memory"]
    assert (memory["from_version"], memory["to_version"], memory["changed_verdict"]) == (0, 1, 1)
    told = inside.run("verify", "--logic-unchanged", *PERIOD).stdout
    assert "changed 1 verdicts" in told and "to 1 requests: a kill switch" in told


def test_only_the_period_and_only_the_tenant_are_attested(inside: Inside) -> None:
    inside.decide(refund(20, 0.1))
    sdk.decide(refund(21, 0.1, tenant="rival"))
    found = attest(inside)["statement"]
    assert found["decisions"] == 1
    inside.refused("verify", "--logic-unchanged", "--from", "2020-01-01", "--to", "2020-12-31", code=2)
    assert found["end"] <= found["made_at"]  # `--to` lay in the future


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--logic-unchanged"),
        ("verify", "--logic-unchanged", "--from", "2020-01-01"),
        ("verify", "--logic-unchanged", "--from", "0:0", "--to", "0:9"),
        ("verify", "--logic-unchanged", "--from", "2098-01-01", "--to", "2099-01-01"),
        ("verify", "--logic-unchanged", *PERIOD, "--head", "sha256:00"),
        ("verify", "--out", "a.json"),
        ("verify", "--html", "a.html"),
        ("verify", "--compare", "a.json"),
        ("verify", "missing.json", "--compare", "a.json"),
    ],
)
def test_misuse_is_exit_2(inside: Inside, arguments: tuple[str, ...]) -> None:
    inside.decide(refund(20, 0.1))
    inside.refused(*arguments, code=2)
    assert inside.files() == {"policy.yml"}


def test_what_is_not_decided_yet_is_not_attested_without(inside: Inside) -> None:
    inside.decide(refund(20, 0.1))
    sdk.submit(refund(30, 0.1))
    assert "not decided yet" in inside.refused("verify", "--logic-unchanged", *PERIOD, code=2)
    sdk.drain()
    assert attest(inside)["statement"]["decisions"] == 2


def test_the_digest_of_records_is_over_their_digests_in_the_order_of_the_log(inside: Inside) -> None:
    import hashlib

    records = [inside.decide(refund(amount, 0.1)) for amount in (20, 300, 30)]
    lines = "".join(record["record_digest"] + "\n" for record in records)
    expected = "sha256:" + hashlib.sha256(lines.encode()).hexdigest()
    assert attest(inside)["statement"]["records"] == expected


# Who can check it


def elsewhere(inside: Inside, monkeypatch: pytest.MonkeyPatch, name: str = "elsewhere") -> None:
    """Go on as somebody else, with another home."""
    wiring.close_homes()
    inside.home = inside.folder / name
    monkeypatch.setenv("LUMYN_HOME", name)


def test_a_third_party_checks_it_without_a_home(
    inside: Inside, signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(inside, monkeypatch)
    found = inside.json("verify", "a.json", "--json")
    assert found["verified"] and found["unchanged"]
    assert [check["name"][:6] for check in found["checks"]] == ["signat", "statem", "policy"]
    done = inside.run("verify", "a.json")
    assert "attestation: verified" in done.stdout
    assert f"signed by key {signed['statement']['key_id']}; no key is known here" in done.stderr
    assert not inside.home.exists()


def test_where_keys_are_known_an_unknown_one_is_refused_until_trusted(
    inside: Inside, signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(inside, monkeypatch)
    inside.run("keys", "show")
    assert "does not trust" in inside.run("verify", "a.json", code=3).stdout
    inside.run("verify", "a.json", "--trust-signer")
    inside.run("keys", "trust", "a.json")
    inside.run("verify", "a.json")
    inside.refused("verify", "a.json", "--from", "2020-01-01", code=2)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))
    else:
        yield path


def changed(document: Any, path: tuple[Any, ...]) -> Any:
    out = copy.deepcopy(document)
    at = out
    for key in path[:-1]:
        at = at[key]
    old = at[path[-1]]
    if isinstance(old, bool):
        at[path[-1]] = not old
    elif isinstance(old, int):
        at[path[-1]] = old + 1
    elif isinstance(old, str):
        at[path[-1]] = ("B" if old[:1] == "A" else "A") + old[1:]
    elif old is None:
        at[path[-1]] = "x"
    else:
        at[path[-1]] = [*old, {}] if isinstance(old, list) else {"x": 1}
    return out


def test_any_edit_is_found(inside: Inside, signed: dict[str, Any]) -> None:
    found = list(places(signed))
    assert len(found) > 35
    for path in found:
        inside.write("edited.json", json.dumps(changed(signed, path)))
        done = inside.run("verify", "edited.json", code=None)
        if path[:1] == ("policies",) and path[-1] == "name":
            assert done.code in (0, 3)  # what an enclosed document's file is called, nobody signed
        else:
            assert done.code == 3, (path, done.stdout)


def test_added_and_removed_parts_are_found(inside: Inside, signed: dict[str, Any]) -> None:
    for key in ("statement", "public_key", "signature"):
        inside.write("edited.json", json.dumps({k: v for k, v in signed.items() if k != key}))
        inside.refused("verify", "edited.json", code=3)
    for key in signed["statement"]:
        edited = {**signed, "statement": {k: v for k, v in signed["statement"].items() if k != key}}
        inside.write("edited.json", json.dumps(edited))
        inside.refused("verify", "edited.json", code=3)
    inside.write("edited.json", json.dumps({**signed, "more": 1}))
    inside.refused("verify", "edited.json", code=3)
    cut = json.dumps(signed)[:-1]
    for text, code in (("{", 2), ('{"a": 1}', 2), ("{" * 5000, 2), ('{"statement": {"statement": 1}}', 3), (cut, 3), ("{\xff", 2)):
        inside.write("edited.json", text.encode("latin-1"))
        inside.refused("verify", "edited.json", code=code)


def test_the_same_document_in_other_bytes_is_the_same(inside: Inside, signed: dict[str, Any]) -> None:
    inside.write("pretty.json", json.dumps(dict(reversed(signed.items())), indent=4))
    inside.run("verify", "pretty.json")


def resigned(signed: dict[str, Any], key: SigningKey, change: Any) -> dict[str, Any]:
    statement = copy.deepcopy(signed["statement"])
    change(statement)
    statement["key_id"] = key.public.key_id
    return dict(sign_attestation(statement, key, signed.get("policies")))


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda s: s.update(decisions=9), "statement"),
        (lambda s: s["logic"][0]["verdicts"].update(ALLOW=9), "statement"),
        (lambda s: s.update(unchanged=False), "statement"),
        (lambda s: s["logic"].append({**s["logic"][0], "ir_hash": "sha256:0", "decisions": 0, "verdicts": {}}), "statement"),
        (lambda s: s["logic"][0].update(ir_hash="sha256:" + "0" * 64), "policy"),
        (lambda s: s["logic"][0].update(documents=[]), "policy"),
        (lambda s: s.update(records="sha256:" + "0" * 64), "log"),
        (lambda s: s.update(kill_switch=1), "log"),
        (lambda s: s["checkpoints"].update(head="sha256:" + "0" * 64), "chain"),
    ],
)
def test_not_even_the_homes_own_key_can_sign_what_does_not_hold(
    inside: Inside, signed: dict[str, Any], change: Any, check: str
) -> None:
    key = SigningKey.load_or_create(inside.home / "keys" / "signing.pem")
    inside.write("edited.json", json.dumps(resigned(signed, key, change)))
    done = inside.run("verify", "edited.json", code=3)
    assert f"FAILED {check}" in done.stdout and "logic unchanged" not in done.stdout
    inside.write("edited.json", json.dumps(resigned(signed, key, lambda statement: None)))
    inside.run("verify", "edited.json")


def test_a_stranger_cannot_sign_in_the_name_of_a_known_key(inside: Inside, signed: dict[str, Any]) -> None:
    stranger = SigningKey.load_or_create(inside.folder / "stranger.pem")
    forged = dict(sign_attestation(signed["statement"], stranger))
    assert forged["statement"]["key_id"] != stranger.public.key_id
    inside.write("forged.json", json.dumps(forged))
    assert "does not name its own key" in inside.run("verify", "forged.json", code=3).stdout


def test_an_enclosed_policy_that_is_another_is_found(signed: dict[str, Any]) -> None:
    other = copy.deepcopy(signed)
    other["policies"][0]["source"] += "# more\n"
    failed = [check.name for check in check_attestation(other) if not check.ok]
    assert len(failed) == 1 and failed[0].startswith("policy")


# The log behind it


def rewrite(inside: Inside, change: Any) -> None:
    wiring.close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as log:
        change(log)


def edit_record(log: sqlite3.Connection) -> None:
    """Another verdict, every digest made right again, in the receipt too."""
    place, value = log.execute("SELECT pos, value FROM log_records ORDER BY pos LIMIT 1").fetchone()
    record = json.loads(value)
    record["verdict"] = "DENY"
    record["record_digest"] = record_digest(record)
    log.execute("UPDATE log_records SET value = ? WHERE pos = ?", (encode(record), place))
    for at, raw in log.execute("SELECT pos, value FROM log_receipts").fetchall():
        receipt = json.loads(raw)
        if receipt.get("decision_id") == record["decision_id"]:
            receipt["record_digest"] = record["record_digest"]
            log.execute("UPDATE log_receipts SET value = ? WHERE pos = ?", (encode(receipt), at))


def test_a_log_that_was_edited_is_not_attested(inside: Inside, signed: dict[str, Any]) -> None:
    (inside.folder / "a.json").unlink()
    rewrite(inside, edit_record)
    done = inside.run("verify", "--logic-unchanged", *PERIOD, "--out", "a.json", "--html", "a.html", code=3)
    assert "nothing was attested" in done.stderr and done.stdout == ""
    assert inside.files() == {"policy.yml"}
    assert inside.json("verify", "--logic-unchanged", *PERIOD, "--json", code=3)["attested"] is False


def test_a_log_that_was_edited_after_it_was_attested_is_found(inside: Inside, signed: dict[str, Any]) -> None:
    assert "2 decisions of this log verified again" in inside.run("verify", "a.json").stdout
    rewrite(inside, edit_record)
    assert "FAILED log" in inside.run("verify", "a.json", code=3).stdout


def test_a_log_whose_checkpoints_were_cut_is_found(inside: Inside, signed: dict[str, Any]) -> None:
    rewrite(inside, lambda log: log.execute("DELETE FROM log_checkpoints"))
    assert "FAILED chain" in inside.run("verify", "a.json", code=3).stdout


def test_later_decisions_change_nothing_about_it(inside: Inside, signed: dict[str, Any]) -> None:
    decide_under(inside, STRICTER, 20, 30)
    inside.run("checkpoint")
    inside.run("verify", "a.json")


# Two environments


def test_two_environments_are_compared_by_ir_hash(
    inside: Inside, signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(inside, monkeypatch, "staging")
    decide_under(inside, "# staging\n" + POLICY, 20)
    inside.run("verify", "--logic-unchanged", *PERIOD, "--environment", "staging", "--out", "same.json")
    inside.refused("verify", "--logic-unchanged", *PERIOD, "--compare", "a.json", code=3)  # a key that is not known
    inside.run("keys", "trust", "a.json")
    done = inside.run("verify", "--logic-unchanged", *PERIOD, "--compare", "a.json", "--out", "c.json")
    assert "the same logic" in done.stdout
    compared = json.loads((inside.folder / "c.json").read_bytes())["statement"]["compared"]
    assert compared["same"] and compared["key_id"] == signed["statement"]["key_id"]
    inside.run("verify", "c.json")

    elsewhere(inside, monkeypatch, "other")
    decide_under(inside, STRICTER, 20)
    inside.run("verify", "--logic-unchanged", *PERIOD, "--environment", "other", "--out", "different.json")

    elsewhere(inside, monkeypatch, "nowhere")
    assert inside.json("verify", "a.json", "--compare", "same.json", "--json")["compared"]["same"]
    found = inside.json("verify", "a.json", "--compare", "different.json", "--json", code=1)["compared"]
    (one,) = found["logic"]
    assert not found["same"] and one["here"] != one["there"] and found["environment"] == "other"
    assert "ANOTHER LOGIC" in inside.run("verify", "a.json", "--compare", "different.json", code=1).stdout
    inside.write("bad.json", json.dumps(changed(signed, ("statement", "decisions"))))
    inside.refused("verify", "a.json", "--compare", "bad.json", code=3)


def test_a_policy_asked_for_on_one_side_only_is_a_difference(
    inside: Inside, signed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(inside, monkeypatch, "staging")
    inside.decide(refund(20, 0.1, policy="refunds"))
    inside.run("verify", "--logic-unchanged", *PERIOD, "--out", "named.json")
    found = inside.json("verify", "a.json", "--compare", "named.json", "--trust-signer", "--json", code=1)["compared"]
    assert [(one["asked"], bool(one["here"]), bool(one["there"])) for one in found["logic"]] == [
        (None, True, False),
        ("refunds", False, True),
    ]


# The page

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&\u202e"


def test_the_page_is_one_file_and_nothing_in_it_is_active(inside: Inside) -> None:
    decide_under(inside, "# <b>X</b>\n" + POLICY, 20)
    options = ("--environment", HOSTILE, "--with-policies", "--html", "a.html")
    attest(inside, *options)
    text = (inside.folder / "a.html").read_text("utf-8")
    assert "Unchanged." in text and 'name="viewport"' in text
    assert not re.search(r"<script|<img|<b>|https?://|<link|@import|url\(", text.replace("&lt;", ""), re.I)
    assert "\u202e" not in text and "&lt;script&gt;" in text and "&lt;b&gt;X" in text
    tags = set(re.findall(r"<([a-z0-9]+)", text))
    assert tags <= {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "dl", "dt", "dd", "section", "ul", "li", "pre", "code", "details", "summary"}


def test_the_signed_document_on_the_page_verifies(inside: Inside) -> None:
    import html

    decide_under(inside, POLICY, 20)
    attest(inside, "--environment", "prod \u202e\U000e0001 ü", "--html", "a.html")
    text = (inside.folder / "a.html").read_text("utf-8")
    inside.write("copied.json", html.unescape(text.rpartition("<pre>")[2].partition("</pre>")[0]))
    inside.run("verify", "copied.json")


def test_the_page_of_what_does_not_verify_says_so_first(inside: Inside, signed: dict[str, Any]) -> None:
    inside.write("edited.json", json.dumps(changed(signed, ("statement", "decisions"))))
    inside.run("verify", "edited.json", "--html", "page.html", code=3)
    text = (inside.folder / "page.html").read_text("utf-8")
    assert "Not verified. Nothing below may be relied on" in text and "Unchanged." not in text


def test_a_page_shows_a_change_and_a_comparison(inside: Inside) -> None:
    decide_under(inside, POLICY, 20)
    attest(inside)
    (inside.folder / "a.json").rename(inside.folder / "before.json")
    decide_under(inside, STRICTER, 20)
    attest(inside, "--compare", "before.json", "--html", "a.html", code=1)
    text = (inside.folder / "a.html").read_text("utf-8")
    assert "Changed." in text and "Another logic." in text and "no policy asked for: different" in text


def test_decisions_of_another_engine_are_not_said_to_be_decided_again(signed: dict[str, Any]) -> None:
    from lumyn.attestation_page import limits, page

    statement = copy.deepcopy(signed["statement"])
    assert "2; 2 decided again" in page(dict(signed, statement=statement), [], None)  # type: ignore[arg-type]
    statement["logic"][0]["engine"] = "lumyn-engine/0"
    assert any("2 decisions of another engine" in text for text in limits(statement))
    assert "2; 0 decided again" in page(dict(signed, statement=statement), [], None)  # type: ignore[arg-type]


# All orders


def a_record(number: int, asked: str | None, ir_hash: str, engine: str, version: str) -> dict[str, Any]:
    return {
        "record_digest": f"sha256:{number}", "reason_codes": [], "memory": {"epoch": None}, "verdict": "ALLOW",
        "decision_id": f"{number:026d}", "created_at": f"2026-01-01T00:00:{number:02d}.000Z", "ir_hash": ir_hash,
        "engine": engine, "policy": {"name": "p", "version": version, "hash": f"sha256:{ir_hash}{version}"},
        "request": {"policy": asked} if asked else {},
    }  # fmt: skip


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from("xy"), st.sampled_from(["1", "2"]), st.sampled_from("vw")),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_the_logic_collected_does_not_depend_on_the_order_of_partitions(kinds: list[Any], random: Any) -> None:
    records = [a_record(number, *kind) for number, kind in enumerate(kinds)]
    collected = Collected()
    for record in records:
        collected.add(record)
    expected = {asked: {(ir, engine) for a, ir, engine, _ in kinds if a == asked} for asked, *_ in kinds}
    assert is_unchanged(collected.logic) == all(len(rules) == 1 for rules in expected.values())
    assert sum(logic["decisions"] for logic in collected.logic) == collected.decisions == len(kinds)
    random.shuffle(records)
    shuffled = Collected()
    for record in records:
        shuffled.add(record)

    def told(one: Collected) -> Any:
        return [{**logic, "documents": sorted(map(str, logic["documents"]))} for logic in one.logic]

    assert told(shuffled) == told(collected)


def test_golden_attestations_go_on_being_read(inside: Inside) -> None:
    golden = Path(__file__).parents[1] / "golden" / "attestation-1" / "attestation.json"
    found = inside.json("verify", golden, "--json")
    assert found["verified"] and found["unchanged"] and found["statement"]["decisions"] == 3
