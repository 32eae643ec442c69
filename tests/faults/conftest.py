"""A broker of the suite's own, which it may kill, and a seed that is printed."""

from __future__ import annotations

import os
import random

import pytest
from servers.kafka import java_broker

pytest.register_assert_rewrite("faults.invariants", "faults.reading")


@pytest.fixture(scope="session")
def fault_broker():
    """One broker for the suite. Members of a group may be given up sooner than by Kafka's default."""
    broker = java_broker(
        overrides={
            "group.min.session.timeout.ms": "1000",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        }
    )
    yield broker
    broker.close()


@pytest.fixture
def broker(fault_broker):
    """The same, running whatever the test before did to it."""
    if not fault_broker.running:
        fault_broker.start()
    return fault_broker


@pytest.fixture
def seed():
    """What every random choice of a test comes from; `LUMYN_TEST_SEED` repeats one."""
    number = int(os.environ.get("LUMYN_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"LUMYN_TEST_SEED={number}")
    return number
