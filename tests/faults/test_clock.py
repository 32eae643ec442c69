"""A worker whose clock jumps by days, forward and back, while it decides: records know the log's time only."""

from __future__ import annotations

import time

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load
from faults.same import normalised

_JUMPS = "-864000,0,864000,31536000,-3.5"


def test_a_jumping_clock_changes_nothing_in_the_records(broker, seed):
    with deployed(broker.address) as one, deployed(broker.address) as other:
        workers = [one.start("decide"), other.start("decide", env={"LUMYN_TEST_CLOCK": _JUMPS})]
        for worker in workers:
            worker.wait_for("worker_started")
        loads = [Load(deployment, seed) for deployment in (one, other)]
        for _ in range(20):
            for load in loads:
                load.batch(20)
            time.sleep(0.3)  # so that it decides under each of the clocks
        histories = []
        for deployment, worker, load in zip((one, other), workers, loads, strict=True):
            deployment.wait_done()
            assert worker.alive and worker.stop() == 0, worker.tail()
            snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
            histories.append([normalised(m.value, deployment.prefix) for m in snapshot.of("records")])
            load.close()
    steady, jumping = histories
    assert len(steady) > 100
    assert steady == jumping
