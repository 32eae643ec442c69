"""Forgetting beside what else keeps or reads the past: memories that were left, candidates, backtests, trust."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inside import Inside
from small_model import small_model
from test_forgetting import ANN, BEN, asked, forget, holding, private  # noqa: F401
from test_policy_shadow import candidate

from lumyn import sdk, wiring

pytest_plugins = ("inside_plugin",)


def lived(count: int = 3) -> list[dict[str, Any]]:
    """Decisions on both, all labelled."""
    made = [dict(sdk.decide(asked(user, 100 + number))) for number in range(count) for user in (ANN, BEN)]
    for number, record in enumerate(made):
        sdk.label(record["decision_id"], "failure", summary="Philomena wept", actor="ab"[number % 2])
    return made


@pytest.mark.parametrize("where", ["sqlite", "edge"])
def test_a_memory_that_was_left_forgets_too(
    private: Inside, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    if where == "edge":
        pytest.importorskip("qdrant_edge")
        monkeypatch.setenv("LUMYN_QDRANT", f"edge:{private.folder / 'edge'}")
    lived()
    private.run("memory", "switch", f"static:{small_model(tmp_path / 'small')}", "--why", "smaller")
    made = lived()
    told = forget(private)
    assert told["records"] == 6 and told["memories"] == 6
    left = [f for f in private.home.glob("memory*.db") if where == "sqlite"]
    assert len(left) == (1 if where == "sqlite" else 0), "the one that was left is derived, and removed"
    home = wiring.operator_home()
    for choice in (home.agent.control().memory, *home.agent.control().memories.values()):
        points = list(home.memories.of(choice).store().points())
        assert {p.memory_id for p in points} and not {p.memory_id for p in points} & {
            r["decision_id"] for r in made if r["request"]["subject"]["id"] == ANN
        }
        assert len(points) == 6
    wiring.close_homes()
    assert holding(private.folder, ANN) == [], "what else is personal here is Ben's, too"
    verified = private.json("memory", "verify", "--json")
    assert verified["verified"]


def test_candidates_and_backtests_count_what_is_erased(private: Inside) -> None:  # noqa: F811
    lived(1)
    name = sdk.decide(asked(BEN))["policy"]["name"]
    private.run("policy", "shadow", candidate(private, name))
    lived(2)
    forget(private)
    (told,) = private.json("policy", "shadow", "--json")
    assert (told["compared"], told["errors"]) == (2, 2)
    report = private.json("backtest", "--policy", candidate(private, name), "--json")
    assert report["range"]["refused"] == {"erased": 3}
    assert ANN not in str(report)
    said = private.run("backtest", "--policy", candidate(private, name)).stderr
    assert "3 records are erased" in said


def test_sealed_decisions_are_backtested_like_others(private: Inside) -> None:  # noqa: F811
    made = lived(3)
    name = made[0]["policy"]["name"]
    report = private.json("backtest", "--policy", candidate(private, name), "--json")
    assert report["range"]["refused"] == {} and report["candidates"][0]["coverage"]["labelled"] > 0
    assert report["range"]["decisions"] == 6


def test_trust_is_told_after_forgetting(private: Inside) -> None:  # noqa: F811
    lived()
    forget(private)
    private.run("memory", "trust", "a", "0.5", "--why", "half", "--apply")
    private.run("memory", "trust", "b", "0", "--why", "held", "--apply")
    points = list(wiring.operator_home().memory.store().points())
    assert len(points) <= 3 and all(p.labeller == "a" for p in points)
    assert private.json("memory", "verify", "--json")["verified"]
    private.run("memory", "rebuild")
    assert [p.memory_id for p in wiring.operator_home().memory.store().points()] == [p.memory_id for p in points]
