"""A partition count that changes under a running worker: it stops and says why, before it decides in the wrong place."""

from __future__ import annotations

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load


def test_workers_stop_with_a_clear_message_when_partitions_are_added(broker, seed):
    with deployed(broker.address) as deployment:
        workers = [deployment.start("decide", f"decide-{number}") for number in range(2)]
        for worker in workers:
            worker.wait_for("worker_started")
        load = Load(deployment, seed)
        load.batch(100)
        deployment.wait_done()
        deployment.add_partitions("requests", 3)
        assert [worker.wait(60) for worker in workers] == [2, 2], deployment.tails()
        for worker in workers:
            assert f"topic `{deployment.name('requests')}` has 3 partitions now, 2 when this worker started" in worker.text()
            assert "Traceback" not in worker.text(), worker.tail()
        check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        load.close()
