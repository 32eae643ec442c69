"""`lumyn backtest` over a real broker: the range is fixed at the start, and the live group never notices."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside
from live_deployment import POLICY, Live

from lumyn import LumynConfig, backtesting, sdk
from streams.decide_agent import GROUP

MILD = POLICY.replace("gte: 0.8", "gte: 0.95").replace("gt: 250", "gt: 400")


def report(inside: Inside, *arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(inside.json("backtest", "--policy", "mild.yml", *arguments, "--json", code=code))


def cells(found: dict[str, Any]) -> Counter[tuple[str, str]]:
    return Counter({(cell["old"], cell["new"]): cell["seen"] for cell in found["candidates"][0]["matrix"]})


def test_the_log_of_a_broker_is_asked_in_parts_and_in_processes(
    inside: Inside, live: Live, config: LumynConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside.write("mild.yml", MILD)
    amounts, risks = (20, 260, 300, 450), (0.1, 0.85, 0.99)
    asked = [refund(a, r, f"u{n}", request_id=f"r-{n}") for n, (a, r) in enumerate((a, r) for a in amounts for r in risks)]
    records = [record for record in sdk.decide_many(asked, config) if isinstance(record, dict)]
    assert len(records) == 12
    sdk.decide(asked[0], config)  # a retry, and no decision
    sdk.label(records[0]["decision_id"], "failure", summary="seen", config=config)

    from lumyn.wiring import existing_home

    log = existing_home().log
    before = [log.committed(GROUP, "requests", p) for p in range(log.partitions("requests"))]
    whole = report(inside)
    expected: Counter[tuple[str, str]] = Counter()
    for record in records:
        pack = sdk.export(record["decision_id"], inside.folder / "one.zip", config=config)
        expected[record["verdict"], sdk.replay(pack, policy="mild.yml", memory="recorded", config=config)["verdict"]] += 1
    assert cells(whole) == expected
    assert whole["range"]["labelled"]["total"] == 1
    assert whole["range"]["gaps"]["gone"] == 0

    parts: Counter[tuple[str, str]] = Counter()
    for partition in range(log.partitions("requests")):
        offsets = [record["log"]["offset"] for record in records if record["log"]["partition"] == partition]
        if offsets:
            some = report(inside, "--from", f"{partition}:{min(offsets):03d}", "--to", f"{partition}:{max(offsets) + 1:03d}")
            parts += cells(some)
    assert parts == expected

    monkeypatch.setattr(backtesting, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr("lumyn.backtest_plan._EACH_KAFKA", 5)
    assert report(inside) == whole
    current = report(inside, "--memory", "current")
    assert current["candidates"][0]["coverage"]["compared"] == 12
    assert [log.committed(GROUP, "requests", p) for p in range(log.partitions("requests"))] == before
