"""A worker that is paused for longer than its session lasts, and then goes on as if nothing had been: a zombie."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.deployment import Worker, deployed, wait_until
from faults.invariants import check
from faults.load import Load


def _paused(worker: Worker) -> bool:
    stat = Path(f"/proc/{worker.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("point", ["half-sent:200", "offsets-sent:5"])
def test_a_zombie_is_fenced_and_comes_back(broker, seed, point):
    """Paused inside a transaction, taken over, resumed: its commit fails, the new owner is left alone."""
    with deployed(broker.address) as deployment:
        zombie = deployment.start("decide", "zombie", fault=f"{point}:STOP")
        load = Load(deployment, seed)
        with load:
            wait_until(lambda: _paused(zombie), 60, zombie.tail)
            owner = deployment.started("decide", "owner")
            wait_until(lambda: len(owner.events("partition_opened")) == 2, 60, deployment.tails)
            load.wait_for_decided(100)
            zombie.resume()
            zombie.wait_for("partition_opened", times=len(zombie.events("partition_opened")) + 1)
            load.wait_for_decided(200)
        deployment.wait_done()
        assert zombie.events("fenced"), zombie.tail()
        assert len(zombie.events("worker_started")) == 1 and zombie.alive
        assert owner.events("fenced") == [], "the zombie took a partition that was not its own any more"
        assert (zombie.stop(), owner.stop()) == (0, 0)
        check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        load.close()


def test_an_owner_that_a_passing_stranger_fenced_takes_its_partition_back(broker, seed):
    """What it had read is decided, though nothing else comes that could remind it."""
    with deployed(broker.address) as deployment:
        owner = deployment.started("decide")
        load = Load(deployment, seed)
        load.batch(40)
        deployment.wait_done()
        for partition in range(deployment.partitions):
            deployment.log.open_writer("decide", "requests", partition, settle=False).close()
        load.batch(40)
        deployment.wait_done()
        assert owner.alive and owner.events("fenced"), owner.tail()
        check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        load.close()
