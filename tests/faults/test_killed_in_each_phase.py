"""kill -9 of a decide worker at every point of a batch: the next one goes on, and nothing is lost or done twice."""

from __future__ import annotations

import random
import signal

from faults.deployment import deployed
from faults.faulty_worker import DECIDE_POINTS
from faults.invariants import check
from faults.load import Load

_BOMBS = {"opened": "2", "half-sent": "37", "begin": "4", "window-half": "6"}


def test_killed_at_every_point_of_a_batch(broker, seed):
    """One after the other on one log. Sometimes the next one finds the dead one's window, sometimes an older one."""
    pick = random.Random(seed)
    with deployed(broker.address, runtime={"session_timeout_s": 1.5, "heartbeat_s": 0.4}) as deployment:
        load = Load(deployment, seed)
        load.batch(200)
        for point in DECIDE_POINTS:
            worker = deployment.start(
                "decide", pick.choice(["decide-0", "decide-1"]), fault=f"{point}:{_BOMBS.get(point, '3')}"
            )
            with load:
                assert worker.wait(60) == -signal.SIGKILL, f"{point}\n{worker.tail()}"
        deployment.started("decide", "decide-0")
        load.batch(50)
        deployment.wait_done()
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        outcomes = {receipt.value.split(b'"outcome":"')[1].split(b'"')[0] for receipt in snapshot.of("receipts")}
        assert outcomes == {b"decided", b"duplicate", b"conflict", b"rejected"}
        load.close()
