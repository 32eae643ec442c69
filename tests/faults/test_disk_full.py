"""The worker's disk is full: nothing is decided without the idempotency window, and all goes on when there is room."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from faults.deployment import deployed
from faults.invariants import check
from faults.load import Load


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own, mounted on a folder."""
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("a small disk can't be mounted here: run as root with CAP_SYS_ADMIN")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_halts_deciding_and_loses_nothing(broker, seed):
    with deployed(broker.address) as deployment, _small_disk(home := deployment.folder / "home-decide", "700k"):
        load = Load(deployment, seed, poison=0.02)
        worker = deployment.started("decide")
        with load:
            worker.wait_for("commit_failed", timeout_s=120)
        assert "the idempotency window can't be written" in worker.text(), worker.tail()
        worker.kill()  # started again on the full disk, it must not go on with less than the whole window
        worker = deployment.start("decide")
        load.batch(100)
        worker.wait_for("partition_not_opened")
        subprocess.run(["mount", "-o", "remount,size=64m", home], check=True)
        load.batch(100)
        deployment.wait_done()
        assert worker.alive, worker.tail()
        check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        load.close()


def test_a_worker_that_outlives_a_full_disk_knows_every_receipt(broker, seed):
    """The same process goes on when there is room: what it could not write down it reads again."""
    with deployed(broker.address) as deployment, _small_disk(home := deployment.folder / "home-decide", "700k"):
        load = Load(deployment, seed, poison=0.02)
        worker = deployment.started("decide")
        with load:
            worker.wait_for("commit_failed", timeout_s=120)
        subprocess.run(["mount", "-o", "remount,size=64m", home], check=True)
        load.batch(300)
        deployment.wait_done()
        assert worker.alive, worker.tail()
        check(broker.address, deployment.prefix, deployment.partitions, load.acknowledged)
        load.close()
