"""The async twins decide on one home at once, and lose nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest_e2e import POLICY, refund

from lumyn import LumynConfig, aio


def test_fifty_concurrent_decisions_are_all_recorded(tmp_path: Path) -> None:
    (tmp_path / "policy.yml").write_text(POLICY)
    config = LumynConfig(policy_path=tmp_path / "policy.yml", home=tmp_path / "home")

    async def run() -> list[str]:
        records = await asyncio.gather(*(aio.decide(refund(100 + n), config) for n in range(50)))
        assert {r["request"]["action"]["amount"]["value"] for r in records} == set(range(100, 150))
        await aio.label(records[0]["decision_id"], "success", summary="right", config=config)
        shown = await aio.show(records[0]["decision_id"], config)
        assert [e["label"] for e in shown["events"]] == ["success"]
        altered = await aio.counterfactuals(records[0]["decision_id"], limit=1, config=config)
        assert altered["counterfactuals"][0]["verdict"] != records[0]["verdict"]
        return [r["decision_id"] for r in records]

    assert len(set(asyncio.run(run()))) == 50
