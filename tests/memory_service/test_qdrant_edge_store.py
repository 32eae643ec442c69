"""The memory store on Qdrant Edge keeps the contract."""

from __future__ import annotations

import pytest
from memory_model import EPOCH
from store_contract import MemoryStoreContract

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.memory_store import QdrantMemoryStore


@pytest.fixture
def reopen(tmp_path, vectoriser):
    opened = []

    def again() -> QdrantMemoryStore:
        opened.append(QdrantMemoryStore(EdgeEngine(tmp_path / "edge"), vectoriser, EPOCH, create=True))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def store(reopen):
    return reopen()


class TestQdrantMemoryStoreOnEdge(MemoryStoreContract):
    """The contract, on a folder of its own; a second opener in the same process shares it."""
