"""`lumyn backfill` and `lumyn ledger` as a user runs them: policies, agents that misbehave, kills, tenants, forgetting."""

from __future__ import annotations

import http.server
import json
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, refund
from inside import Inside

from lumyn import agent_outputs, backfilling, sdk
from lumyn.agent_outputs import NoOutput
from lumyn.wiring import close_homes, existing_home
from schemas.canonical import encode
from streams import ledger as ledger_module
from streams.backtest.evaluate import Evaluator
from streams.reading import all_messages
from streams.topics import LEDGER

pytest_plugins = ("inside_plugin",)

PLAIN = POLICY.replace("memory: {}\n", "")
NEW = PLAIN.replace("gte: 0.8", "gte: 0.4").replace("gt: 250", "gt: 400").replace("4.1.0", "4.2.0")
STOP = """
policy: refunds
version: 9.0.0
rules:
  - {id: R_STOP, if: {action_type: refund}, then: {verdict: DENY, reason_codes: [STOPPED]}}
"""
CASES = [(amount, risk) for amount in (20, 90.5, 260, 300, 450) for risk in (0.1, 0.5, 0.9)]


@pytest.fixture
def decided(inside: Inside) -> list[dict[str, Any]]:
    """Fifteen decisions of four subjects."""
    inside.write("policy.yml", PLAIN)
    inside.write("new.yml", NEW)
    asked = [refund(amount, risk, f"usr_{n % 4}") for n, (amount, risk) in enumerate(CASES)]
    return [dict(record) for record in sdk.decide_many(asked) if isinstance(record, dict)]


