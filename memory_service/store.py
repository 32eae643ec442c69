"""The MemoryStore protocol: what every memory backend does, held to one contract suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from memory_service.point import Hit, Point
from memory_service.vectoriser import Query
from schemas.label import LabelEvent


@dataclass(frozen=True, slots=True)
class Watermark:
    """How far the store is: version = last label event applied, count = points in force."""

    epoch: str
    version: int
    count: int
    vectoriser_id: str
    at_ms: int | None = None
    """Unix milliseconds at which its writer last vouched that this is all there is; None: nobody does."""


@dataclass(frozen=True, slots=True)
class Search:
    """One recall: whose memory, as of which version, the query, the amount gate and how much to find."""

    tenant: str
    action_type: str
    version: int
    query: Query
    amount: float | int | None
    amount_within: float
    top_k: int
    neighbours: int
    leave_out: str | None = None
    comparable: bool = True
    """False: there is an amount, but in a currency that can't be compared; then no fine neighbour counts."""
    half_life_ms: int | None = None
    """In which a label's worth halves; None: it does not."""
    at_ms: int = 0
    """The log's time of asking, from which ages count."""
    named: bool = False
    """Whether to say by name, too, what `nearby` is made of."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found; every list in the order (-dot, memory_id).

    `harmful`, `fine` and `softening` (failed DENYs) passed the amount gate; fine and softening are not contested, and
    worth a half at least (`worth.py`). `softening` holds those not farther than the nearest harmful one, at most 16.
    `failures` and `successes` are by last label; `nearby` holds (dot, harmful) pairs, neutral left out; neither is
    gated. `worths` says what each of `nearby` is worth; empty where all are worth 1. `named`: the points of `nearby`,
    if asked for.
    """

    failures: tuple[Hit, ...] = ()
    successes: tuple[Hit, ...] = ()
    nearby: tuple[tuple[int, bool], ...] = ()
    harmful: Hit | None = None
    harmful_without_text: Hit | None = None
    fine: Hit | None = None
    softening: tuple[Hit, ...] = ()
    worths: tuple[float, ...] = ()
    named: tuple[Hit, ...] = ()


class Searchable(Protocol):
    """A memory that can be asked. Every method raises `MemoryUnavailable` when it can't answer rightly."""

    def watermark(self) -> Watermark:
        """The store's own state."""
        ...

    def search(self, searches: Sequence[Search]) -> list[Found]:
        """Exact recall, one answer a search, in order. A version above the watermark is refused."""
        ...


class MemoryStore(Searchable, Protocol):
    """Labelled decisions as points. Every method raises `MemoryUnavailable` when it can't answer rightly."""

    def apply(self, events: Sequence[LabelEvent]) -> Watermark:
        """Take label events in, in version order; those at or below the watermark are skipped; a gap is refused."""
        ...

    def points(self, tenant: str | None = None, version: int | None = None) -> Iterator[Point]:
        """Points in force at a version (default: now), ordered by memory_id."""
        ...

    def is_remembered(self, memory_id: str) -> bool:
        """Whether a decision has a point in force now."""
        ...

    def reset(self, epoch: str) -> None:
        """Empty the store, to be filled again from the `labels` topic."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...
