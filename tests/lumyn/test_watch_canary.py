"""`lumyn watch canary`: the same requests again and again; an agent that changed is found, one that only varies is not."""

from __future__ import annotations

import random
import shlex
import sys
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from streams.canary import compared

pytest_plugins = ("inside_plugin",)

STEADY = """\
import json, sys
amount = json.load(sys.stdin)["context"]["inline"]["number"]
print(json.dumps({"action": {"type": "refund" if amount % 3 else "wait"}, "system_fingerprint": "FINGERPRINT"}))
"""


def agent(inside: Inside, body: str) -> str:
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(inside.write('agent.py', body)))}"


@pytest.fixture
def traffic(inside: Inside) -> None:
    for number in range(30):
        body = refund(20, user=f"usr_{number}")
        body["action"]["type"] = "refund" if number % 3 else "wait"
        body["context"]["inline"]["number"] = number
        inside.decide(body)


def watch(inside: Inside, *more: object, code: int | None = 0) -> Any:
    return inside.json("watch", "canary", *more, "--json", code=code)


def test_a_steady_agent_does_not_drift_and_a_changed_one_does(inside: Inside, traffic: None) -> None:
    steady = agent(inside, STEADY.replace("FINGERPRINT", "fp_1"))
    ticks = watch(inside, "--command", steady, "--size", 24, "--every", "0.001s", "--times", 3)
    assert [one["round"] for one in ticks] == [0, 1, 2] and [one["drift_score"] for one in ticks] == [0, 0, 0]
    assert ticks[0]["agreement"]["rate"] == 1 and ticks[0]["requests"] == 24
    changed = agent(inside, STEADY.replace("FINGERPRINT", "fp_2").replace("amount % 3", "False"))
    done = inside.run("watch", "canary", "--command", changed, code=1)
    assert "DRIFTED" in done.stdout and "new system_fingerprint: fp_2" in done.stderr
    history = watch(inside, "--history", code=1)
    assert [one["drifted"] for one in history] == [False, False, False, True]
    assert history[3]["drift_score"] > 0.5 and history[3]["new_metadata"] == {"system_fingerprint": ["fp_2"]}
    window = inside.json("rate", "changes", "--from", "2020-01-01", "--json")
    assert [one["drifted"] for one in window["canary"]] == [False, False, False, True]


def test_the_set_stays_though_traffic_grows(inside: Inside, traffic: None) -> None:
    command = agent(inside, STEADY)
    first = watch(inside, "--command", command, "--size", 5, "--query", "action_type=refund")
    for number in range(10):
        body = refund(20, user=f"new_{number}")
        body["context"]["inline"]["number"] = number
        inside.decide(body)
    ticks = watch(inside, "--command", command)
    assert [one["requests"] for one in ticks] == [5, 5] and ticks[0]["rate_id"] == first[0]["rate_id"]
    assert len(watch(inside, "--command", command, "--name", "second", "--size", 7)) == 1
    assert [one["requests"] for one in watch(inside, "--command", command, "--size", 3, "--new-set")] == [3]


def test_runs_that_fail_are_no_outcome_and_all_failing_is_exit_4(inside: Inside, traffic: None) -> None:
    watch(inside, "--command", agent(inside, STEADY), "--size", 6)
    ticks = watch(inside, "--command", agent(inside, "raise SystemExit(1)"), code=4)
    assert ticks[-1]["answered"] == 0 and ticks[-1]["drift_score"] is None and ticks[-1]["drifted"]


def test_an_edited_round_is_exit_3(inside: Inside, traffic: None) -> None:
    (first,) = watch(inside, "--command", agent(inside, STEADY), "--size", 6)
    path = inside.home / "rates" / f"{first['rate_id']}.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"refund"', b'"wait"'))
    inside.refused("watch", "canary", "--history", code=3)


def test_tenants_never_meet(inside: Inside, traffic: None, monkeypatch: pytest.MonkeyPatch) -> None:
    watch(inside, "--command", agent(inside, STEADY), "--size", 6)
    monkeypatch.setenv("LUMYN_TENANT", "other")
    assert watch(inside, "--history") == []
    assert "no decisions" in inside.refused("watch", "canary", "--command", "true", code=2)


def test_forgotten_decisions_are_not_run(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    for number in range(3):
        body = refund(20, user=f"usr_{number}")
        body["context"]["inline"]["number"] = number
        inside.decide(body)
    command = agent(inside, STEADY + "open('runs', 'a').write('x')\n")
    assert watch(inside, "--command", command)[0]["answered"] == 3
    inside.run("memory", "forget", "--subject", "user:usr_1", "--why", "asked", "--apply")
    done = inside.run("watch", "canary", "--command", command)
    assert "2 of 3" in done.stdout and "are not run" in done.stderr
    assert (inside.folder / "runs").read_text() == "x" * 5
    line = inside.refused("watch", "canary", "--command", command, "--new-set", "--outcome", "context.channel", code=2)
    assert "kept in clear" in line


@pytest.mark.parametrize("more", [
    (), ("--command", "true", "--url", "http://x"), ("--command", "true", "--times", "2"),
    ("--command", "true", "--every", "soon"), ("--command", "true", "--every", "0s"), ("--command", "no-such-program"),
    ("--command", "true", "--outcome", "/x/"), ("--command", "true", "--query", "verdict="),
])  # fmt: skip
def test_misuse_is_exit_2(inside: Inside, traffic: None, more: tuple[str, ...]) -> None:
    inside.refused("watch", "canary", *more, code=2)


def test_an_agent_that_only_varies_raises_no_alarm_in_a_hundred_rounds() -> None:
    """In fewer than one history of ten: 5% is what is promised over all rounds."""
    rng = random.Random(8)

    def draw() -> list[str | None]:
        return ["a" if rng.random() < 0.7 else "b" for _ in range(40)]

    alarmed = 0
    for _ in range(40):
        first, noted = draw(), [text or "" for text in draw()]
        alarmed += any(compared(first, draw(), noted, number).drifted for number in range(1, 101))
    assert alarmed <= 4, alarmed


def test_a_shift_of_an_agent_that_varies_is_found() -> None:
    rng = random.Random(9)
    first: list[str | None] = ["a" if rng.random() < 0.8 else "b" for _ in range(200)]
    later: list[str | None] = ["a" if rng.random() < 0.5 else "b" for _ in range(200)]
    found = compared(first, later, ["a"] * 200, 20)
    assert found.drifted and found.score is not None and 0.3 < found.score < 0.7
