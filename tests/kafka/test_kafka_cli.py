"""The command line over a real broker: the same commands as embedded, with the same answers and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from conftest_e2e import refund
from faults.deployment import wait_until
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, Live


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_decide_prints_the_record(inside: Inside, live: Live, tenant: str) -> None:
    inside.write("request.json", json.dumps(refund(100, request_id="r-1")))
    record = inside.json("decide", "request.json")
    assert (record["verdict"], record["tenant"]) == ("ALLOW", tenant)
    assert live.records_of(tenant) == [record]
    again = inside.run("decide", "request.json", "--json")
    assert json.loads(again.stdout) == record
    assert "duplicate: request_id `r-1` was decided before" in again.stderr
    assert "verdict: ALLOW" in inside.run("decide", "request.json", "--human").stdout


def test_a_line_is_a_request_and_gets_a_line(inside: Inside) -> None:
    asked = "\n".join(json.dumps(refund(n + 1, request_id=f"r-{n}")) for n in range(20))
    records = lines(inside.run("decide", "-", stdin=asked).stdout)
    assert [r["request_id"] for r in records] == [f"r-{n}" for n in range(20)]
    assert [r["request"]["action"]["amount"]["value"] for r in records] == list(range(1, 21))
    mixed = "\n".join([json.dumps(refund(1)), '{"no": 1}', json.dumps(refund(2, request_id="r-0")), json.dumps(refund(3))])
    done = inside.run("decide", "-", stdin=mixed, code=2)
    assert [r["request"]["action"]["amount"]["value"] for r in lines(done.stdout)] == [1, 3]
    assert "stdin:2: " in done.stderr and "request_id `r-0` was decided before" in done.stderr


def test_a_conflict_is_exit_2(inside: Inside) -> None:
    first = inside.json("decide", "-", stdin=json.dumps(refund(1, request_id="same")))
    said = inside.refused("decide", "-", stdin=json.dumps(refund(2, request_id="same")), code=2)
    assert first["decision_id"] in said


def test_the_logic_of_a_period_is_attested_and_checked_against_the_topics(inside: Inside, tenant: str) -> None:
    for amount in (100, 300, 90):
        inside.json("decide", "-", stdin=json.dumps(refund(amount)))
    period = ("--from", "2020-01-01", "--to", "2099-12-31")
    found = inside.json("verify", "--logic-unchanged", *period, "--out", "a.json", "--json")["statement"]
    assert found["unchanged"] and (found["tenant"], found["decisions"]) == (tenant, 3)
    assert found["checkpoints"]["decisions"] + found["checkpoints"]["not_covered"] == 3
    inside.json("decide", "-", stdin=json.dumps(refund(100)))
    checks = inside.json("verify", "a.json", "--json")["checks"]
    assert checks[-1] == {"name": "log", "ok": True, "detail": "3 decisions of this log verified again"}


def test_no_wait_says_where_and_the_workers_decide(inside: Inside, live: Live, tenant: str) -> None:
    asked = "\n".join(json.dumps(refund(n + 1, request_id=f"r-{n}")) for n in range(3))
    places = inside.run("decide", "-", "--no-wait", stdin=asked).stdout.splitlines()
    records = sorted(live.wait_records(tenant, 3), key=lambda record: record["request_id"])
    assert places == [f"{r['log']['topic']} {r['log']['partition']}:{r['log']['offset']}" for r in records]


def test_the_whole_story_of_a_decision(inside: Inside, tenant: str) -> None:
    """decide, list, show, label, decide again, export, replay, verify, as on an embedded home."""
    record = inside.json("decide", "-", stdin=json.dumps(refund(100)))
    name = record["decision_id"]
    inside.json("decide", "-", stdin=json.dumps(refund(300)))
    assert [row["verdict"] for row in inside.json("list", "--json")] == ["ESCALATE", "ALLOW"]
    assert [row["decision_id"] for row in inside.json("list", "--query", "verdict=ALLOW", "--json")] == [name]
    assert f"labelled failure: {name}" in inside.run("label", name, "--label", "failure", "--summary", "oops").stdout
    assert inside.json("list", "--query", "label=failure", "--json")[0]["decision_id"] == name
    shown = inside.run("show", f"{name[:20]}...").stdout
    assert "verdict: ALLOW" in shown and "oops" in shown
    assert "was allowed" in inside.run("explain", name).stdout
    second = inside.json("decide", "-", stdin=json.dumps(refund(100)))
    assert second["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"]
    assert inside.json("memory", "stats", "--json")["points"] == 1
    assert name in inside.run("memory", "search", "-", stdin=json.dumps(refund(100))).stdout

    inside.run("export", name, "--pack", "--out", "one.zip")
    assert "verdict: DENY (was ALLOW)" in inside.run("replay", "one.zip", code=1).stdout, "its own label counts"
    assert "Replay successful" in inside.run("replay", "one.zip", "--memory", "recorded").stdout
    assert json.loads(inside.run("verify", "one.zip", "--json").stdout)["verified"] is True
    assert inside.json("verify", name, "--json")["verified"] is True
    inside.run("export", "--limit", "10", "--out", "all.jsonl")
    assert {r["tenant"] for r in lines((inside.folder / "all.jsonl").read_text())} == {tenant}
    inside.write("candidate.yml", POLICY.replace("gt: 250", "gt: 400").replace("lte: 250", "lte: 400"))
    changed = inside.json("diff", "all.jsonl", "--policy", "candidate.yml", "--json", code=1)
    assert [(c["old"], c["new"]) for c in changed["changes"]] == [("ESCALATE", "ALLOW")]


def test_past_recalls_are_made_again_as_of_their_versions(inside: Inside) -> None:
    first = inside.json("decide", "-", stdin=json.dumps(refund(100)))
    inside.run("label", first["decision_id"], "--label", "failure", "--summary", "oops")
    wait_until(
        lambda: inside.json("decide", "-", stdin=json.dumps(refund(100)))["memory"]["counted"],
        TIMEOUT_S, "the label never counted", every_s=0.1,
    )  # fmt: skip
    told = inside.json("memory", "verify", "--json")
    assert told["verified"] and told["same"] == told["sampled"] >= 2


def test_a_job_changes_the_memory_and_is_taken_back(inside: Inside) -> None:
    def verdict_is(verdict: str) -> None:
        wait_until(
            lambda: inside.json("decide", "-", stdin=json.dumps(refund(100)))["verdict"] == verdict,
            TIMEOUT_S, f"never {verdict}", every_s=0.1,
        )  # fmt: skip

    names = [inside.json("decide", "-", stdin=json.dumps(refund(100 + n)))["decision_id"] for n in range(3)]
    for name in names:
        inside.run("label", name, "--label", "failure", "--summary", "a bad import")
    verdict_is("DENY")
    which = ("--query", f"decision_id IN ({', '.join(names)})", "--label", "success", "--why", "wrong sign")
    assert inside.json("relabel", *which, "--json")["memories"] == 3
    told = inside.json("relabel", *which, "--apply", "--json")
    assert (told["accepted"], told["refused"]) == (3, [])
    verdict_is("ALLOW")
    inside.run("relabel", "--undo", told["job"])
    verdict_is("DENY")
    assert inside.json("memory", "verify", "--json")["verified"] is True


def test_a_labeller_is_held_in_what_he_says_next_and_released(inside: Inside, monkeypatch: Any) -> None:
    def verdict_is(verdict: str) -> None:
        wait_until(
            lambda: inside.json("decide", "-", stdin=json.dumps(refund(100)))["verdict"] == verdict,
            TIMEOUT_S, f"never {verdict}", every_s=0.1,
        )  # fmt: skip

    def imported(name: str) -> None:
        with monkeypatch.context() as bot:
            bot.setenv("LUMYN_ACTOR", "bot")
            inside.run("label", name, "--label", "failure", "--summary", "imported")

    one, two = (inside.json("decide", "-", stdin=json.dumps(refund(100 + n)))["decision_id"] for n in range(2))
    imported(one)
    verdict_is("DENY")
    who = ("--labeller", "bot", "--why", "the import is being checked", "--apply", "--json")
    held = inside.json("memory", "quarantine", *who)
    assert (held["accepted"], held["refused"]) == (1, [])
    verdict_is("ALLOW")
    imported(two)
    assert inside.json("decide", "-", stdin=json.dumps(refund(100)))["verdict"] == "ALLOW"
    assert [(t["labeller"], t["trust"]) for t in inside.json("memory", "trust", "--json")["trust"]] == [("bot", 0)]
    with monkeypatch.context() as bot:
        bot.setenv("LUMYN_ACTOR", "bot")
        done = inside.run("memory", "trust", "bot", 1, "--why", "it is me", "--apply", code=2)
    assert "`bot` is held" in done.stderr
    assert inside.json("memory", "stats", "--json")["points"] == 0
    inside.run("memory", "release", "--labeller", "bot", "--why", "it was right", "--apply")
    verdict_is("DENY")
    assert inside.json("memory", "stats", "--json")["points"] == 2
    inside.run("memory", "quarantine", "--undo", held["job"])
    assert inside.json("memory", "verify", "--json")["verified"] is True


def test_everything_that_was_decided_verifies(inside: Inside, live: Live) -> None:
    inside.json("decide", "-", stdin=json.dumps(refund(100)))
    live.wait_decided()
    told = inside.json("verify", "--json")
    assert told["verified"] is True and told["decisions"] >= 1


def test_another_tenant_sees_and_labels_nothing(inside: Inside, live: Live, tenant: str, monkeypatch: Any) -> None:
    record = inside.json("decide", "-", stdin=json.dumps(refund(100)))
    monkeypatch.setenv("LUMYN_TENANT", f"{tenant}-b")
    assert inside.json("list", "--json") == []
    for command in (("show",), ("explain",), ("label", "--label", "failure"), ("export", "--pack", "--out", "x.zip")):
        assert "no decision" in inside.refused(*command, record["decision_id"], code=2)


def test_policies_are_listed_and_shown(inside: Inside) -> None:
    active = [p for p in inside.json("policy", "list", "--json") if p["active"]]
    assert [(p["name"], p["version"]) for p in active] == [("refunds", "4.1.0")]
    assert "R_FRAUD_BLOCK" in inside.run("policy", "show", "refunds").stdout


def test_a_policy_file_that_is_not_active_is_refused(inside: Inside, live: Live, tenant: str) -> None:
    inside.write("other.yml", POLICY.replace("gt: 250", "gt: 400"))
    said = inside.refused("decide", "-", "--policy", "other.yml", stdin=json.dumps(refund(1)), code=2)
    assert "by the active policy: `refunds@4.1.0` is active, not this file's content" in said
    assert live.receipts_of(tenant) == []


def test_lumyn_policy_in_the_environment_never_decides_here(inside: Inside, monkeypatch: Any) -> None:
    """It is the workers' fallback, where nothing is active; a caller's own is no command to them."""
    inside.write("other.yml", POLICY.replace("gt: 250", "gt: 40"))
    monkeypatch.setenv("LUMYN_POLICY", "other.yml")
    assert inside.json("decide", "-", stdin=json.dumps(refund(100)))["verdict"] == "ALLOW"


def test_the_command_in_a_process_of_its_own(live: Live, tenant: str) -> None:
    """What a shell script gets: data on stdout alone, the record stored, exit 0."""
    environment = {"PATH": os.environ["PATH"], "LUMYN_KAFKA": live.address, "LUMYN_PREFIX": live.prefix,
                   "LUMYN_TENANT": tenant, "LUMYN_HOME": str(live.folder / "shell")}  # fmt: skip
    command = [sys.executable, "-m", "lumyn", "decide", "-", "--json"]
    asked = "\n".join(json.dumps(refund(n + 1)) for n in range(3))
    done = subprocess.run(
        command, input=asked.encode(), env=environment, cwd=live.folder, capture_output=True, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(lines(done.stdout.decode())) == 3
    wait_until(lambda: len(live.records_of(tenant)) == 3, TIMEOUT_S, "three records")
