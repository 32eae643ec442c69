"""Messages that are no requests: each is rejected once with its bytes kept, and no worker falls over them."""

from __future__ import annotations

from collections import Counter

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load


def test_poison_and_tombstones_are_rejected_once_each(broker, seed):
    with deployed(broker.address) as deployment:
        load = Load(deployment, seed, poison=0.5, tombstones=0.2)
        load.batch(300)  # waiting when the worker starts
        worker = deployment.started("decide")
        for _ in range(10):
            load.batch(20)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        outcomes = Counter(m.value.split(b'"outcome":"')[1].split(b'"')[0] for m in snapshot.of("receipts"))
        assert outcomes[b"rejected"] > 200 and outcomes[b"decided"] > 50, outcomes
        for partition, messages in snapshot.topics["requests"].items():  # what a worker reads again, it reads whole
            again = deployment.log.read("requests", partition, 0, 10**6)
            assert [(m.offset, m.value) for m in again] == [(m.offset, m.value or b"") for m in messages]
        assert worker.alive and not worker.events("commit_failed", "fenced"), worker.tail()
        load.close()
