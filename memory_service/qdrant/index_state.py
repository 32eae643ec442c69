"""Which log a record index is of, and how far it has come: points beside the records, in the same collection.

A point a partition, so that processes which index different ones never write the same point. Every position carries
the generation of the filling that it counts, so one that is written late, into an index emptied meanwhile, is void.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from memory_service.qdrant.engine import EnginePoint, Filter, HasId, Match, PointId, QdrantEngine
from memory_service.qdrant.record_points import INDEXES, KIND
from schemas.errors import StorageUnavailable

LAYOUT: Final = "1"
HELP: Final = "run `lumyn index rebuild`"
_HEADER, _LABELS, _FIRST_POSITION = 0, 1, 2
_PAGE = 1000
_NO_POINT = Filter(must=(HasId(()),))


@dataclass(frozen=True, slots=True)
class Stand:
    """How far a filling has come: the version of the last label event, and next offsets by partition."""

    generation: str
    labels: int
    positions: Mapping[int, int]


class IndexState:
    """The header and the positions of one index. Errors are the engine's, and `StorageUnavailable`."""

    def __init__(self, engine: QdrantEngine, collection: str, epoch: str) -> None:
        self._engine, self._collection, self._epoch = engine, collection, epoch

    @property
    def where(self) -> str:
        """The engine's address and the collection, for messages."""
        return f"{self._engine.where} {self._collection}"

    def open(self) -> None:
        """Create the index where there is none, else check that it is this log's."""
        if not self._engine.exists(self._collection) or not self._engine.retrieve(self._collection, [_HEADER]):
            self.create()
        self.read()

    def create(self) -> None:
        """The header comes last: a collection without one was never finished."""
        self._engine.ensure_collection(self._collection, None, INDEXES)
        if self._engine.count(self._collection) and not self._engine.retrieve(self._collection, [_HEADER]):
            raise self.unavailable(f"the collection `{self._collection}` is not an index's")
        header = {KIND: "header", "layout": LAYOUT, "epoch": self._epoch, "generation": uuid.uuid4().hex}
        self._engine.upsert(self._collection, [EnginePoint(_HEADER, header)], only_if=_NO_POINT)

    def read(self, partitions: Iterable[int] = ()) -> Stand:
        """Where the index stands in these partitions. Raises when it is of another log, or was emptied."""
        wanted: list[PointId] = [_HEADER, _LABELS, *(_FIRST_POSITION + partition for partition in partitions)]
        found = {int(point.id): point.payload for point in self._engine.retrieve(self._collection, wanted)}
        header = found.pop(_HEADER, None)
        if header is None:
            raise self.emptied()
        for name, want in (("layout", LAYOUT), ("epoch", self._epoch)):
            if header.get(name) != want:
                raise self.unavailable(f"the index is of {name} `{header.get(name)}`, not `{want}`")
        generation = header["generation"]
        valid = {at: payload["next"] for at, payload in found.items() if payload["generation"] == generation}
        labels = valid.pop(_LABELS, 0)
        return Stand(generation, labels, {at - _FIRST_POSITION: offset for at, offset in valid.items()})

    def read_all(self) -> Stand:
        """Where the index stands in every partition that it has seen."""
        stand = self.read()
        positions: dict[int, int] = {}
        offset: PointId | None = None
        while True:
            page = self._engine.scroll(self._collection, _POSITIONS, limit=_PAGE, offset=offset)
            for point in page.points:
                if point.payload["generation"] == stand.generation:
                    positions[int(point.id) - _FIRST_POSITION] = point.payload["next"]
            if page.next_offset is None:
                return Stand(stand.generation, stand.labels, positions)
            offset = page.next_offset

    def move(self, to: Stand) -> None:
        """Say how far the index has come. What was not moved is left out: no position, labels 0."""
        points = [
            EnginePoint(_FIRST_POSITION + partition, {KIND: "position", "generation": to.generation, "next": offset})
            for partition, offset in to.positions.items()
        ]
        if to.labels:
            points.append(EnginePoint(_LABELS, {KIND: "labels", "generation": to.generation, "next": to.labels}))
        if points:
            self._engine.upsert(self._collection, points)

    def emptied(self) -> StorageUnavailable:
        return self.unavailable("the index is being made anew, or was emptied")

    def unavailable(self, message: str) -> StorageUnavailable:
        return StorageUnavailable(message, where=self.where, help=HELP)


_POSITIONS = Filter(must=(Match(KIND, "position"),))
