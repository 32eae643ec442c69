"""kill -9 of a decide worker at every point of a batch: the next one goes on, and nothing is lost or done twice."""

from __future__ import annotations

import signal

import pytest

from faults.deployment import deployed
from faults.faulty_worker import DECIDE_POINTS
from faults.invariants import check
from faults.load import Load

_BOMBS = {"opened": "2", "half-sent": "37", "begin": "4", "window-half": "6"}


@pytest.mark.parametrize("home", ["own", "shared"])
def test_killed_at_every_point_of_a_batch(broker, seed, home):
    """One after the other on one log; with a home of its own the dead worker's window is not the next one's."""
    with deployed(broker.address) as deployment:
        load = Load(deployment, seed)
        load.batch(200)
        for number, point in enumerate(DECIDE_POINTS):
            name = "decide" if home == "shared" else f"decide-{number % 3}"
            worker = deployment.start("decide", name, fault=f"{point}:{_BOMBS.get(point, '3')}")
            with load:
                assert worker.wait(60) == -signal.SIGKILL, f"{point}\n{worker.tail()}"
        deployment.started("decide", "decide" if home == "shared" else "decide-0")
        load.batch(50)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        outcomes = {receipt.value.split(b'"outcome":"')[1].split(b'"')[0] for receipt in snapshot.of("receipts")}
        assert outcomes == {b"decided", b"duplicate", b"conflict", b"rejected"}
        load.close()
