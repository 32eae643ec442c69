"""`lumyn redrive` on an embedded home: what an outage left undecided is decided again, once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk, wiring
from schemas.errors import LumynError
from schemas.limits import MAX_BODY_BYTES
from schemas.request import parse_request

pytest_plugins = ("inside_plugin",)

OUTAGE = "reason=STORAGE_UNAVAILABLE"


class Outage:
    """The memory's file is broken from now on; `end` mends it as an operator would."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        wiring.close_homes()
        for path in inside.home.glob("memory.db*"):
            path.unlink()
        inside.home.mkdir(exist_ok=True)
        (inside.home / "memory.db").write_bytes(b"the disk under the memory has died" * 100)

    def end(self) -> None:
        self._inside.run("memory", "rebuild")


def during_an_outage(inside: Inside, *amounts: float, **more: Any) -> list[dict[str, Any]]:
    """Decisions that an outage left undecided; the memory is well again when it returns."""
    outage = Outage(inside)
    records = [inside.decide(refund(amount, **more)) for amount in amounts]
    assert all(record["reason_codes"][-1] == "STORAGE_UNAVAILABLE" for record in records)
    outage.end()
    return records


def redrive(inside: Inside, *options: object, query: str = OUTAGE, code: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = inside.json("redrive", "--query", query, *options, "--json", code=code)
    return told


def test_without_apply_it_is_a_list_and_nothing_is_decided(inside: Inside) -> None:
    one, two = sorted(during_an_outage(inside, 100, 300), key=lambda r: r["decision_id"])
    inside.decide(refund(100))
    told = redrive(inside)
    assert [d["decision_id"] for d in told["decisions"]] == [one["decision_id"], two["decision_id"]], "oldest first"
    done = inside.run("redrive", "--query", OUTAGE)
    assert len(done.stdout.splitlines()) == 3
    assert "2 decisions would be made again; `--apply` does it" in done.stderr
    assert inside.records() == 3


def test_each_is_decided_again_as_a_new_decision_with_a_link(inside: Inside) -> None:
    old, _ = during_an_outage(inside, 100, 300, request_id=None, provenance={"model": "m-1"})
    told = redrive(inside, "--apply")
    assert told["changes"] == [
        {"from": "ABSTAIN", "to": "ALLOW", "count": 1},
        {"from": "ABSTAIN", "to": "ESCALATE", "count": 1},
    ]
    assert (told["decided"], told["duplicates"], told["failed"], told["left"]) == (2, 0, 0, 0)
    new = sdk.show(told["decisions"][0]["now"]["decision_id"])["record"]
    assert new["links"] == {"redrive_of": old["decision_id"]}
    assert new["request_id"] == f"redrive/{old['decision_id']}"
    assert new["provenance"] == {"model": "m-1", "redrive_of": old["decision_id"]}
    assert new["inputs_digest"] == old["inputs_digest"], "the same inputs, decided again"
    assert sdk.show(old["decision_id"])["record"] == old, "a recorded decision never changes"
    assert inside.json("verify", "--json")["verified"] is True


def test_show_and_explain_tell_of_the_first_decision(inside: Inside) -> None:
    (old,) = during_an_outage(inside, 100)
    new = redrive(inside, "--apply")["decisions"][0]["now"]["decision_id"]
    assert f"redrive_of: {old['decision_id']}\n" in inside.run("show", new).stdout
    assert f"decided before, as {old['decision_id']}" in inside.run("explain", new).stdout
    assert "redrive_of" not in inside.run("show", old["decision_id"]).stdout


def test_a_person_sees_what_became_what_and_how_often(inside: Inside) -> None:
    during_an_outage(inside, 100, 120, 300)
    done = inside.run("redrive", "--query", OUTAGE, "--apply")
    assert done.stdout.endswith("\n\nABSTAIN -> ALLOW: 2\nABSTAIN -> ESCALATE: 1\n")
    assert "3 decided again\n" in done.stderr
    again = inside.run("redrive", "--query", OUTAGE, "--apply")
    assert again.stdout == "" and "0 decided again, 3 were before" in again.stderr


def test_twice_is_once(inside: Inside) -> None:
    during_an_outage(inside, 100, 300)
    redrive(inside, "--apply")
    assert inside.records() == 4
    told = redrive(inside, "--apply")
    assert (told["redriven_before"], told["decided"], told["decisions"]) == (2, 0, [])
    assert redrive(inside)["decisions"] == []
    assert inside.records() == 4


def test_what_the_index_does_not_know_yet_is_a_duplicate(inside: Inside) -> None:
    """Broken off between deciding and indexing: the request_id finds the first."""
    from lumyn import redriving
    from lumyn.searching import search

    (old,) = during_an_outage(inside, 100)
    home = wiring.open_home()
    rows = search(home, OUTAGE, limit=None, newest_first=False, say=lambda _: None)
    (first,), (second,) = list(redriving.redrive(home, rows)), list(redriving.redrive(home, rows))
    assert (first.outcome, second.outcome) == ("decided", "duplicate")
    assert first.new_id == second.new_id != old["decision_id"]
    assert inside.records() == 2


def test_the_policy_that_is_active_now_decides(inside: Inside) -> None:
    during_an_outage(inside, 300)
    policy = (inside.folder / "policy.yml").read_text()
    inside.write("newer.yml", policy.replace("gt: 250", "gt: 400").replace("version: 4.1.0", "version: 4.2.0"))
    inside.run("policy", "publish", "newer.yml")
    inside.run("policy", "activate", "refunds")
    told = redrive(inside, "--apply")
    assert told["decisions"][0]["now"]["verdict"] == "ALLOW"
    record = sdk.show(told["decisions"][0]["now"]["decision_id"])["record"]
    assert record["policy"]["version"] == "4.2.0"


def test_while_the_outage_goes_on_one_decision_is_tried_and_later_all_are_made(inside: Inside) -> None:
    during_an_outage(inside, 100, 120, 300)
    outage = Outage(inside)
    done = inside.run("redrive", "--query", OUTAGE, "--apply", code=4)
    assert "decisions still come back with STORAGE_UNAVAILABLE; 2 more were not sent" in done.stderr
    assert "1 decided again, 2 left" in done.stderr
    assert inside.records() == 4
    outage.end()
    told = redrive(inside, "--apply")
    assert [c["to"] for c in told["changes"]] == ["ALLOW", "ESCALATE"]
    assert told["decided"] == 3, "the two that were left, and the one whose second try failed too"
    assert inside.records() == 7
    assert redrive(inside)["decisions"] == [], "nothing is left undecided"


def test_a_redrive_that_was_settled_is_not_redriven_itself(inside: Inside) -> None:
    inside.decide(refund(100, 0.95))
    assert redrive(inside, "--apply", query="verdict=DENY")["decided"] == 1
    told = redrive(inside, "--apply", query="verdict=DENY")
    assert (told["decided"], told["redriven_before"]) == (0, 2)
    assert inside.records() == 2


def test_a_caller_s_own_word_does_not_keep_a_decision_from_being_redriven(inside: Inside) -> None:
    (old,) = during_an_outage(inside, 100)
    inside.decide(refund(1, provenance={"redrive_of": old["decision_id"]}))
    assert [d["decision_id"] for d in redrive(inside)["decisions"]] == [old["decision_id"]]


def test_the_limit_takes_the_oldest_and_the_next_run_goes_on(inside: Inside) -> None:
    records = during_an_outage(inside, 100, 120, 300)
    for record in sorted(records, key=lambda r: r["decision_id"]):  # of one millisecond, the id decides
        told = redrive(inside, "--apply", "--limit", 1)
        assert [d["decision_id"] for d in told["decisions"]] == [record["decision_id"]]
    assert redrive(inside, "--apply", "--limit", 1)["decisions"] == []


def test_many_are_redriven_in_order(inside: Inside) -> None:
    old = sorted(during_an_outage(inside, *range(1, 131)), key=lambda r: r["decision_id"])
    told = redrive(inside, "--apply")
    assert told["decided"] == 130
    assert [d["decision_id"] for d in told["decisions"]] == [r["decision_id"] for r in old]
    new = [sdk.show(d["now"]["decision_id"])["record"] for d in told["decisions"]]
    assert [r["request"]["action"] for r in new] == [r["request"]["action"] for r in old]
    for partition in {r["log"]["partition"] for r in new}:
        offsets = [r["log"]["offset"] for r in new if r["log"]["partition"] == partition]
        assert offsets == sorted(offsets)
    assert redrive(inside)["decisions"] == []


def test_only_one_s_own_tenant_is_redriven(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    during_an_outage(inside, 100)
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert redrive(inside, "--apply")["decisions"] == []


def test_a_record_that_was_changed_is_not_decided_again(inside: Inside) -> None:
    one, two = during_an_outage(inside, 100, 300)
    home = wiring.open_home()
    raw = home.records(two["decision_id"], 1)[0].value
    changed = raw.replace(b'"value":300', b'"value":3')
    home.log._db.execute("UPDATE log_records SET value = ? WHERE value = ?", (changed, raw))  # type: ignore[attr-defined]
    done = inside.run("redrive", "--query", OUTAGE, "--apply", "--json", code=3)
    told = json.loads(done.stdout)
    assert (told["decided"], told["failed"]) == (1, 1)
    assert told["decisions"][1]["error"]["code"] == "integrity"
    assert told["decisions"][0]["decision_id"] == one["decision_id"]


def test_a_request_that_leaves_no_room_for_the_link_is_said(inside: Inside) -> None:
    body = refund(100, evidence={"chargeback_risk": 0.1, "pad": ""}, tenant="default")
    body["evidence"]["pad"] = "x" * (MAX_BODY_BYTES - len(parse_request(body).canonical))
    outage = Outage(inside)
    old = inside.decide(body)
    outage.end()
    told = redrive(inside, "--apply", code=2)
    assert told["decisions"][0]["error"]["code"] == "too_large"
    assert told["decisions"][0]["decision_id"] == old["decision_id"]


def test_a_bad_query_and_a_home_that_is_not_there(inside: Inside) -> None:
    inside.refused("redrive", "--query", OUTAGE, code=2)
    assert not inside.home.exists()
    inside.decide(refund())
    assert "verdit" in inside.refused("redrive", "--query", "verdit=ALLOW", code=2)
    inside.refused("redrive", code=2)


def test_what_the_index_says_of_a_place_is_checked_against_the_log(inside: Inside) -> None:
    from dataclasses import replace

    from lumyn import redriving
    from lumyn.searching import search

    during_an_outage(inside, 100)
    home = wiring.open_home()
    (row,) = search(home, OUTAGE, limit=None, newest_first=False, say=lambda _: None)
    (one,) = redriving.redrive(home, [replace(row, offset=row.offset + 5)])
    assert isinstance(one.error, LumynError) and "not where the index says" in one.error.message
