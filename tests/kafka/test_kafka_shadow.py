"""The shadow worker on a real broker: each live decision once under each candidate, whatever dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import wait_until
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, environment, living

from lumyn import sdk, wiring

CANDIDATE = """
policy: refunds
version: 9.0.0
rules:
  - id: R_SMALL
    if: {amount_usd: {lte: 50}}
    then: {verdict: ALLOW, reason_codes: [SMALL]}
memory: {weights: {text: 1, categories: 1, numbers: 1}}
"""


def test_live_decisions_are_evaluated_once_each_though_the_worker_dies(
    kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "candidate.yml").write_text(CANDIDATE)
    with living(kafka, partitions=2) as live:
        live.use_policy(POLICY)
        workers = [live.start(kind) for kind in ("decide", "labels")]
        for worker, event in zip(workers, ("worker_started", "labels_opened"), strict=True):
            worker.wait_for(event)
        config = live.config()

        def decided(amount: float) -> dict[str, Any]:
            return dict(sdk.decide(refund(amount), config))

        before = decided(20)
        with environment(
            LUMYN_KAFKA=live.address, LUMYN_PREFIX=live.prefix, LUMYN_HOME=str(live.folder / "caller")
        ):
            command = Inside(tmp_path)
            assert "in the shadow of refunds" in command.run("policy", "shadow", "candidate.yml", "--why", "w").stdout
            first = [decided(amount)["decision_id"] for amount in (20, 100, 60)]

            def compared() -> int:
                (told,) = command.json("policy", "shadow", "--json")
                return int(told["compared"])

            assert compared() == 0, "nobody evaluates, and decisions go on"
            shadow = live.start("shadow", "shadow-1")
            wait_until(lambda: compared() == len(first), TIMEOUT_S, "the worker never caught up", every_s=0.2)
            for amount in range(40):
                live.submit(refund(amount))
            shadow.kill()
            more = [decided(amount)["decision_id"] for amount in (20, 100)]
            live.start("shadow", "shadow-2")
            wait_until(
                lambda: compared() == len(first) + 40 + len(more), TIMEOUT_S, "it never went on", every_s=0.2
            )
            verdicts = live.values("shadow")
            ids = [one["decision_id"] for one in verdicts]
            assert len(ids) == len(set(ids)) and before["decision_id"] not in ids
            assert set(first + more) <= set(ids)
            assert {one["memory"] for one in verdicts} == {"as-of"}
            (told,) = command.json("policy", "shadow", "--json")
            assert told["changed"] > 0 and not told["errors"] and not told["without_memory"]
        wiring.close_homes()
