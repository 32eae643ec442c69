"""What every suite shares: hypothesis profiles and the real embedder, loaded once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest.register_assert_rewrite(
    "log_contract", "store_contract", "embedded", "memory_model", "faults.deployment", "faults.invariants",
    "faults.reading", "live_deployment",
)

settings.register_profile(
    "default", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "ci",
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("few", settings.get_profile("default"), max_examples=15)  # of what takes a second each
settings.load_profile("ci" if os.environ.get("CI") else "default")


_ORDER = ("schemas", "memory_service", "streams", "lumyn", "access", "examples", "e2e", "kafka", "deploy", "faults")
"""Fast suites first; what starts brokers and processes comes last."""


def pytest_collection_modifyitems(items):
    tests = Path(__file__).parent

    def place(item):
        folder = item.path.relative_to(tests).parts[0] if item.path.is_relative_to(tests) else ""
        return (_ORDER.index(folder) if folder in _ORDER else 0, "qdrant" in item.path.name or "kafka" in item.path.name)

    items.sort(key=place)


@pytest.fixture(scope="session")
def embedder():
    """The shipped static model behind its cache."""
    from memory_service.embedders.cache import CachedEmbedder
    from memory_service.embedders.static import StaticEmbedder

    return CachedEmbedder(StaticEmbedder())


@pytest.fixture(scope="session")
def vectoriser(embedder):
    """Requests to fixed-point vectors, as the product wires it."""
    from memory_service.vectoriser import Vectoriser

    return Vectoriser(embedder)


@pytest.fixture(scope="session")
def kafka_broker():
    """A real broker for the whole run."""
    from servers.kafka import find_broker

    broker = find_broker()
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def kafka(kafka_broker):
    """The broker's address."""
    return kafka_broker.address
