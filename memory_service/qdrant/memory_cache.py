"""What a reader keeps of the points it has met, so that a search need only bring ids and scores.

That is sound because a point's content never changes under its id; only its end does, and whether it is in force is
the engine's to say, search by search.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from memory_service.blocks import Array
from memory_service.point import Point
from memory_service.qdrant.engine import PointId, QdrantEngine
from memory_service.qdrant.memory_points import CONTENT, point_of, roles_of
from schemas.errors import MemoryUnavailable

_T = TypeVar("_T")
_NO_VECTOR: Array = np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A point without its vector, and what searches ask of it."""

    id: PointId
    content: Point
    memory_id: str
    amount: float | int | None
    roles: frozenset[str]

    @classmethod
    def of(cls, point_id: PointId, payload: Mapping[str, Any]) -> Known:
        """A point as stored. Raises KeyError, TypeError or ValueError when it is none."""
        p = point_of(payload, _NO_VECTOR, payload["from_version"])
        return cls(point_id, p, p.memory_id, p.amount, _roles(tuple(roles_of(p))))


@lru_cache(maxsize=256)
def _roles(roles: tuple[str, ...]) -> frozenset[str]:
    return frozenset(roles)


class PointCache:
    """Points by id, read once; safe for threads. Some 1 kB a point, and 3 kB for one of those with their vectors."""

    def __init__(self, engine: QdrantEngine, collection: str, most: int = 65536, most_whole: int = 16384) -> None:
        """`most` and `most_whole` bound how many are kept from one search to the next."""
        self._engine, self._collection, self._most, self._most_whole = engine, collection, most, most_whole
        self._known: dict[PointId, Known] = {}
        self._whole: dict[PointId, Point] = {}

    def known(self, ids: Iterable[PointId]) -> Mapping[PointId, Known]:
        """At least these points, reading those not met before."""
        kept = self._known
        missing = {point_id for point_id in ids if point_id not in kept}
        if missing:
            found = self._engine.retrieve(self._collection, list(missing), with_payload=CONTENT)
            _check(found, missing)
            kept.update((p.id, Known.of(p.id, p.payload)) for p in found)
            self._known = _bounded(kept, self._most)
        return kept

    def whole(self, points: Iterable[Known]) -> Mapping[PointId, Point]:
        """At least these points with their vectors. Each is still open: whether it has ended since is not kept."""
        kept = self._whole
        missing = {point.id: point for point in points if point.id not in kept}
        if missing:
            found = self._engine.retrieve(self._collection, list(missing), with_payload=False, with_vector=True)
            _check(found, missing)
            kept.update((p.id, replace(missing[p.id].content, vector=p.vector)) for p in found if p.vector is not None)
            self._whole = _bounded(kept, self._most_whole)
        return kept

    def clear(self) -> None:
        """Forget everything."""
        self._known, self._whole = {}, {}


def _bounded(kept: dict[PointId, _T], most: int) -> dict[PointId, _T]:
    """The same, or the later half of it: a new dict then, since a search under way may still use the old one."""
    return kept if len(kept) <= most else dict(islice(kept.items(), len(kept) // 2, None))


def _check(found: Collection[Any], asked: Collection[PointId]) -> None:
    if len(found) != len(asked):
        raise MemoryUnavailable(
            f"{len(asked) - len(found)} of the points that a search found can't be read",
            help="is the memory being rebuilt? otherwise run `lumyn memory rebuild`",
        )
