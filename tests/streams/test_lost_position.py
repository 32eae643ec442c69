"""A group's position may be lost (expired, deleted, reset): what was decided is not decided again."""

from __future__ import annotations

import json

import pytest
from confluent_kafka.admin import AdminClient
from conftest_e2e import refund
from faults.deployment import Deployment, deployed, wait_until

from schemas.canonical import encode
from streams.decided import decided_up_to
from streams.log import Append
from streams.topics import RECEIPTS, RECORDS, REQUESTS

GROUP = {"session_timeout_s": 6.0, "heartbeat_s": 1.5}
"""What a broker with Kafka's own defaults takes."""


def ask(deployment: Deployment, count: int) -> None:
    requests = [Append(REQUESTS, encode(refund(user=f"u{n}")), None, n % 2) for n in range(count)]
    deployment.log.send_many(requests)


def contents(deployment: Deployment, topic: str) -> list[dict]:
    return [json.loads(m.value) for p in range(2) for m in deployment.log.read(topic, p, 0)]


def delete_group(deployment: Deployment) -> None:
    group = deployment.log.group("decide")
    admin = AdminClient({"bootstrap.servers": deployment.address})
    wait_until(lambda: deployment.log.client.group(group).members == 0, 30, "an empty group")
    for done in admin.delete_consumer_groups([group]).values():
        done.result(timeout=20)


def expire(deployment: Deployment, topic: str) -> None:
    """What retention does to all that a topic holds."""
    from confluent_kafka import TopicPartition

    admin = AdminClient({"bootstrap.servers": deployment.address})
    ends = [TopicPartition(deployment.name(topic), p, -1) for p in range(2)]
    for done in admin.delete_records(ends).values():
        done.result(timeout=20)
    assert contents(deployment, topic) == []


@pytest.mark.parametrize("receipts", ["held", "expired"])
def test_a_lost_position_is_found_again_in_what_was_written(kafka: str, receipts: str) -> None:
    with deployed(kafka, partitions=2, runtime=GROUP) as deployment:
        assert decided_up_to(deployment.log, 0) == 0
        ask(deployment, 6)
        deployment.started("decide")
        deployment.wait_done()
        deployment.workers[0].stop()
        records = contents(deployment, RECORDS)
        assert len(records) == 6
        delete_group(deployment)
        if receipts == "expired":
            expire(deployment, RECEIPTS)
        assert [decided_up_to(deployment.log, p) for p in range(2)] == [3, 3]

        ask(deployment, 2)
        worker = deployment.started("decide")
        wait_until(lambda: len(contents(deployment, RECORDS)) >= 8, 60, worker.tail)
        worker.stop()
        after = contents(deployment, RECORDS)
        assert len(after) == 8
        assert all(record in after for record in records)
        assert len({record["decision_id"] for record in after}) == 8
        assert len(worker.events("position_was_lost")) == 2
        assert not deployment.waiting()
