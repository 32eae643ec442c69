"""Trouble with a real Qdrant server: never a lost request, never a wider gate, and all of it decided again afterwards.

Needs a server that a test may kill: LUMYN_TEST_QDRANT names a binary.
"""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import Worker, wait_until
from inside import Inside
from live_deployment import TIMEOUT_S, Live, environment, living
from servers.kafka import free_port
from servers.qdrant import QdrantServer, own_server

from lumyn import LumynConfig, sdk, wiring

POLICY = """
policy: {name}
version: 1.0.0
rules:
  - id: R_FRAUD
    stage: HARD_BLOCKS
    if: {{chargeback_risk: {{gte: 0.8}}}}
    then: {{verdict: DENY, reason_codes: [FRAUD]}}
  - id: R_SMALL
    if: {{amount_usd: {{lte: 250}}}}
    then: {{verdict: ALLOW, reason_codes: [SMALL]}}
memory: {{on_unavailable: {name}}}
"""
WAYS = {
    "abstain": ("ABSTAIN", ["STORAGE_UNAVAILABLE"]),
    "escalate": ("ESCALATE", ["STORAGE_UNAVAILABLE"]),
    "policy_only": ("ALLOW", ["SMALL"]),
}
"""What a policy makes of a request that its rules would allow, by `memory.on_unavailable`."""


@pytest.fixture(scope="module")
def qdrant() -> Iterator[QdrantServer]:
    server = own_server()
    yield server
    server.resume()
    server.close()


@pytest.fixture(scope="module")
def own(kafka: str, qdrant: QdrantServer) -> Iterator[Live]:
    """A decide, a label and an index worker over the server; each test leaves them running and well."""
    surroundings = {"LUMYN_QDRANT": qdrant.url, "LUMYN_QDRANT_DEADLINE": "1", "LUMYN_QDRANT_WRITE_DEADLINE": "5"}
    runtime = {"breaker_failures": 2, "breaker_rest_s": 0.5, "memory_max_staleness_s": 40}
    with living(kafka, partitions=1, env=surroundings, runtime=runtime) as deployment:
        for name in WAYS:
            deployment.use_policy(POLICY.format(name=name))
        deployment.metrics_port = free_port()  # type: ignore[attr-defined]
        metrics = ("--metrics-port", str(deployment.metrics_port))  # type: ignore[attr-defined]
        workers = [
            deployment.start("decide", arguments=metrics),
            deployment.start("labels"),
            deployment.start("index"),
        ]
        for worker, event in zip(workers[:2], ("worker_started", "labels_opened"), strict=True):
            worker.wait_for(event)
        yield deployment


@pytest.fixture
def config(own: Live, tenant: str, qdrant: QdrantServer) -> Iterator[LumynConfig]:
    """What the tenant's callers pass to the SDK. Memory answers before and after each test."""
    config = own.config(tenant, qdrant=qdrant.url)
    until_memory_answers(config)
    yield config
    qdrant.resume()
    until_memory_answers(config)


