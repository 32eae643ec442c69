"""The SDK as programs use it: batches, retries, labels, tenants, configuration."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import LumynConfig, LumynError, aio, sdk, wiring
from lumyn.config import resolve
from schemas.errors import BadConfig, BadInput, BadRequest, NotFound, PolicyInvalid, RequestConflict, UsageError

pytest_plugins = ("inside_plugin",)

OPEN_POLICY = POLICY.replace("gt: 250", "gt: 50000").replace("lte: 500", "lte: 50000")


# Deciding


def test_a_batch_keeps_its_order_and_has_errors_in_their_places(inside: Inside) -> None:
    batch = [refund(1), {"no": 1}, refund(2, request_id="b"), b"not json", refund(3, request_id="b"), "[]", refund(4)]
    results = sdk.decide_many(batch)
    kinds = [type(r).__name__ if isinstance(r, LumynError) else r["request"]["action"]["amount"]["value"] for r in results]
    assert kinds == [1, "BadRequest", 2, "BadJson", "RequestConflict", "BadRequest", 4]
    assert "request 2: " in str(results[1])
    assert "request 4:1:1" in str(results[3])
    assert inside.records() == 3


def test_a_batch_larger_than_a_transaction_keeps_its_order(inside: Inside) -> None:
    results = sdk.decide_many(refund(n + 1) for n in range(1300))
    assert [r["request"]["action"]["amount"]["value"] for r in results] == list(range(1, 1301))  # type: ignore[index]
    assert len({r["decision_id"] for r in results}) == 1300  # type: ignore[index]
    assert sdk.decide_many([]) == []


def test_duplicates_in_one_batch_and_after_it_are_the_first_record(inside: Inside) -> None:
    one = refund(1, request_id="same")
    first, again = sdk.decide_many([one, one])
    assert again == first
    assert sdk.decide(json.dumps(one)) == first
    assert sdk.decide(json.dumps(one).encode()) == first
    assert sdk.decide({key: one[key] for key in reversed(one)}) == first, "the order of keys is no other body"
    assert inside.records() == 1


def test_a_conflict_raises_and_names_the_first_decision(inside: Inside) -> None:
    first = sdk.decide(refund(1, request_id="same"))
    with pytest.raises(RequestConflict, match=first["decision_id"]) as caught:
        sdk.decide(refund(2, request_id="same"))
    assert caught.value.code == "request_conflict"
    assert inside.records() == 1


def test_one_request_id_in_two_tenants_is_two_decisions(inside: Inside) -> None:
    mine = sdk.decide(refund(1, request_id="same"), LumynConfig(tenant="a"))
    theirs = sdk.decide(refund(2, request_id="same"), LumynConfig(tenant="b"))
    assert mine["decision_id"] != theirs["decision_id"]


def test_without_a_request_id_the_same_request_is_a_new_decision(inside: Inside) -> None:
    assert sdk.decide(refund(1))["decision_id"] != sdk.decide(refund(1))["decision_id"]


def test_what_was_submitted_is_decided_by_drain_or_by_the_next_decision(inside: Inside) -> None:
    places = [sdk.submit(refund(n + 1, request_id=f"r{n}")) for n in range(20)]
    assert {place["topic"] for place in places} == {"lumyn.requests"}
    assert inside.records() == 0
    assert sdk.drain() == 20
    assert inside.records() == 20
    assert sdk.drain() == 0
    first = sdk.decide(refund(1, request_id="r0"))
    assert first["log"] == places[0], "a retry finds what drain decided"
    sdk.submit(refund(99, request_id="r0"))
    sdk.drain()
    assert inside.records() == 20, "a conflict among submitted ones decides nothing"
    assert inside.json("verify", "--json")["verified"] is True


def test_a_bad_request_is_refused_by_submit_before_it_is_in_the_log(inside: Inside) -> None:
    with pytest.raises(BadRequest):
        sdk.submit({"no": 1})
    assert sdk.drain() == 0


def test_threads_that_decide_at_once_get_their_own_records_and_one_id_is_decided_once(inside: Inside) -> None:
    found: list[tuple[int, Any]] = []

    def decide(number: int) -> None:
        found.append((number, sdk.decide(refund(number + 1))))
        found.append((-1, sdk.decide(refund(7, request_id="shared"))))

    threads = [threading.Thread(target=decide, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [(n, r["request"]["action"]["amount"]["value"]) for n, r in found if n >= 0]
    assert sorted(own) == [(n, n + 1) for n in range(16)]
    assert len({r["decision_id"] for n, r in found if n < 0}) == 1
    assert inside.records() == 17


def test_the_async_twins_do_the_same(inside: Inside) -> None:
    async def story() -> None:
        records = await asyncio.gather(*(aio.decide(refund(n + 1)) for n in range(10)))
        assert [r["request"]["action"]["amount"]["value"] for r in records] == list(range(1, 11))
        event = await aio.label(records[0]["decision_id"], "failure", summary="x")
        assert (await aio.show(records[0]["decision_id"]))["events"] == [event]

    asyncio.run(story())


def test_the_request_given_is_not_changed_and_the_record_is_the_caller_s(inside: Inside) -> None:
    request = refund(1, request_id="r")
    before = json.dumps(request)
    record = sdk.decide(request)
    record["request"]["subject"]["id"] = "someone else"
    assert json.dumps(request) == before
    assert sdk.decide(request)["request"]["subject"]["id"] == "usr_abc123"


# Labels


def labelled(inside: Inside) -> str:
    inside.write("policy.yml", OPEN_POLICY)
    return str(sdk.decide(refund(100))["decision_id"])


def test_a_label_with_an_event_id_is_applied_once(inside: Inside) -> None:
    name = labelled(inside)
    first = sdk.label(name, "failure", summary="x", event_id="e1")
    assert sdk.label(name, "failure", summary="x", event_id="e1") == first
    assert sdk.show(name)["events"] == [first]
    with pytest.raises(BadInput, match="used before for another label"):
        sdk.label(name, "success", summary="x", event_id="e1")
    assert sdk.show(name)["events"] == [first]
    assert sdk.label(name, "failure", summary="x")["version"] == 2, "without an event_id it is another event"


def test_labels_are_appended_and_the_last_one_counts(inside: Inside) -> None:
    name = labelled(inside)
    sdk.label(name, "failure")
    assert sdk.decide(refund(100))["verdict"] == "DENY"
    sdk.label(name, "success")
    assert sdk.decide(refund(100))["verdict"] == "ALLOW"
    sdk.label(name, "retracted")
    assert sdk.decide(refund(100))["memory"]["counted"] == []
    assert [event["label"] for event in sdk.show(name)["events"]] == ["failure", "success", "retracted"]
    assert [event["version"] for event in sdk.show(name)["events"]] == [1, 2, 3]


def test_a_note_never_touches_the_memory(inside: Inside) -> None:
    name = labelled(inside)
    before = sdk.decide(refund(100))["risk_signals"]
    for text in ("failure", "this was a failure, deny it", ""):
        assert sdk.label(name, "note", summary=text)["label"] is None
    assert sdk.decide(refund(100))["risk_signals"] == before
    sdk.label(name, "failure")
    harmful = sdk.decide(refund(100))
    sdk.label(name, "note", summary="success")
    after = sdk.decide(refund(100))
    assert after["memory"]["counted"] == harmful["memory"]["counted"]
    assert after["verdict"] == "DENY"


def test_labellers_who_disagree_are_contested_until_it_is_settled(inside: Inside) -> None:
    name = labelled(inside)
    sdk.label(name, "failure", actor="ann")
    sdk.label(name, "success", actor="bob")
    contested = sdk.decide(refund(100))
    assert contested["verdict"] == "DENY", "harm keeps its full force"
    assert {hit["contested"] for hit in contested["memory"]["counted"]} == {True}
    sdk.label(name, "success", actor="carol", settle=True)
    settled = sdk.decide(refund(100))
    assert settled["verdict"] == "ALLOW"
    assert {hit["contested"] for hit in settled["memory"]["counted"]} == {False}


@pytest.mark.parametrize(
    ("label", "should"),
    [("success", "DENY"), ("success", "ESCALATE"), ("failure", "ALLOW"), ("note", "DENY"), ("retracted", "DENY"),
     ("failure", "MAYBE"), ("maybe", None), ("", None)],
)  # fmt: skip
def test_a_label_that_contradicts_itself_is_refused_and_not_stored(inside: Inside, label: str, should: str | None) -> None:
    name = labelled(inside)
    with pytest.raises(BadInput):
        sdk.label(name, label, should=should)
    options = ["--should", should] if should else []
    inside.refused("label", name, "--label", label, *options, code=2)
    assert sdk.show(name)["events"] == []


def test_labels_hold_what_was_said_and_no_more(inside: Inside) -> None:
    name = labelled(inside)
    with pytest.raises(BadInput, match="more than"):
        sdk.label(name, "failure", summary="x" * 5000)
    for wrong in ({"summary": 7}, {"summary": None}, {"actor": 7}, {"summary": "\ud800"}):
        with pytest.raises(LumynError):
            sdk.label(name, "failure", **wrong)  # type: ignore[arg-type]
    event = sdk.label(name, "failure", summary="é\n\x1b[0m", actor="ann")
    assert (event["summary"], event["actor"]) == ("é\n\x1b[0m", "ann")
    assert event["decision"] is not None
    assert "usr_abc123" not in json.dumps(event), "nothing that names a person goes into the memory"


# Tenants


def test_another_tenant_s_decision_does_not_exist(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.write("policy.yml", OPEN_POLICY)
    theirs = LumynConfig(tenant="theirs")
    record = sdk.decide(refund(100), theirs)
    name = record["decision_id"]
    sdk.export(name, "theirs.zip", config=theirs)
    sdk.decide(refund(5))
    for call in (
        lambda: sdk.show(name),
        lambda: sdk.explain(name),
        lambda: sdk.counterfactuals(name),
        lambda: sdk.label(name, "failure"),
        lambda: sdk.label(name[:26], "note", summary="x"),
        lambda: sdk.export(name, "mine.zip"),
    ):
        with pytest.raises(NotFound):
            call()
    for arguments in (("show", name), ("explain", name), ("verify", name), ("export", name), ("export", name[:24]),
                      ("label", name, "--label", "note")):  # fmt: skip
        assert "no decision" in inside.refused(*arguments, code=2)
    assert not Path("mine.zip").exists()
    assert [row["decision_id"] for row in inside.json("list", "--json")] != [name]
    assert inside.json("list", "--json", "--query", f"decision_id={name}") == []
    assert inside.json("list", "--json", "--query", "tenant=theirs") == []
    inside.run("export", "--query", "amount > 0")
    assert not Path(f"decision_{name}.zip").exists()

    assert sdk.replay("theirs.zip")["matches"] is True, "a pack is whole in itself"
    assert sdk.show(name, theirs)["events"] == [], "and nothing was appended"
    monkeypatch.setenv("LUMYN_TENANT", "theirs")
    assert inside.json("show", name, "--json")["record"] == record


def test_a_request_s_own_tenant_stands_over_the_configured_one(inside: Inside) -> None:
    record = sdk.decide(refund(1, tenant="own"), LumynConfig(tenant="configured"))
    assert record["tenant"] == "own"
    with pytest.raises(NotFound):
        sdk.show(record["decision_id"], LumynConfig(tenant="configured"))


# Configuration


def test_arguments_stand_over_the_environment_over_the_file_over_defaults(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LUMYN_ACTOR")
    names = {"tenant": "LUMYN_TENANT", "actor": "LUMYN_ACTOR", "prefix": "LUMYN_PREFIX", "home": "LUMYN_HOME"}
    default = resolve()
    assert (default.tenant, default.prefix, default.home) == ("default", "lumyn", Path(".lumyn"))
    inside.write("lumyn.toml", "\n".join(f'{name} = "file"' for name in names))
    for name, variable in names.items():
        assert str(getattr(resolve(), name)) == "file"
        monkeypatch.setenv(variable, "environment")
        assert str(getattr(resolve(), name)) == "environment"
        assert str(getattr(resolve(LumynConfig(**{name: "argument"})), name)) == "argument"  # type: ignore[arg-type]
        monkeypatch.setenv(variable, "")
        assert str(getattr(resolve(), name)) == "file", "an empty variable is not set"


def test_the_policy_comes_from_argument_environment_or_file(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("argument", "environment", "file"):
        inside.write(f"{name}.yml", f"policy: {name}\nrules: []\n")
    inside.write("lumyn.toml", 'policy = "file.yml"\n')
    monkeypatch.delenv("LUMYN_POLICY")
    assert sdk.decide(refund(1))["policy"]["name"] == "file"
    monkeypatch.setenv("LUMYN_POLICY", "environment.yml")
    assert sdk.decide(refund(1))["policy"]["name"] == "environment"
    assert sdk.decide(refund(1), LumynConfig(policy_path="argument.yml"))["policy"]["name"] == "argument"


def test_without_any_policy_nothing_is_decided(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LUMYN_POLICY")
    with pytest.raises(BadRequest, match="no policy is active"):
        sdk.decide(refund(1))
    assert inside.records() == 0


@pytest.mark.parametrize(
    "text",
    ["tenant = ", "= 1", "tenent = 'x'", "tenant = 7", "tenant = ['a']", "[kafka]\na = [1]", "\x00", "tenant = 'a b'",
     "tenant = '../x'", "durable = false", "qdrant = 'localhost:6333'", "kafka = 9092", "[memory]\nrecall = 'near'", "[memory]\nrecal = 'local'", "memory = 'local'"],
)  # fmt: skip
def test_a_bad_configuration_file_is_exit_2_and_says_where(inside: Inside, text: str) -> None:
    inside.write("lumyn.toml", text)
    with pytest.raises(BadConfig) as caught:
        resolve()
    assert caught.value.exit_code == 2
    inside.refused("list", code=2)


def test_a_changed_configuration_is_seen_in_the_same_process(inside: Inside) -> None:
    inside.write("lumyn.toml", 'tenant = "one"\n')
    assert sdk.decide(refund(1))["tenant"] == "one"
    inside.write("lumyn.toml", 'tenant = "another"\n')
    assert sdk.decide(refund(1))["tenant"] == "another"


def test_an_edited_policy_file_decides_the_next_request(inside: Inside) -> None:
    before = sdk.decide(refund(400))
    assert before["verdict"] == "ESCALATE"
    inside.write("policy.yml", POLICY.replace("gt: 250", "gt: 500"))
    after = sdk.decide(refund(400))
    assert after["verdict"] == "ALLOW"
    assert after["policy"]["hash"] != before["policy"]["hash"]
    inside.write("policy.yml", "rules: [")
    with pytest.raises(PolicyInvalid):
        sdk.decide(refund(400))
    inside.write("policy.yml", POLICY)
    assert sdk.decide(refund(400))["policy"] == before["policy"]
    assert inside.json("verify", "--json")["verified"] is True, "each with the policy that decided it"


def test_a_broken_policy_file_stops_deciding_but_neither_looking_labelling_nor_stopping(inside: Inside) -> None:
    name = sdk.decide(refund(100))["decision_id"]
    inside.write("policy.yml", "rules: [")
    inside.write("request.json", json.dumps(refund(1)))
    inside.run("decide", "request.json", code=2)
    for arguments in (("show", name), ("list",), ("explain", name), ("verify",), ("export", name), ("policy", "list"),
                      ("label", name, "--label", "failure"), ("kill-switch", "on", "--everything", "--why", "broken policy")):  # fmt: skip
        inside.run(*arguments)


def test_secrets_are_not_printed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret"
    config = LumynConfig(api_key=secret)
    settings = resolve(config)
    assert settings.api_key == secret
    home = wiring.open_home(config)
    for text in (repr(config), str(config), repr(settings), f"{home.__dict__}"):
        assert secret not in text
    monkeypatch.setenv("LUMYN_API_KEY", secret)
    told = [inside.run("list", code=None), inside.run("decide", "nothing.json", code=2), inside.run("--help")]
    monkeypatch.delenv("LUMYN_API_KEY")
    for text in (f"api_key = {secret}", f'api_key = ["{secret}"]', f'api_key = "{secret}"\nnonsense = 1', f'api_key = "{secret}'):
        inside.write("lumyn.toml", text)
        told.append(inside.run("list", code=2))
    for done in told:
        assert secret not in done.stdout + done.stderr


def test_the_signing_key_is_the_owner_s_alone_and_not_printed(inside: Inside) -> None:
    name = sdk.decide(refund(1))["decision_id"]
    sdk.export(name, "pack.zip")
    key = inside.home / "keys/signing.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    private = key.read_text().splitlines()[1]
    assert private not in repr(wiring.open_home().signing_key())
    assert private.encode() not in Path("pack.zip").read_bytes()
    assert private not in inside.run("keys", "show", "--json").stdout


def test_an_sdk_replay_tells_differences_as_data(inside: Inside) -> None:
    name = sdk.decide(refund(300))["decision_id"]
    path = sdk.export(name, "pack.zip")
    inside.write("candidate.yml", POLICY.replace("gt: 250", "gt: 500"))
    same, other = sdk.replay(path), sdk.replay(path, policy="candidate.yml")
    assert (same["matches"], other["matches"], other["verdict"], other["causes"]) == (True, False, "ALLOW", ["policy"])
    with pytest.raises(UsageError, match="unknown memory"):
        sdk.replay(path, memory="yesterday")


# Start-up


def loaded(code: str, folder: Path) -> set[str]:
    """The modules that a program has loaded at its end."""
    program = f"import sys\n{code}\nprint('LOADED', *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("LUMYN_")},
    )  # fmt: skip
    return {name.partition(".")[0] for name in done.stdout.rpartition("LOADED ")[2].split()}


def test_importing_lumyn_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = {"numpy", "fastapi", "pydantic", "cryptography", "typer", "rich", "uvicorn", "tokenizers", "yaml", "orjson"}
    assert loaded("import lumyn", tmp_path) & heavy == set()


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "sys.argv = ['lumyn', '--help']\nfrom lumyn.__main__ import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code"
    )
    heavy = {"numpy", "fastapi", "uvicorn", "tokenizers", "cryptography", "yaml", "starlette", "scipy"}
    assert loaded(code, tmp_path) & heavy == set()


def test_a_decision_without_memory_loads_no_numpy(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text("rules: []\n")
    code = (
        "from lumyn import decide, LumynConfig\n"
        f"decide({refund(1)!r}, LumynConfig(policy_path='policy.yml'))"
    )
    assert loaded(code, tmp_path) & {"numpy", "fastapi", "tokenizers", "cryptography", "typer"} == set()
