"""`lumyn memory explain`: the whole sum, and what would have changed the verdict, tried."""

from __future__ import annotations

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk, wiring
from schemas.policy import DAY_MS
from streams.local_log import wall_clock_ms

pytest_plugins = ("inside_plugin",)


def test_the_blocks_add_up_to_the_score_and_leaving_out_the_culprit_changes_the_verdict(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure", summary="chargeback")
    record = inside.decide(refund(20))
    assert record["verdict"] == "DENY"
    told = inside.json("memory", "explain", record["decision_id"], "--json")
    (harmful,) = [n for n in told["neighbours"] if n["role"] == "harmful"]
    assert harmful["memory_id"] == bad and harmful["thresholds"] == {"failure_block": True, "failure_escalate": True}
    assert harmful["adds_up"] and abs(sum(harmful["by_block"].values()) - 1) < 0.01
    assert harmful["amounts"] == "20 <= 20 x 3"
    without = {o["without"]: (o["verdict"], o["changes"]) for o in told["otherwise"]}
    assert without == {"any memory of the like": ("ALLOW", True), bad: ("ALLOW", True)}
    text = inside.run("memory", "explain", record["decision_id"]).stdout
    assert f"without {bad}: ALLOW" in text and "failure_block met" in text and "20 <= 20 x 3" in text


def test_one_of_several_culprits_alone_changes_nothing_and_it_says_so(inside: Inside) -> None:
    names = [inside.decide(refund(20 + n))["decision_id"] for n in range(2)]
    for name in names:
        sdk.label(name, "failure")
    record = inside.decide(refund(20))
    text = inside.run("memory", "explain", record["decision_id"]).stdout
    assert f"without {names[0]}: DENY" in text and ", the same" in text


def test_it_is_explained_as_it_was_whatever_was_said_since(inside: Inside) -> None:
    bad = inside.decide(refund(20))["decision_id"]
    sdk.label(bad, "failure")
    record = inside.decide(refund(20))
    before = inside.json("memory", "explain", record["decision_id"], "--json")
    sdk.label(bad, "success")
    sdk.label(record["decision_id"], "failure")
    inside.run("memory", "rebuild")
    assert inside.json("memory", "explain", record["decision_id"], "--json") == before


def test_without_a_memory_there_is_nothing_to_explain(inside: Inside) -> None:
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().split("memory:")[0])
    name = inside.decide(refund(20))["decision_id"]
    assert "without memory" in inside.refused("memory", "explain", name, code=2)
    assert inside.run("memory", "explain", "01JBQX8P2M", code=None).code != 0


def test_the_sum_shows_how_old_each_label_was_when_it_was_asked(inside: Inside) -> None:
    policy = (inside.folder / "policy.yml").read_text()
    inside.write("policy.yml", policy.replace("memory: {}", "memory: {half_life_days: 30}"))
    bad, good = (inside.decide(refund(20))["decision_id"] for _ in range(2))
    sdk.label(bad, "failure", actor="ann")
    sdk.label(good, "success", actor="ben")
    later = wall_clock_ms() + 45 * DAY_MS
    for home in wiring._homes.values():
        home.log._clock = lambda: later  # type: ignore[attr-defined]
    record = inside.decide(refund(20))
    roles = {hit["role"]: hit.get("age_ms", 0) / DAY_MS for hit in record["memory"]["counted"]}
    assert roles == {"harmful": pytest.approx(45, abs=0.01)}, "the fine one is too old"
    told = inside.json("memory", "explain", record["decision_id"], "--json")
    assert told["half_life_days"] == 30
    assert [(t["labeller"], round(t["decay"], 4), t["harmful"]) for t in told["sum"]] == [
        ("ann", 0.3536, True), ("ben", 0.3536, False),
    ]  # fmt: skip
    near = record["risk_signals"]["nearby"]
    assert (near["failure_rate"], round(near["n_effective"], 4)) == (0.5, 0.7071)
    (harmful,) = told["neighbours"]
    assert round(harmful["worth"], 4) == 0.3536 and round(harmful["age_days"], 1) == 45
    text = inside.run("memory", "explain", record["decision_id"]).stdout
    assert "half-life of a label: 30 days" in text and "x trust 1 x decay 0.35355" in text and "45 days old" in text
    assert "harmful 0.353" in text and "of 0.707" in text
    assert "said 45 days before" in inside.run("explain", record["decision_id"]).stdout
    assert not told["notes"]
    inside.run("memory", "verify")
    inside.run("verify")
