"""Where Qdrant suites keep their points: an Edge folder or a real server, the same tests on both."""

from __future__ import annotations

import uuid

import pytest

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.engine import QdrantEngine
from memory_service.qdrant.server import ServerEngine


@pytest.fixture(scope="session")
def qdrant_server():
    """A running server; tests keep to collections of their own."""
    from servers.qdrant import find_server

    server = find_server()
    yield server
    server.close()


class Place:
    """A storage of one test, opened any number of times, under a prefix of its own."""

    def __init__(self, kind: str, make) -> None:
        self.kind, self._make, self._opened = kind, make, []
        self.prefix = f"test-{uuid.uuid4().hex[:12]}"

    def open(self) -> QdrantEngine:
        """Another engine on it."""
        self._opened.append(self._make())
        return self._opened[-1]

    def close(self) -> None:
        for engine in self._opened:
            engine.close()


@pytest.fixture(params=["edge", "server"])
def place(request, tmp_path):
    """A storage, once on Edge and once on a server."""
    if request.param == "edge":
        made = Place("edge", lambda: EdgeEngine(tmp_path / "edge"))
    else:
        server = request.getfixturevalue("qdrant_server")
        made = Place("server", lambda: ServerEngine(server.url, grpc_port=server.grpc_port, deadline=30))
    yield made
    if made.kind == "server":
        with_cleaning = made.open()
        for name in ("memory", "memory-labels", "points"):
            with_cleaning.drop_collection(f"{made.prefix}-{name}")
    made.close()
