"""A request_id is decided once, whichever worker has its partition, and however late the answer comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import wait_until
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, Live, environment, living

from lumyn import LumynError, sdk, wiring
from schemas.errors import DecisionPending, RequestConflict

PARTITIONS = 2
IDS = [f"r-{number}" for number in range(40)]
"""Enough for every partition."""


@pytest.fixture(scope="module")
def own(kafka: str) -> Iterator[Live]:
    """A deployment whose workers are stopped and started; each test begins and ends without any."""
    with living(kafka, partitions=PARTITIONS) as deployment:
        deployment.use_policy(POLICY)
        yield deployment


@pytest.fixture(autouse=True)
def no_worker_stays(own: Live) -> Iterator[None]:
    yield
    for worker in own.workers:
        if worker.alive:
            worker.stop()


def decide_all(own: Live, tenant: str, amount: float = 100) -> list[Any]:
    return sdk.decide_many([refund(amount, request_id=name) for name in IDS], own.config(tenant))


def all_as_before(own: Live, tenant: str, first: list[Any]) -> None:
    """Each retry is the first record, each other body a conflict, and nothing is decided a second time."""
    assert decide_all(own, tenant) == first
    assert all(isinstance(one, RequestConflict) for one in decide_all(own, tenant, amount=101))
    assert len(own.records_of(tenant)) == len(IDS)


def test_a_restarted_worker_and_another_with_an_empty_home_know_what_was_decided(own: Live, tenant: str) -> None:
    worker = own.started("decide", "one")
    first = decide_all(own, tenant)
    assert not [one for one in first if isinstance(one, LumynError)]
    assert worker.stop() == 0
    worker = own.started("decide", "one")
    all_as_before(own, tenant, first)
    assert worker.stop() == 0
    assert not (own.folder / "home-two").exists()
    own.started("decide", "two")
    all_as_before(own, tenant, first)


def test_a_worker_that_takes_a_partition_over_knows_it_too(own: Live, tenant: str) -> None:
    """A second worker joins, with an empty home: the group spreads the partitions over both."""
    own.started("decide", "four")
    first = decide_all(own, tenant)
    joined = own.started("decide", "five")
    joined.wait_for("partition_opened")
    taken = {event["partition"] for event in joined.events("partition_opened")}
    assert {record["log"]["partition"] for record in first} >= taken, "there is something to remember in them"
    all_as_before(own, tenant, first)


def test_a_deadline_that_passes_leaves_the_request_in_the_log_and_a_retry_finds_its_decision(
    own: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = refund(100, request_id="late")
    with pytest.raises(DecisionPending, match=r"no decision within 0\.5 s; the request is in the log") as caught:
        sdk.decide(asked, own.config(tenant, timeout_s=0.5))
    assert caught.value.exit_code == 4 and "same request_id" in str(caught.value.help)
    monkeypatch.chdir(tmp_path)
    with environment(LUMYN_KAFKA=own.address, LUMYN_PREFIX=own.prefix, LUMYN_TENANT=tenant):
        command, body = Inside(tmp_path), json.dumps(asked)
        assert "no decision within 0.5 s" in command.refused("decide", "-", "--timeout", 0.5, stdin=body, code=4)
        told = command.run("decide", "-", "--timeout", 0.5, "--json", stdin=body, code=4)
        assert json.loads(told.stderr)["error"]["code"] == "pending"
        assert own.records_of(tenant) == []
        own.started("decide", "six")
        record = command.json("decide", "-", stdin=body)
        wiring.close_homes()
    assert "{topic}/{partition}/{offset}".format(**record["log"]) == caught.value.where, "the first of them was decided"
    assert own.records_of(tenant) == [record]
    assert sorted(r["outcome"] for r in own.receipts_of(tenant)) == ["decided", *["duplicate"] * 3]


def test_in_a_batch_what_is_late_is_an_error_in_its_place(own: Live, tenant: str) -> None:
    results = sdk.decide_many([refund(1), {"no": 1}], own.config(tenant, timeout_s=0.5))
    assert [type(one).__name__ for one in results] == ["DecisionPending", "BadRequest"]


def test_retries_that_waited_for_a_worker_are_decided_once(own: Live, tenant: str) -> None:
    """The same ids, many times each, all in the log before any worker is there; one of them with another body."""
    for _ in range(3):
        own.submit(*(refund(100, request_id=name) for name in IDS[:10]), tenant=tenant)
    own.submit(refund(101, request_id=IDS[0]), tenant=tenant)
    own.start("decide", "eight")
    own.start("decide", "nine")
    wait_until(lambda: len(own.receipts_of(tenant)) == 31, TIMEOUT_S, own.tails, every_s=0.2)
    outcomes = [receipt["outcome"] for receipt in own.receipts_of(tenant)]
    assert {name: outcomes.count(name) for name in set(outcomes)} == {"decided": 10, "duplicate": 20, "conflict": 1}
    assert sorted(r["request_id"] for r in own.records_of(tenant)) == sorted(IDS[:10])
