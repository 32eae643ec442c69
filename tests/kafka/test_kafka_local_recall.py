"""`memory.recall = "local"`: a decide worker with an exact index of its own, which no Qdrant server can hold up."""

from __future__ import annotations

from typing import Any

from conftest_e2e import refund
from faults.deployment import wait_until
from live_deployment import TIMEOUT_S, Live, living

from lumyn import LumynConfig, sdk

NOWHERE = {"LUMYN_QDRANT": "http://127.0.0.1:1", "LUMYN_MEMORY_RECALL": "local"}
"""A Qdrant server that is down for good."""
POLICY = """
policy: remembering
version: 1.0.0
rules:
  - id: R_SMALL
    if: {amount_usd: {lte: 250}}
    then: {verdict: ALLOW, reason_codes: [SMALL]}
memory: {on_unavailable: escalate}
"""


def decide_until(config: LumynConfig, verdict: str) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def is_so() -> bool:
        found.update(sdk.decide(refund(100), config))
        return bool(found["verdict"] == verdict)

    wait_until(is_so, TIMEOUT_S, lambda: f"last: {found['verdict']} {found['reason_codes']}", every_s=0.1)
    return found


def decide_with_a_label(live: Live, tenant: str) -> list[dict[str, Any]]:
    """A decision that went wrong, the next like it, and, retracted, the one after that."""
    config = live.config(tenant)
    first = sdk.decide(refund(100), config)
    sdk.label(first["decision_id"], "failure", summary="fraud after all", config=config)
    second = decide_until(config, "DENY")
    sdk.label(first["decision_id"], "retracted", config=config)
    return [first, second, decide_until(config, "ALLOW")]


def test_a_qdrant_outage_does_not_touch_decisions(kafka: str, tenant: str) -> None:
    with living(kafka, partitions=2) as deployment:
        deployment.use_policy(POLICY)
        deployment.started("decide", env=NOWHERE)
        deployment.started("labels")
        records = decide_with_a_label(deployment, tenant)
    assert [record["verdict"] for record in records] == ["ALLOW", "DENY", "ALLOW"]
    assert all(record["memory"]["available"] for record in records)
    assert [record["memory"]["version"] for record in records] == [0, 1, 2]
    (counted,) = records[1]["memory"]["counted"]
    assert counted["memory_id"] == records[0]["decision_id"]


def test_a_worker_that_starts_anew_knows_every_label(kafka: str, tenant: str) -> None:
    with living(kafka, partitions=2) as deployment:
        deployment.use_policy(POLICY)
        worker = deployment.started("decide", "first", env=NOWHERE)
        deployment.started("labels")
        config = deployment.config(tenant)
        first = sdk.decide(refund(100), config)
        sdk.label(first["decision_id"], "failure", config=config)
        assert decide_until(config, "DENY")["memory"]["version"] == 1
        assert worker.stop() == 0
        deployment.started("decide", "second", env=NOWHERE)
        last = sdk.decide(refund(100), config)
        assert (last["verdict"], last["memory"]["version"]) == ("DENY", 1)


def test_without_it_the_same_outage_is_the_policy_s_business(kafka: str, tenant: str) -> None:
    with living(kafka, partitions=1) as deployment:
        deployment.use_policy(POLICY)
        deployment.started("decide", env={"LUMYN_QDRANT": NOWHERE["LUMYN_QDRANT"]})
        record = sdk.decide(refund(100), deployment.config(tenant))
    assert record["memory"]["available"] is False
    assert record["verdict"] != "ALLOW"
