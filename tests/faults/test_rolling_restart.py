"""A rolling restart: every worker is told to stop and started again, one after the other, under load."""

from __future__ import annotations

import time

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load
from faults.pauses import longest_pause


def test_a_rolling_restart_of_three_workers(broker, seed):
    with deployed(broker.address, partitions=3) as deployment:
        load = Load(deployment, seed)
        running = [deployment.start("decide", f"decide-{number}") for number in range(3)]
        for worker in running:
            worker.wait_for("worker_started")
        stops = []
        with load:
            load.wait_for_decided(200)
            for number, worker in enumerate(running):
                begun = time.monotonic()
                assert worker.stop() == 0, worker.tail()
                stops.append(round(time.monotonic() - begun, 1))
                assert worker.events("worker_stopped") and not worker.events("stopped_late"), worker.tail()
                running[number] = deployment.started("decide", worker.name)
                load.wait_for_decided(100)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        print(f"stopped within {stops} s, longest pause {longest_pause(snapshot)}")
        assert not any(worker.events("fenced", "commit_failed") for worker in deployment.workers)
        load.close()


def test_a_worker_that_is_told_to_stop_again_and_again_ends_well(broker):
    """Whoever stops a service does not count signals, and they come while it lets go of everything, too."""
    with deployed(broker.address) as deployment:
        worker = deployment.started("decide")
        while worker.process.poll() is None:
            worker.process.terminate()
            time.sleep(0.005)
        assert worker.process.returncode == 0, worker.tail()
