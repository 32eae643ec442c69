"""kill -9 of the label worker between its steps: versions stay dense, and each label takes effect once."""

from __future__ import annotations

import signal
import time

import pytest
from servers.qdrant import own_server

from faults.deployment import Deployment, deployed, wait_until
from faults.faulty_worker import LABEL_POINTS, STORE_POINTS
from faults.invariants import check
from faults.label_load import LabelLoad
from faults.load import Load
from faults.memories import differences, memory_anew, memory_of


def _killed_at(deployment: Deployment, points: tuple[str, ...], seed: int) -> LabelLoad:
    """One label worker after the other dies at a point, while labels keep coming; the last one lives."""
    labels = LabelLoad(deployment, seed)
    records = deployment.records()
    for point in points:
        worker = deployment.start("labels", fault=f"{point}:{1 if point == 'opened' else 2}")
        deadline = time.monotonic() + 60
        while worker.alive and time.monotonic() < deadline:
            labels.batch(records, 5)
            time.sleep(0.1)
        assert worker.wait(1) == -signal.SIGKILL, f"{point}\n{worker.tail()}"
    deployment.started("labels")
    labels.batch(records, 20)
    deployment.wait_done(labels=True)
    return labels


def test_killed_between_its_steps(broker, seed):
    with deployed(broker.address) as deployment:
        load = Load(deployment, seed, tombstones=0, poison=0)
        decide = deployment.started("decide")
        load.batch(100)
        deployment.wait_done()
        labels = _killed_at(deployment, LABEL_POINTS, seed)
        load.batch(1)  # the decide worker takes the labels in when it is next asked
        deployment.wait_done()
        assert decide.stop() == 0
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        assert len(snapshot.of("labels")) > 20
        folder = deployment.folder / "home-decide" / f"kafka-{deployment.prefix}"
        assert differences(memory_of(deployment, folder), memory_anew(deployment)) == []
        load.close()
        labels.close()


@pytest.fixture
def qdrant():
    server = own_server()
    yield server
    server.close()


def test_killed_between_its_steps_with_a_qdrant_server(broker, qdrant, seed):
    """Also between the points, their documents and the watermark of a batch."""
    with deployed(broker.address, env={"LUMYN_QDRANT": qdrant.url}) as deployment:
        load = Load(deployment, seed, tombstones=0, poison=0)
        deployment.start("index")
        deployment.started("decide")
        load.batch(100)
        deployment.wait_done()
        labels = _killed_at(deployment, (*LABEL_POINTS, *STORE_POINTS), seed)
        snapshot = check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        anew = memory_anew(deployment)
        assert anew[0] == len(snapshot.of("labels")) > 20
        folder = deployment.folder / "looking"
        wait_until(lambda: memory_of(deployment, folder, qdrant.url)[0] == anew[0], 60, deployment.tails, every_s=0.5)
        assert differences(memory_of(deployment, folder, qdrant.url), anew) == []
        load.close()
        labels.close()