def backfill(inside: Inside, *arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(inside.json("backfill", *arguments, "--json", code=code))


def entries(inside: Inside, *arguments: object) -> list[dict[str, Any]]:
    return list(inside.json("ledger", "list", "--limit", 1000, *arguments, "--json")["entries"])


def in_ledger() -> int:
    return existing_home().log.end(LEDGER, 0)


# our decisions


def test_it_finds_what_replaying_each_decision_finds(inside: Inside, decided: list[dict[str, Any]]) -> None:
    expected: dict[str, tuple[str, str]] = {}
    for record in decided:
        pack = sdk.export(record["decision_id"], inside.folder / "one.zip")
        new = sdk.replay(pack, policy="new.yml", memory="recorded")["verdict"]
        if new != record["verdict"]:
            expected[record["decision_id"]] = record["verdict"], new
    assert len(set(expected.values())) > 2, "both ways"
    before = in_ledger()
    told = backfill(inside, "--policy", "new.yml")
    assert in_ledger() == before == 0, "shown, not written"
    assert (told["compared"], told["differ"], told["written"]) == (15, len(expected), False)
    assert {(w["recorded"], w["would_be"]): w["decisions"] for w in told["ways"]} == Counter(expected.values())
    done = backfill(inside, "--resume", told["job"], "--apply", "--why", "a new policy")
    assert done["written"] and done["states"] == {"open": len(expected)}
    found = entries(inside)
    assert {e["decision_id"]: (e["recorded"]["verdict"], e["would_be"]["verdict"]) for e in found} == expected
    by_id = {record["decision_id"]: record for record in decided}
    for entry in found:
        record = by_id[entry["decision_id"]]
        assert entry["record_digest"] == record["record_digest"]
        assert entry["amount"] == record["request"]["action"]["amount"]["value"] and entry["cause"] == "policy"
    sums: dict[tuple[str, str], Decimal] = {}
    subjects = set()
    for name, way in expected.items():
        action = by_id[name]["request"]["action"]
        sums[way] = sums.get(way, Decimal()) + Decimal(str(action["amount"]["value"]))
        subjects.add(by_id[name]["request"]["subject"]["id"])
    assert {(m["from"], m["to"]): Decimal(m["recorded"]) for m in told["money"]} == sums
    assert told["affected"]["subjects"] == len(subjects)
    assert [r["record_digest"] for r in (sdk.show(n)["record"] for n in by_id)] == [r["record_digest"] for r in decided]


def test_what_can_be_taken_back_is_what_the_user_says(inside: Inside, decided: list[dict[str, Any]]) -> None:
    plain = backfill(inside, "--policy", "new.yml")
    allowed = sum(way["decisions"] for way in plain["ways"] if way["recorded"] == "ALLOW")
    assert allowed and plain["undoing"]["not_said"] == allowed
    assert backfill(inside, "--resume", plain["job"], "--reversible", "refund")["undoing"]["reversible"] == allowed
    assert backfill(inside, "--resume", plain["job"], "--irreversible", "refund")["undoing"]["irreversible"] == allowed
    told = inside.refused("backfill", "--policy", "new.yml", "--reversible", "a", "--irreversible", "a", code=2)
    assert "can't be both" in told
    for form in ((), ("--markdown",)):
        assert "what can be taken back" in inside.run("backfill", "--resume", plain["job"], *form).stdout


def test_without_a_currency_nothing_is_summed_and_it_is_said(inside: Inside) -> None:
    inside.write("policy.yml", PLAIN)
    bare, none = refund(20), refund(20)
    bare["action"]["amount"] = 20
    del none["action"]["amount"]
    for body in (refund(20), bare, none):
        sdk.decide(body)
    inside.write("stop.yml", STOP)
    told = backfill(inside, "--policy", "stop.yml")
    assert told["differ"] == 3
    assert told["money_not_comparable"] == {"no amount": 1, "no currency": 1}
    assert sum(m["decisions"] for m in told["money"]) == 1


def test_killed_while_writing_it_is_resumed_and_nothing_stands_twice(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = backfill(inside, "--policy", "new.yml")
    monkeypatch.setattr(ledger_module, "_AT_ONCE", 1)
    real, left = ledger_module.ledger_append, [4]

    def dying(event: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return real(event)

    monkeypatch.setattr(ledger_module, "ledger_append", dying)
    inside.run("backfill", "--resume", told["job"], "--apply", "--why", "w", code=None)
    monkeypatch.undo()
    monkeypatch.chdir(inside.folder)
    monkeypatch.setenv("LUMYN_POLICY", "policy.yml")
    assert 0 < len(entries(inside)) < told["differ"]
    assert f"not whole: `lumyn backfill --resume {told['job']}" in inside.run("ledger", "list").stdout
    inside.run("backfill", "--resume", told["job"], "--apply", "--why", "w")
    end = in_ledger()
    inside.run("backfill", "--resume", told["job"], "--apply", "--why", "w")
    assert in_ledger() == end == told["differ"] + 2
    assert len({e["decision_id"] for e in entries(inside)}) == told["differ"]


def test_broken_off_while_comparing_it_begins_again_on_the_same_range(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    want = backfill(inside, "--policy", "new.yml")
    real = Evaluator.evaluate

    def broken(self: Evaluator, raws: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Evaluator, "evaluate", broken)
    done = inside.run("backfill", "--policy", "new.yml", code=None)
    job = done.stderr.split("--resume ")[1].split("`")[0]
    monkeypatch.setattr(Evaluator, "evaluate", real)
    inside.decide(refund(260))  # of the next time
    inside.write("new.yml", "not the candidate any more")
    found = backfill(inside, "--resume", job)
    assert {**found, "job": ""} == {**want, "job": ""}


# the ledger


def test_states_owners_filters_and_the_export(inside: Inside, decided: list[dict[str, Any]]) -> None:
    job = backfill(inside, "--policy", "new.yml", "--apply", "--why", "w")["job"]
    first, second, *rest = (e["decision_id"] for e in entries(inside))
    inside.run("ledger", "set", first, "--state", "upheld", "--owner", "legal", "--why", "agreed")
    inside.run("ledger", "set", "--job", job, "--in", "open", "--owner", "ann", "--why", "hers")
    assert [e["decision_id"] for e in entries(inside, "--in", "upheld")] == [first]
    assert [e["decision_id"] for e in entries(inside, "--owner", "ann")] == [second, *rest]
    assert {e["direction"] for e in entries(inside, "--direction", "milder")} == {"milder"}
    inside.run("ledger", "set", first, "--state", "disclosed", "--why", "told them")
    (shown,) = inside.json("ledger", "show", first, "--json")
    said = [(one["state"], one["owner"], one["why"], one["actor"]) for one in shown["history"]]
    assert said == [("upheld", "legal", "agreed", "oncall"), ("disclosed", "legal", "told them", "oncall")]
    assert "told them" in inside.run("ledger", "show", first).stdout
    inside.run("ledger", "export", "--out", "all.jsonl")
    lines = [json.loads(line) for line in (inside.folder / "all.jsonl").read_text().splitlines()]
    assert lines == entries(inside)
    assert "usr_" not in (inside.folder / "all.jsonl").read_text(), "subjects are pseudonyms"


def test_what_can_t_be_said_is_refused(inside: Inside, decided: list[dict[str, Any]]) -> None:
    name = decided[0]["decision_id"]
    assert "not contested" in inside.refused("ledger", "set", name, "--state", "upheld", "--why", "w", code=2)
    backfill(inside, "--policy", "new.yml", "--apply", "--why", "w")
    name = entries(inside)[0]["decision_id"]
    end = in_ledger()
    assert "no state `gone`" in inside.refused("ledger", "set", name, "--state", "gone", "--why", "w", code=2)
    several = inside.refused("ledger", "set", name[:2], "--state", "upheld", "--why", "w", code=2)
    assert "is the start of" in several, "a short start must not change them all"
    inside.refused("ledger", "set", "", "--state", "upheld", "--why", "w", code=2)
    assert "`--why` is empty" in inside.refused("ledger", "set", name, "--state", "upheld", code=2)
    assert "which?" in inside.refused("ledger", "set", "--state", "upheld", "--why", "w", code=2)
    assert "no backfill `nope`" in inside.refused("ledger", "list", "--job", "nope", code=2)
    assert "needs `--why`" in inside.refused("backfill", "--policy", "new.yml", "--apply", code=2)
    assert "against what" in inside.refused("backfill", code=2)
    assert "is no backfill" in inside.refused("backfill", "--resume", "../../etc/passwd", code=2)
    assert "no backfill" in inside.refused("backfill", "--resume", "backfill-0123456789ab", code=2)
    assert in_ledger() == end


def test_chosen_ones_are_decided_anew_once_and_linked(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = backfill(inside, "--policy", "new.yml", "--apply", "--why", "w")["job"]
    name, other = [e["decision_id"] for e in entries(inside, "--direction", "milder")][:2]
    before, count = sdk.show(name)["record"], inside.records()
    listed = inside.run("ledger", "redrive", name).stderr
    assert listed == "1 would be decided again; `--apply` does it\n"
    assert inside.records() == count, "only listed"
    inside.run("policy", "publish", "new.yml")
    inside.run("policy", "activate", "refunds")
    (done,) = inside.json("ledger", "redrive", name, "--apply", "--json")["decisions"]
    (entry,) = inside.json("ledger", "show", name, "--json")
    assert entry["redriven_as"] == {"decision_id": done["new_decision_id"], "verdict": entry["would_be"]["verdict"]}
    assert entry["state"] == "open", "nobody said that it is corrected"
    new = sdk.show(done["new_decision_id"])["record"]
    assert new["links"] == {"redrive_of": name} and sdk.show(name)["record"] == before
    assert inside.json("ledger", "redrive", name, "--apply", "--json")["decisions"] == []
    assert inside.records() == count + 1
    assert inside.run("ledger", "redrive", name).stderr == "0 would be decided again, 1 were before; `--apply` does it\n"
    assert inside.run("ledger", "redrive", name, "--apply").stderr == "0 decided again, 1 were before\n"

    from lumyn import ledgers

    def dying(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(ledgers, "redriven_event", dying)  # decided, and killed before it was noted
    inside.run("ledger", "redrive", other, "--apply", code=None)
    monkeypatch.undo()
    monkeypatch.chdir(inside.folder)
    assert inside.json("ledger", "show", other, "--json")[0]["redriven_as"] is None
    inside.run("ledger", "redrive", "--job", job, other, "--apply")
    assert inside.json("ledger", "show", other, "--json")[0]["redriven_as"] is not None
    assert inside.records() == count + 2
    assert inside.json("verify", "--json")["verified"] is True


def test_another_tenant_sees_and_changes_nothing(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = backfill(inside, "--policy", "new.yml", "--apply", "--why", "w")
    name = entries(inside)[0]["decision_id"]
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert inside.json("ledger", "list", "--json") == {"backfills": [], "entries": [], "more": 0}
    inside.refused("ledger", "show", name, code=2)
    inside.refused("ledger", "set", name, "--state", "upheld", "--why", "w", code=2)
    inside.refused("ledger", "redrive", name, "--apply", code=2)
    inside.refused("backfill", "--resume", told["job"], code=2)
    assert "nothing to compare" in inside.run("backfill", "--policy", "new.yml", code=2).stderr


def test_nothing_personal_stands_in_it_and_the_forgotten_are_counted(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    inside.write("policy.yml", PLAIN)
    inside.write("new.yml", NEW)
    ann, ben = "ann.zander@mail.example", "ben@mail.example"
    for amount in (260, 300):
        for who in (ann, ben):
            sdk.decide(refund(amount, 0.1, who, request_id=f"{amount}-{who[:3]}"))
    told = backfill(inside, "--policy", "new.yml", "--query", f"subject_id='{ann}' OR amount > 1", "--apply", "--why", "w")
    assert (told["differ"], told["affected"]["subjects"]) == (4, 2)
    inside.write("out.jsonl", "".join(
        json.dumps({"decision_id": e["decision_id"], "output": {"type": f"refund {ann}", ann: 1, "amount": 3}}) + "\n"
        for e in entries(inside)
    ))  # fmt: skip
    assert backfill(inside, "--outputs", "out.jsonl", "--apply", "--why", "w")["differ"] == 4
    (inside.folder / "out.jsonl").unlink()
    for message in all_messages(existing_home().log, LEDGER):
        assert b"@mail" not in message.value
    close_homes()
    for path in (inside.home / "jobs").iterdir():
        assert b"@mail" not in path.read_bytes(), path.name
    inside.run("memory", "forget", "--subject", f"user:{ann}", "--why", "asked", "--apply")
    again = backfill(inside, "--policy", "new.yml")
    assert again["not_compared"] == {"erased": 2} and again["differ"] == 2
    assert len(entries(inside)) == 8, "what was contested stays"


# the agent's decisions


def outputs(decided: list[dict[str, Any]], change: Any) -> str:
    lines = []
    for number, record in enumerate(decided):
        output = change(number, record["request"]["action"])
        lines.append(json.dumps({"decision_id": record["decision_id"], "output": output}))
    return "\n".join(lines)


def test_the_agent_s_new_outputs_are_held_against_what_it_did(inside: Inside, decided: list[dict[str, Any]]) -> None:
    def change(number: int, action: dict[str, Any]) -> Any:
        value, currency = action["amount"]["value"], action["amount"]["currency"]
        return [
            {**action, "intent": "said in other words"},  # the same
            {"action": {"type": "escalate_to_human"}},
            {**action, "amount": {"value": value / 2, "currency": currency}},
            {**action, "amount": {"value": value * 2, "currency": currency}},
            None,
            {**action, "amount": {"value": float(value), "currency": currency}},  # the same
            {**action, "amount": {"value": value, "currency": "EUR"}},
        ][number % 7]

    inside.write("new.jsonl", outputs(decided, change))
    told = backfill(inside, "--outputs", "new.jsonl", "--apply", "--why", "the new model")
    assert told["compared"] == 15
    directions = Counter(e["direction"] for e in entries(inside))
    assert directions == {"another action": 2, "less": 2, "more": 2, "nothing": 2, "other arguments": 2}
    assert told["differ"] == 10
    (less,) = [m for m in told["money"] if m["direction"] == "less"]
    halved = [r["request"]["action"]["amount"]["value"] for n, r in enumerate(decided) if n % 7 == 2]
    assert Decimal(less["recorded"]) == sum(Decimal(str(v)) for v in halved) == 2 * Decimal(less["would_be"])
    only = backfill(inside, "--outputs", "new.jsonl", "--compare", "type")
    assert only["differ"] == 4


def test_hostile_outputs_are_counted_and_never_lost(inside: Inside, decided: list[dict[str, Any]]) -> None:
    bad: list[Any] = ["a string", 7, [], {}, {"type": ""}, {"type": 3}, {"action": "x"}, {"type": "\x1b[2J|<b>"}]
    lines = outputs(decided, lambda n, a: bad[n] if n < len(bad) else a).splitlines()[:-2]
    inside.write("new.jsonl", "\n".join([*lines, json.dumps({"decision_id": "not-here", "output": None})]))
    told = backfill(inside, "--outputs", "new.jsonl", code=2)
    assert told["not_compared"] == {"no output": 2, "not an action": 7}
    assert (told["compared"], told["differ"], told["outputs_of_no_decision"]) == (6, 1, 1)
    assert told["compared"] + sum(told["not_compared"].values()) == 15
    assert "\x1b" not in inside.run("backfill", "--outputs", "new.jsonl", code=2).stdout
    for text in ("{", '{"decision_id": 1}', "[]", lines[0] + "\n" + lines[0]):
        inside.write("broken.jsonl", text)
        assert "broken.jsonl:" in inside.refused("backfill", "--outputs", "broken.jsonl", code=2)
    inside.refused("backfill", "--outputs", "none.jsonl", code=2)


AGENT = """
import json, os, sys, time
request = json.load(sys.stdin)
value, risk = request["action"]["amount"]["value"], request["evidence"]["chargeback_risk"]
with open(os.environ["ASKED"], "a") as log: log.write(json.dumps([value, risk]) + "\\n")
if value == 20: print(json.dumps(request["action"]))
elif value == 90.5: print(json.dumps({"type": "refund", "amount": {"value": 1, "currency": "USD"}}))
elif value == 260: sys.exit(3)
elif value == 300: sys.stdout.write("x" * 3_000_000)
elif risk == 0.1: time.sleep(600)
elif risk == 0.5: print("not json")
else: os.close(0); os.close(1); time.sleep(600)
"""


def test_a_command_that_hangs_fails_or_floods(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("agent.py", AGENT)
    monkeypatch.setenv("ASKED", str(inside.folder / "asked"))
    told = backfill(inside, "--command", f"{sys.executable} agent.py", "--timeout", 1.5, "--parallel", 4, code=2)
    assert (told["compared"], told["differ"]) == (6, 3)
    assert told["not_compared"] == {"failed": 3, "too long": 3, "timed out": 2, "not an action": 1}
    assert told["against"]["name"] == Path(sys.executable).name, "its arguments may hold secrets"
    assert len((inside.folder / "asked").read_text().splitlines()) == 15
    backfill(inside, "--resume", told["job"], "--apply", "--why", "w", code=2)
    assert len((inside.folder / "asked").read_text().splitlines()) == 15, "what was shown is what is written"
    assert len(entries(inside)) == 3


def test_broken_off_the_agent_is_not_asked_again_what_it_answered(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("agent.py", AGENT)
    monkeypatch.setenv("ASKED", str(inside.folder / "asked"))
    real, written = backfilling._write, []

    def dying(file: Any, line: dict[str, Any]) -> None:
        real(file, line)
        written.append(line["decision_id"])
        if len(written) == 4:
            file.write(b'{"decision_id": "cut')
            raise KeyboardInterrupt

    monkeypatch.setattr(backfilling, "_write", dying)
    arguments = ("--command", f"{sys.executable} agent.py", "--query", "amount < 100", "--parallel", 1)
    done = inside.run("backfill", *arguments, code=None)
    job = done.stderr.split("--resume ")[1].split("`")[0]
    monkeypatch.setattr(backfilling, "_write", real)
    (inside.folder / "asked").unlink()
    told = backfill(inside, "--resume", job)
    assert (told["compared"], told["differ"]) == (6, 3)
    assert len((inside.folder / "asked").read_text().splitlines()) == 2


def test_no_shell_reads_the_command_and_nothing_of_it_is_left(inside: Inside, tmp_path: Path) -> None:
    mark = tmp_path / "made"
    command = agent_outputs.command(f'{sys.executable} -c "import sys; print(sys.argv[1:])" ; touch {mark}', 10)
    with pytest.raises(NoOutput) as refused:
        command.ask("d", {})
    assert refused.value.kind == "not an action" and not mark.exists()
    grandchild = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', \"import time; time.sleep(3); open(r'{mark}', 'w')\"])"
    inside.write("forks.py", grandchild)
    with pytest.raises(NoOutput) as empty:
        agent_outputs.command(f"{sys.executable} forks.py", 30).ask("d", {})
    assert empty.value.kind == "not an action", "the program has ended: its child is not waited for"
    time.sleep(3.5)
    assert not mark.exists(), "the program's own child was ended, too"


def test_a_program_that_is_not_there_is_told_before_anything_is_asked(
    inside: Inside, decided: list[dict[str, Any]]
) -> None:
    for line in ("/no/such/program", "", "'open"):
        assert "`--command`" in inside.refused("backfill", "--command", line, code=2)
    assert not list((inside.home / "jobs").glob("*"))


def test_an_agent_sees_none_of_lumyns_settings_and_may_say_much_beside_its_answer(
    inside: Inside, decided: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_MASTER_KEY_FILE", "kept-to-ourselves")
    inside.write("looks.py", """
import json, os, sys
request = json.load(sys.stdin)
sys.stderr.write("thinking " * 10_000)
print(json.dumps({"type": "|".join(name for name in os.environ if name.startswith("LUMYN_")) or request["action"]["type"]}))
""")
    told = backfill(inside, "--command", f"{sys.executable} looks.py", "--compare", "type")
    assert (told["differ"], told["not_compared"]) == (0, {})


class Service(http.server.BaseHTTPRequestHandler):
    """Answers by the amount."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        value = request["action"]["amount"]["value"]
        if value in (260, 300):
            self.send_response(500 if value == 260 else 302)
            self.send_header("location", "/elsewhere")
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        if value == 450:
            with suppress(OSError):  # drips, and never ends in time
                for _ in range(100):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.1)
            return
        self.wfile.write(json.dumps(request["action"] if value == 20 else {"type": "void"}).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/agent"
    server.shutdown()
    server.server_close()


def test_a_service_that_fails_redirects_or_drips(inside: Inside, decided: list[dict[str, Any]], service: str) -> None:
    told = backfill(inside, "--url", f"{service}?key=secret", "--timeout", 1, code=2)
    assert (told["compared"], told["differ"]) == (6, 3)
    assert told["not_compared"] == {"failed": 6, "timed out": 3}
    assert told["against"]["name"] == service
    for url in ("http://agent.example/", "ftp://x/", "https://me:pw@agent.example/"):
        inside.refused("backfill", "--url", url, code=2)
    nobody = backfill(inside, "--url", "http://127.0.0.1:9/", "--limit", 2, code=2)
    assert nobody["not_compared"] == {"unreachable": 2}


@pytest.mark.parametrize("what", ["state", "owner", "gone"])
def test_a_rewritten_ledger_is_found_by_its_checkpoint(
    inside: Inside, decided: list[dict[str, Any]], what: str
) -> None:
    backfill(inside, "--policy", "new.yml", "--apply", "--why", "w")
    name = entries(inside)[0]["decision_id"]
    inside.run("ledger", "set", name, "--state", "upheld", "--owner", "ann", "--why", "promised")
    inside.run("checkpoint")
    inside.run("verify")
    last = in_ledger() - 1
    close_homes()
    with sqlite3.connect(inside.home / "lumyn.db") as db:
        pos, value = db.execute("SELECT pos, value FROM log_ledger ORDER BY pos DESC LIMIT 1").fetchone()
        if what == "gone":
            db.execute("DELETE FROM log_ledger WHERE pos = ?", (pos,))
        else:
            event = json.loads(value) | {"state": {"state": "corrected"}, "owner": {"owner": "bob"}}[what]
            db.execute("UPDATE log_ledger SET value = ? WHERE pos = ?", (encode(event), pos))
    found = inside.run("verify", code=3)
    told = found.stdout + found.stderr
    assert f"ledger/0/{last}" in told and ("an event is gone" if what == "gone" else "is not what checkpoint") in told
