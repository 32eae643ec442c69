"""Backtests under another memory: what flips is laid to policy, memory or both, and no decision judges itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import POLICY, next_millisecond, refund
from inside import Inside
from small_model import small_model
from test_memory_verify import lived

from lumyn import LumynConfig, backtesting, sdk

pytest_plugins = ("inside_plugin",)


@pytest.fixture
def decided(inside: Inside) -> list[dict[str, Any]]:
    """Ten alike refunds, and two others; then the first is known to have failed."""
    records = [inside.decide(refund(20, user=f"usr_{number}")) for number in range(10)]
    records += [inside.decide(refund(480, 0.9)), inside.decide(refund(260))]
    sdk.label(records[0]["decision_id"], "failure", summary="chargeback")
    return records


def of(inside: Inside, memory: str, policy: str = "policy.yml", code: int = 0) -> dict[str, Any]:
    asked = ("backtest", "--policy", policy, "--memory", memory, "--json")
    return dict(inside.json(*asked, code=code)["candidates"][0])


def causes(candidate: dict[str, Any]) -> dict[str, float]:
    return {one["cause"]: one["flips"] for one in candidate["causes"] if one["flips"]}


def test_recorded_and_as_of_memory_change_nothing_by_themselves(inside: Inside, decided: list[Any]) -> None:
    for memory in ("recorded", "as-of"):
        found = of(inside, memory)
        assert found["flips"]["count"] == 0 and found["causes"] == []
        assert found["coverage"]["compared"] == 12


def test_present_memory_flips_what_is_like_the_failure_but_not_the_failure_itself(
    inside: Inside, decided: list[Any]
) -> None:
    found = of(inside, "current")
    flipped = {flip["decision_id"] for flip in found["top"]}
    assert flipped == {record["decision_id"] for record in decided[1:10]}
    assert causes(found) == {"memory": 9}
    assert {flip["new_memory"][0]["memory_id"] for flip in found["top"]} == {decided[0]["decision_id"]}
    assert all(flip["old_memory"] == [] for flip in found["top"])


def test_policy_and_memory_are_told_apart_and_together(inside: Inside, decided: list[Any]) -> None:
    # Memory off in the policy of then's place: the milder limit flips 260 by policy alone.
    inside.write("mild.yml", POLICY.replace("gt: 250", "gt: 300"))
    assert causes(of(inside, "current", "mild.yml")) == {"memory": 9, "policy": 1}
    # What blocks now needs the failure in the memory, and a threshold that only the candidate has.
    inside.write("off.yml", POLICY.replace("memory: {}", "memory: {failure_block: 2, failure_escalate: 2}"))
    assert causes(of(inside, "current", "off.yml")) == {}
    later = inside.decide(refund(20, user="later"))
    assert later["verdict"] == "DENY"
    found = of(inside, "current", "off.yml")
    assert causes(found) == {"policy": 1} and found["top"][0]["decision_id"] == later["decision_id"]


def test_without_memory_what_memory_did_is_undone(inside: Inside, decided: list[Any]) -> None:
    blocked = inside.decide(refund(20, user="later"))
    assert blocked["verdict"] == "DENY"
    found = of(inside, "none")
    assert causes(found) == {"memory": 1}
    assert found["top"][0]["decision_id"] == blocked["decision_id"] and found["top"][0]["new"] == "ALLOW"


def test_asked_otherwise_recorded_memory_can_not_answer_and_as_of_can(inside: Inside, decided: list[Any]) -> None:
    inside.write("seven.yml", POLICY.replace("memory: {}", "memory: {top_k: 7}"))
    done = inside.run("backtest", "--policy", "seven.yml", code=2)
    assert "memory.top_k was 5" in done.stderr and "`--memory as-of`" in done.stderr and done.stdout == ""
    found = of(inside, "as-of", "seven.yml")
    assert found["coverage"]["compared"] == 12 and found["flips"]["count"] == 0


def test_made_with_memory_off_a_decision_is_asked_by_its_time(inside: Inside) -> None:
    inside.write("policy.yml", POLICY.replace("memory: {}\n", ""))
    first, second = inside.decide(refund(20)), inside.decide(refund(20, user="b"))
    sdk.label(first["decision_id"], "failure", summary="chargeback", wait_s=0)
    next_millisecond()
    third = inside.decide(refund(20, user="c"))
    inside.write("with.yml", POLICY)
    found = of(inside, "as-of", "with.yml")
    assert {flip["decision_id"] for flip in found["top"]} == {third["decision_id"]}
    assert second["decision_id"] not in json.dumps(found["top"])


def test_processes_ask_the_same_memory(inside: Inside, decided: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    one = of(inside, "current")
    monkeypatch.setattr("lumyn.backtest_plan._EACH_ASKED", 3)
    monkeypatch.setattr(backtesting, "_WORTH_ASKING", 1)
    assert of(inside, "current") == one


def test_outcomes_may_come_from_a_file(inside: Inside, decided: list[Any]) -> None:
    inside.run("export", "--limit", 50, "--out", "all.jsonl")
    listed = inside.run("list", "--query", "label=failure", "--json").stdout
    inside.write("listed.json", listed)
    inside.write("lines.jsonl", json.dumps({"decision_id": decided[3]["decision_id"], "label": "success"}) + "\n")
    inside.write("strict.yml", POLICY.replace("gte: 0.8", "gte: 0.05"))
    asked = {"policies": "strict.yml", "files": ["all.jsonl"], "config": LumynConfig(home=inside.folder / "nowhere")}
    with_labels = sdk.backtest(**asked, outcomes="listed.json", require=["failures_caught > baseline"])
    assert with_labels["range"]["labelled"] == {"harmful": 1, "total": 1} and with_labels["passed"]
    lines = sdk.backtest(**asked, outcomes="lines.jsonl", require=["fine_allowed >= baseline"])
    assert lines["range"]["labelled"] == {"fine": 1, "total": 1} and not lines["passed"]
    inside.write("bad.jsonl", '{"decision_id": "x", "label": "success"}\n{"decision_id": "y", "label": "maybe"}\n')
    done = inside.refused("backtest", "all.jsonl", "--policy", "strict.yml", "--outcomes", "bad.jsonl", code=2)
    assert "bad.jsonl:2" in done and "`label` is `maybe`" in done


def test_as_of_is_refused_where_there_is_no_memory(inside: Inside, decided: list[Any], monkeypatch: Any) -> None:
    inside.run("export", "--limit", 50, "--out", "all.jsonl")
    monkeypatch.setenv("LUMYN_HOME", "nowhere")
    asked = ("backtest", "all.jsonl", "--policy", "policy.yml", "--memory")
    assert "there are no decisions here yet" in inside.refused(*asked, "as-of", code=2)
    assert inside.json(*asked, "recorded", "--json")["candidates"][0]["flips"]["count"] == 0


def test_each_decision_is_asked_of_the_memory_that_it_was_made_with(inside: Inside, tmp_path: Path) -> None:
    made = lived(inside, 15)
    inside.run("memory", "switch", f"static:{small_model(tmp_path / 'small')}", "--why", "a smaller model")
    made += lived(inside, 15)
    assert len({record["memory"]["vectoriser_id"] for record in made} - {None}) == 2
    found = of(inside, "as-of")
    assert found["coverage"]["compared"] == len(made) and found["coverage"]["errored"] == 0
    assert found["flips"]["count"] == 0 and found["causes"] == []
    assert of(inside, "current")["coverage"]["compared"] == len(made)
