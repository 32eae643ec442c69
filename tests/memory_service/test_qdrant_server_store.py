"""The memory store on a real Qdrant server keeps the contract."""

from __future__ import annotations

import uuid

import pytest
from memory_model import EPOCH
from store_contract import MemoryStoreContract

from memory_service.qdrant.memory_store import QdrantMemoryStore
from memory_service.qdrant.server import ServerEngine


@pytest.fixture
def reopen(qdrant_server, vectoriser):
    prefix, opened = f"test-{uuid.uuid4().hex[:12]}", []

    def again() -> QdrantMemoryStore:
        engine = ServerEngine(qdrant_server.url, grpc_port=qdrant_server.grpc_port)
        opened.append(QdrantMemoryStore(engine, vectoriser, EPOCH, prefix, create=True))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def store(reopen):
    return reopen()


class TestQdrantMemoryStoreOnServer(MemoryStoreContract):
    """The contract, on collections of its own; each opener has a connection of its own."""
