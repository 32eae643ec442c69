"""One deployment for most of the tests here: two decide workers, one for labels, each test a tenant of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from inside import Inside
from live_deployment import POLICY, Live, environment, living

from lumyn import LumynConfig, wiring


@pytest.fixture(scope="session")
def live(kafka: str) -> Iterator[Live]:
    """Workers that are never stopped, killed or paused; the refunds policy is active, with memory on."""
    with living(kafka, partitions=3) as deployment:
        deployment.use_policy(POLICY)
        workers = [deployment.start("decide", "one"), deployment.start("decide", "two"), deployment.start("labels")]
        for worker, event in zip(workers, ("worker_started", "worker_started", "labels_opened"), strict=True):
            worker.wait_for(event)
        yield deployment


@pytest.fixture
def tenant() -> str:
    """A tenant that nobody else uses."""
    return f"t{uuid.uuid4().hex[:10]}"


@pytest.fixture
def config(live: Live, tenant: str) -> LumynConfig:
    """What the tenant's callers pass to the SDK."""
    return live.config(tenant)


@pytest.fixture
def inside(live: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """The `lumyn` command of the tenant, with a home of its own."""
    monkeypatch.chdir(tmp_path)
    settings = {
        "LUMYN_KAFKA": live.address,
        "LUMYN_PREFIX": live.prefix,
        "LUMYN_TENANT": tenant,
        "LUMYN_ACTOR": "oncall",
    }
    with environment(**settings):
        yield Inside(tmp_path)
        wiring.close_homes()