@pytest.fixture
def command(own: Live, config: LumynConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    monkeypatch.chdir(tmp_path)
    assert config.tenant and config.qdrant
    with environment(
        LUMYN_KAFKA=own.address, LUMYN_PREFIX=own.prefix, LUMYN_TENANT=config.tenant, LUMYN_QDRANT=config.qdrant
    ):
        yield Inside(tmp_path)
        wiring.close_homes()


def decide(config: LumynConfig, policy: str = "abstain", amount: float = 100, risk: float = 0.1, **more: Any) -> Any:
    return sdk.decide(refund(amount, risk, policy=policy, **more), config)


def until_memory_answers(config: LumynConfig) -> None:
    """Until decisions are made with memory again; those that try are of another action type and remember nothing."""
    probe = {**refund(1, policy="abstain"), "action": {"type": "probe"}}
    wait_until(lambda: sdk.decide(probe, config)["memory"]["available"], TIMEOUT_S, "memory never came back", every_s=0.1)


def harm(config: LumynConfig) -> dict[str, Any]:
    """A decision that went wrong, so that the next like it is blocked by memory; returns that next one."""
    first = decide(config)
    sdk.label(first["decision_id"], "failure", summary="fraud after all", config=config)
    blocked: dict[str, Any] = {}

    def is_blocked() -> bool:
        blocked.update(decide(config))
        return blocked["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"]

    wait_until(is_blocked, TIMEOUT_S, "the label never reached the memory", every_s=0.1)
    return blocked


def breaker(own: Live) -> str:
    """The state that the decide worker's breaker is in, as its metrics tell."""
    url = f"http://127.0.0.1:{own.metrics_port}/metrics"  # type: ignore[attr-defined]
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    (state,) = [line.split('"')[1] for line in lines if line.startswith("lumyn_memory_breaker{") and line.endswith(" 1.0")]
    return str(state)


def worker_of(own: Live, kind: str) -> Worker:
    return [worker for worker in own.workers if worker.name == kind][-1]


def redrive(command: Inside) -> dict[str, Any]:
    """`lumyn redrive --apply` of what an outage left undecided, once the index has seen all of it."""
    told: dict[str, Any] = {}

    def done() -> bool:
        told.update(command.json("redrive", "--query", "reason=STORAGE_UNAVAILABLE", "--apply", "--json", code=None))
        return bool(told["decided"])

    wait_until(done, TIMEOUT_S, lambda: str(told), every_s=0.2)
    return told


Break = Callable[[QdrantServer], None]


@pytest.mark.parametrize(
    ("fail", "mend"),
    [(QdrantServer.kill, QdrantServer.start), (QdrantServer.pause, QdrantServer.resume)],
    ids=["stopped", "slow"],
)
def test_an_outage_is_what_each_policy_says_and_is_redriven_afterwards(
    own: Live, config: LumynConfig, command: Inside, qdrant: QdrantServer, fail: Break, mend: Break
) -> None:
    before = harm(config)
    assert breaker(own) == "closed"
    fail(qdrant)
    left: list[dict[str, Any]] = []
    try:
        for policy, (verdict, codes) in WAYS.items():
            record = decide(config, policy, request_id=f"out-{policy}")
            assert (record["verdict"], record["reason_codes"]) == (verdict, codes)
            assert (record["memory"]["available"], record["memory"]["counted"]) == (False, [])
            left += [record] if "STORAGE_UNAVAILABLE" in codes else []
            assert decide(config, policy, risk=0.9)["reason_codes"] == ["FRAUD"], "a gate is never widened"
        wait_until(lambda: decide(config, "policy_only") and breaker(own) == "open", TIMEOUT_S, "the breaker never opened")
    finally:
        mend(qdrant)
    until_memory_answers(config)
    assert breaker(own) == "closed"
    after = decide(config)
    assert (after["verdict"], after["memory"]["version"]) == ("DENY", before["memory"]["version"])
    assert after["risk_signals"] == before["risk_signals"], "the same memory answers the same"

    told = redrive(command)
    mine = {d["decision_id"]: d["now"] for d in told["decisions"]}
    assert {record["decision_id"] for record in left} <= set(mine)
    for record in left:
        now = sdk.show(mine[record["decision_id"]]["decision_id"], config)["record"]
        assert (now["verdict"], now["links"]) == ("DENY", {"redrive_of": record["decision_id"]})
        assert now["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"]
        assert decide(config, record["policy"]["name"], request_id=record["request_id"]) == record, "never changed"
    changes = {(change["from"], change["to"]) for change in told["changes"]}
    assert {("ABSTAIN", "DENY"), ("ESCALATE", "DENY")} <= changes


def test_a_redrive_while_the_outage_goes_on_says_so(
    own: Live, config: LumynConfig, command: Inside, qdrant: QdrantServer
) -> None:
    """The index is on the same server: the command ends with exit 4, and nothing is sent."""
    qdrant.kill()
    try:
        record = decide(config)
        assert record["reason_codes"] == ["STORAGE_UNAVAILABLE"]
        ended = len(own.records_of(config.tenant or ""))
        done = command.run("redrive", "--query", "reason=STORAGE_UNAVAILABLE", "--apply", code=4)
        assert done.stdout == "" and "qdrant can't be reached" in done.stderr
        assert len(own.records_of(config.tenant or "")) == ended
    finally:
        qdrant.start()
    until_memory_answers(config)
    assert record["decision_id"] in {d["decision_id"] for d in redrive(command)["decisions"]}


def test_an_emptied_server_is_no_memory_until_the_label_worker_has_filled_it(
    own: Live, config: LumynConfig, command: Inside, qdrant: QdrantServer
) -> None:
    before = harm(config)
    worker_of(own, "labels").stop()
    qdrant.stop()
    shutil.rmtree(qdrant.storage)
    qdrant.start()
    records = [decide(config) for _ in range(5)]
    assert {tuple(r["reason_codes"]) for r in records} == {("STORAGE_UNAVAILABLE",)}, "never `no neighbours`"
    own.started("labels")
    until_memory_answers(config)
    after = decide(config)
    assert (after["verdict"], after["memory"]["version"]) == ("DENY", before["memory"]["version"])
    assert after["risk_signals"] == before["risk_signals"], "filled again from the labels, it answers the same"
    told = redrive(command)
    assert {r["decision_id"] for r in records} <= {d["decision_id"] for d in told["decisions"]}
    mine = {d["decision_id"]: d["now"]["verdict"] for d in told["decisions"]}
    assert {mine[record["decision_id"]] for record in records} == {"DENY"}


def refused_as_older(own: Live, record: dict[str, Any]) -> bool:
    """Whether the worker has said why; until then, and then too, it abstains."""
    assert record["reason_codes"] == ["STORAGE_UNAVAILABLE"], "never what the older copy says"
    troubles = worker_of(own, "decide").events("memory_unavailable")
    return any("an older copy was put back" in trouble["error"]["message"] for trouble in troubles)


def test_an_older_copy_of_the_store_is_no_memory_until_it_has_caught_up(
    own: Live, config: LumynConfig, qdrant: QdrantServer, tmp_path: Path
) -> None:
    """The copy is so fresh that its watermark is not too old: what gives it away is its version."""
    assert decide(config)["verdict"] == "ALLOW"
    qdrant.stop()
    shutil.copytree(qdrant.storage, tmp_path / "older")
    qdrant.start()
    until_memory_answers(config)
    before = harm(config)
    labels = worker_of(own, "labels")
    labels.pause()
    try:
        qdrant.kill()
        shutil.rmtree(qdrant.storage)
        shutil.copytree(tmp_path / "older", qdrant.storage)
        qdrant.start()
        wait_until(lambda: refused_as_older(own, decide(config)), TIMEOUT_S, own.tails)
    finally:
        labels.resume()
    until_memory_answers(config)
    after = decide(config)
    assert (after["verdict"], after["memory"]["version"]) == ("DENY", before["memory"]["version"])
    assert after["risk_signals"] == before["risk_signals"]
