"""Transactions that somebody leaves open: what is in them is not seen, what comes after them waits, then goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from faults.deployment import Deployment, deployed, wait_until
from faults.invariants import check
from faults.load import Load
from faults.reading import committed, ends
from schemas.request import parse_request
from streams.decide_agent import request_append


@contextmanager
def _foreign(deployment: Deployment, topic: str, bodies: list[bytes], limit_s: int = 60) -> Iterator[Producer]:
    """Somebody's transaction in partition 0 of a topic, left open; the broker ends it at its time limit."""
    options = {"bootstrap.servers": deployment.address, "log_level": 0, "transactional.id": f"{deployment.prefix}-x"}
    producer = Producer({**options, "transaction.timeout.ms": limit_s * 1000})
    producer.init_transactions(30)
    producer.begin_transaction()
    for body in bodies:
        producer.produce(deployment.name(topic), value=body, partition=0)
    assert producer.flush(30) == 0
    yield producer


def _hidden(deployment: Deployment, topic: str) -> bool:
    place = (deployment.name(topic), 0)
    stable, high = (ends(deployment.address, [place], read_committed=only)[place] for only in (True, False))
    return stable < high


def test_requests_in_a_transaction_are_decided_when_it_is_committed_and_never_when_it_is_not(broker, seed):
    with deployed(broker.address) as deployment:
        deployment.started("decide")
        load = Load(deployment, seed)
        bodies = [json.dumps(load.body()).encode() for _ in range(3)]
        place = (deployment.name("requests"), 0)
        for end in ("abort_transaction", "commit_transaction"):
            load.batch(60)
            deployment.wait_done()
            with _foreign(deployment, "requests", bodies) as producer:
                stood = committed(broker.address, deployment.name("decide"), [place])[place]
                before = load.decided()
                load.batch(60)
                load.wait_for_decided(1, since=before)  # the other partition is not held up
                assert _hidden(deployment, "requests")
                assert committed(broker.address, deployment.name("decide"), [place])[place] == stood
                getattr(producer, end)(30)
            deployment.wait_done()
        with _foreign(deployment, "requests", bodies, limit_s=3):
            load.batch(60)
            wait_until(lambda: not _hidden(deployment, "requests"), 60)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        assert sum(m.value in bodies for m in snapshot.of("requests")) == 3
        load.close()


def test_a_retry_is_recognised_though_an_open_transaction_hides_the_first_ones_receipt(broker, seed):
    """A new owner must not take the visible receipts for all of them: it would decide the retries again."""
    with deployed(broker.address, partitions=1) as deployment:
        load = Load(deployment, seed, poison=0, tombstones=0)
        requests = [request_append(parse_request(load.body(f"x{seed}-{n}")), 0) for n in range(20)]
        first = deployment.started("decide", "first")
        with _foreign(deployment, "receipts", [b"{}"]) as producer:
            deployment.log.send_many(requests)
            deployment.wait_done()
            assert _hidden(deployment, "receipts")
            assert first.stop() == 0
            second = deployment.start("decide", "second")
            deployment.log.send_many(requests)
            second.wait_for("partition_not_opened")
            producer.abort_transaction(30)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions)
        assert len(snapshot.of("records")) == 20
        load.close()
