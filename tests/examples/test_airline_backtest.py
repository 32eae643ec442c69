"""The airline candidate backtested on the recorded agents' actions, whose outcomes are known one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from inside import Inside

from lumyn import LumynConfig, sdk

pytest_plugins = ("inside_plugin",)

AIRLINE = Path(__file__).resolve().parents[2] / "examples" / "airline"


@pytest.fixture
def decided(inside: Inside) -> dict[str, dict[str, Any]]:
    """Every recorded action, decided by the first policy; and what should have become of each."""
    requests = [json.loads(line) for line in (AIRLINE / "requests.jsonl").read_text().splitlines()]
    records = sdk.decide_many(requests, LumynConfig(policy_path=AIRLINE / "policy.yml"))
    by_id = {record["request_id"]: dict(record) for record in records if isinstance(record, dict)}
    lines = []
    for line in (AIRLINE / "outcomes.jsonl").read_text().splitlines():
        outcome = json.loads(line)
        record = by_id[outcome["request_id"]]
        record["right"] = right = "ALLOW" if outcome["expected"] else "DENY"
        said = {"label": "success"} if record["verdict"] == right else {"label": "failure", "should": right}
        lines.append(json.dumps({"decision_id": record["decision_id"], **said}))
    inside.write("outcomes.jsonl", "\n".join(lines))
    return by_id


def test_the_candidate_is_better_and_it_can_be_told_how_sure(inside: Inside, decided: dict[str, dict[str, Any]]) -> None:
    bars = ("failures_caught >= baseline", "fine_allowed >= baseline", "upper(failures_allowed) <= 40%")
    report = inside.json(
        "backtest", "--policy", AIRLINE / "candidate_policy.yml", "--memory", "as-of", "--outcomes", "outcomes.jsonl",
        "--cluster", "provenance.batch", *(part for bar in bars for part in ("--require", bar)), "--json",
    )  # fmt: skip
    (candidate,) = report["candidates"]
    assert report["passed"] and candidate["coverage"]["compared"] == len(decided) == 87
    old_right = sum((r["verdict"] == "ALLOW") == (r["right"] == "ALLOW") for r in decided.values())
    accuracy = candidate["outcomes"]["figures"]["accuracy"]
    assert accuracy["before"]["seen"] == old_right < accuracy["after"]["seen"]
    paired = candidate["outcomes"]["paired"]
    assert paired["candidate_only"] - paired["recorded_only"] == accuracy["after"]["seen"] - old_right
    assert paired["difference"]["lower"] > 0 and paired["mcnemar_p"] < 0.05 and paired["clustered_p"] < 0.05
    allowed = [r for r in decided.values() if r["verdict"] == "ALLOW" and r["right"] == "DENY"]
    assert candidate["outcomes"]["wrong_among_allowed"]["before"]["wrong"] == len(allowed)
    assert {one["cause"] for one in candidate["causes"]} == {"policy"}
