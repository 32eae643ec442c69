"""Workers killed one after the other under load, at whatever moment it happens to be."""

from __future__ import annotations

import random

import pytest

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load
from faults.pauses import longest_pause


@pytest.mark.parametrize(("workers", "partitions", "kills"), [(2, 2, 4), (4, 4, 3)])
def test_workers_killed_in_turn(broker, seed, workers, partitions, kills):
    pick = random.Random(seed)
    with deployed(broker.address, partitions=partitions) as deployment:
        load = Load(deployment, seed)
        with load:
            running = [deployment.start("decide", f"decide-{number}") for number in range(workers)]
            for worker in running:
                worker.wait_for("worker_started")
            for turn in range(kills):
                load.wait_for_decided(pick.randrange(50, 400))
                at = turn % workers
                running[at].kill()
                running[at] = deployment.start("decide", running[at].name)
            load.wait_for_decided(200)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, partitions, load.acknowledged)
        print(f"{len(snapshot.of('requests'))} requests, {kills} kills, longest pause {longest_pause(snapshot)}")
        assert all(worker.alive for worker in running)
        load.close()
