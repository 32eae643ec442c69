"""Redrive over a real broker where each worker keeps its memory itself: after an outage, and under a newer policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import wait_until
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, Live, environment, living

from lumyn import sdk, wiring


@pytest.fixture(scope="module")
def own(kafka: str) -> Iterator[Live]:
    """A decide worker whose memory's file is broken from the start, and a label worker."""
    with living(kafka, partitions=2) as deployment:
        deployment.use_policy(POLICY)
        memory = memory_file(deployment)
        memory.parent.mkdir(parents=True)
        memory.write_bytes(b"the disk under the memory has died" * 100)
        for worker, event in ((deployment.start("decide"), "worker_started"), (deployment.start("labels"), "labels_opened")):
            worker.wait_for(event)
        yield deployment


def memory_file(own: Live) -> Path:
    return own.folder / "home-decide" / f"kafka-{own.prefix}" / "memory.db"


def mend(own: Live, tenant: str) -> None:
    """The broken file is taken away: the worker makes the memory again from the labels."""
    for path in memory_file(own).parent.glob("memory.db*"):
        path.unlink()
    config = own.config(tenant)
    wait_until(lambda: sdk.decide(refund(1), config)["memory"]["available"], TIMEOUT_S, own.tails)


@pytest.fixture
def command(own: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    monkeypatch.chdir(tmp_path)
    with environment(LUMYN_KAFKA=own.address, LUMYN_PREFIX=own.prefix, LUMYN_TENANT=tenant):
        yield Inside(tmp_path)
        wiring.close_homes()


def redrive(command: Inside, query: str, code: int = 0) -> dict[str, Any]:
    told: dict[str, Any] = command.json("redrive", "--query", query, "--apply", "--json", code=code)
    return told


def test_what_an_outage_left_undecided_is_decided_once_it_is_over(own: Live, command: Inside, tenant: str) -> None:
    config = own.config(tenant)
    records = [sdk.decide(refund(amount, request_id=f"r-{amount}"), config) for amount in (100, 120, 300)]
    assert {(r["verdict"], r["reason_codes"][-1]) for r in records} == {("ABSTAIN", "STORAGE_UNAVAILABLE")}
    sdk.label(sdk.decide(refund(100, 0.9), config)["decision_id"], "success", summary="rightly denied", config=config)

    during = redrive(command, "reason=STORAGE_UNAVAILABLE", code=4)
    assert (during["decided"], during["left"]) == (1, 2), "one was tried, the rest was not"
    mend(own, tenant)

    told = redrive(command, "reason=STORAGE_UNAVAILABLE")
    assert told["decided"] > 0 and told["failed"] == told["left"] == 0
    redriven = {r["links"]["redrive_of"]: r for r in own.records_of(tenant) if r["links"]}
    for record in records:
        last = record
        while last["decision_id"] in redriven:  # the one that was tried during the outage was tried again
            last = redriven[last["decision_id"]]
            assert last["request_id"] == f"redrive/{last['links']['redrive_of']}"
        assert last["memory"]["available"] and last["inputs_digest"] == record["inputs_digest"]
        assert "STORAGE_UNAVAILABLE" not in last["reason_codes"]
        assert sdk.show(record["decision_id"], config)["record"] == record, "the first stays as it is"
    before = len(own.records_of(tenant))
    assert redrive(command, "reason=STORAGE_UNAVAILABLE")["decisions"] == []
    assert len(own.records_of(tenant)) == before
    assert command.json("verify", "--json")["verified"] is True


def test_a_newer_policy_decides_again_what_it_is_asked_to(own: Live, command: Inside, tenant: str) -> None:
    mend(own, tenant)
    old = sdk.decide(refund(300), own.config(tenant))
    assert old["verdict"] == "ESCALATE"
    own.use_policy(POLICY.replace("version: 4.1.0", "version: 4.2.0").replace("gt: 250", "gt: 400").replace("lte: 250", "lte: 400"))
    (done,) = redrive(command, "verdict=ESCALATE")["decisions"]
    assert (done["decision_id"], done["verdict"], done["now"]["verdict"]) == (old["decision_id"], "ESCALATE", "ALLOW")
    assert redrive(command, "verdict=ESCALATE")["decisions"] == []
