"""QdrantEngine: all that the stores need of Qdrant, in words of our own; `server` and `edge` are its two clients.

A collection holds points: an id, a JSON payload, and a vector unless the collection has none. Filters are frozen and
hashable, so a client may keep what it made of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from memory_service.blocks import Array
from schemas.errors import StorageUnavailable

PointId = str | int
"""A UUID in its usual form (lower case, with hyphens), or an unsigned integer below 2^64."""

IndexKind = Literal["tenant", "keyword", "integer", "float"]
"""What a payload index holds; `tenant` is a keyword index whose values' points are kept together on disk."""

Fields = bool | tuple[str, ...]
"""Which payload keys an answer carries: all, none, or these."""


class EngineError(StorageUnavailable):
    """The engine can't be reached in time, or can't do what was asked. Every method of an engine raises this."""


class NoCollection(EngineError):
    """The engine works, but holds no such collection: never filled, emptied, or restored without it."""


# what a filter is made of


@dataclass(frozen=True, slots=True)
class Match:
    """The value at `key` (any of them, where it is a list) is this one. Booleans can't be matched: store a word."""

    key: str
    value: str | int

    def __post_init__(self) -> None:
        if isinstance(self.value, bool):
            raise TypeError(f"`{self.key}` is compared with a boolean")  # which Edge would take for 0 or 1


@dataclass(frozen=True, slots=True)
class MatchAny:
    """The value at `key` is one of these: all text, or all integers."""

    key: str
    values: tuple[str, ...] | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The number at `key` lies between bounds. They are compared as float64: integers beyond 2^53 are rounded."""

    key: str
    gt: float | int | None = None
    gte: float | int | None = None
    lt: float | int | None = None
    lte: float | int | None = None


@dataclass(frozen=True, slots=True)
class IsEmpty:
    """`key` is missing, null or an empty list."""

    key: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """`key` is there and null."""

    key: str


@dataclass(frozen=True, slots=True)
class HasId:
    """The point is one of these."""

    ids: tuple[PointId, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Every one of `must`, none of `must_not`, at least one of `should` (when there are any). Filters nest."""

    must: tuple[Condition, ...] = ()
    should: tuple[Condition, ...] = ()
    must_not: tuple[Condition, ...] = ()


Condition = Match | MatchAny | Range | IsEmpty | IsNull | HasId | Filter
Selection = Filter | Sequence[PointId]
"""Which points to change: those that pass a filter, or these."""


# what goes in and comes out


@dataclass(frozen=True, slots=True)
class EnginePoint:
    """A point. The payload is JSON; integers are signed 64-bit. `vector` is None where none was asked or stored."""

    id: PointId
    payload: Mapping[str, Any]
    vector: Array | None = None


@dataclass(frozen=True, slots=True)
class Nearest:
    """One search: the `limit` points with the largest dot products, of more than `above`, that pass the filter.

    Points of equal score come in no order, and a limit cuts through them anywhere. `exact` looks at every point.
    """

    vector: Array
    filter: Filter | None
    limit: int
    exact: bool = True
    above: float | None = None
    with_payload: Fields = False
    with_vector: bool = False


@dataclass(frozen=True, slots=True)
class Ranked:
    """What one search found, best first, by column. `payloads` and `vectors` are empty unless asked for."""

    ids: Sequence[PointId]
    scores: Sequence[float]
    payloads: Sequence[Mapping[str, Any]] = ()
    vectors: Sequence[Array] = ()


@dataclass(frozen=True, slots=True)
class OrderBy:
    """Scroll in the order of a number that has an index, from a value on. Points without the number are left out.

    Equal numbers come in no order.
    """

    key: str
    descending: bool = False
    start_from: int | float | None = None


@dataclass(frozen=True, slots=True)
class Scrolled:
    """A page of points. `next_offset` continues a scroll by id; None at the end, and always with `order_by`."""

    points: Sequence[EnginePoint]
    next_offset: PointId | None = None


class QdrantEngine(Protocol):
    """One Qdrant. Every method raises `EngineError`; `NoCollection` when the collection is not there."""

    @property
    def where(self) -> str:
        """The address or folder, for messages; it holds no secret."""
        ...

    def version(self) -> str:
        """The engine's version; asking it also shows that the engine answers."""
        ...

    def exists(self, collection: str) -> bool:
        """Whether there is such a collection."""
        ...

    def ensure_collection(self, collection: str, vector_size: int | None, indexes: Mapping[str, IndexKind]) -> None:
        """Create the collection and the payload indexes where they are missing.

        `vector_size` None: points without vectors. Distance is the dot product, without quantization. An existing
        collection of another vector size is refused.
        """
        ...

    def drop_collection(self, collection: str) -> None:
        """Remove the collection with all its points; none there is fine."""
        ...

    def upsert(self, collection: str, points: Sequence[EnginePoint], only_if: Filter | None = None) -> None:
        """Write whole points, durably, before it returns. One that exists and does not pass `only_if` stays."""
        ...

    def set_payload(self, collection: str, changes: Sequence[tuple[Selection, Mapping[str, Any]]]) -> None:
        """Merge keys into the payloads of points, change after change, durably. Whole points are faster to upsert."""
        ...

    def delete(self, collection: str, which: Selection) -> None:
        """Remove points; those that aren't there are fine."""
        ...

    def retrieve(
        self, collection: str, ids: Sequence[PointId], with_payload: Fields = True, with_vector: bool = False
    ) -> list[EnginePoint]:
        """The points with these ids, in any order; those that aren't there are left out."""
        ...

    def query_batch(self, collection: str, queries: Sequence[Nearest]) -> list[Ranked]:
        """One answer a search, in order, in one call."""
        ...

    def scroll(
        self,
        collection: str,
        filter: Filter | None = None,
        *,
        limit: int,
        offset: PointId | None = None,
        order_by: OrderBy | None = None,
        with_payload: Fields = True,
        with_vector: bool = False,
    ) -> Scrolled:
        """A page of the points that pass a filter: in the order of ids from `offset` on, or by a number."""
        ...

    def count(self, collection: str, filter: Filter | None = None, exact: bool = True) -> int:
        """How many points pass a filter."""
        ...

    def close(self) -> None:
        """Let go of files and connections. Every later call raises `EngineError`."""
        ...
