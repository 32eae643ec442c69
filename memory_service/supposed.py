"""A memory made from label events alone, at every version, in which some decisions stand for something else.

It answers "what would have been recalled, had this been said of them from the start?".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from memory_service.exact_index import ExactIndex
from memory_service.point import Point
from memory_service.store import Found, Search, Watermark
from memory_service.timeline import Stand, by_decision, by_labeller, point_of, stands, with_trust
from memory_service.vectoriser import Vectoriser
from schemas.label import LabelEvent

_AT_ONCE = 1000
_T = TypeVar("_T")


class SupposedMemory:
    """`Searchable`, exact, in this process; of the tenants and action types of the events that it is given."""

    def __init__(
        self,
        events: Iterable[LabelEvent],
        vectoriser: Vectoriser,
        epoch: str,
        version: int,
        instead: Mapping[str, Sequence[Stand]],
        tick: Callable[[int], None] = lambda count: None,
    ) -> None:
        """`events`: no notes, each decision's and labeller's in version order; `instead`: what decisions stood for."""
        self._index = ExactIndex()
        self._mark = Watermark(epoch, version, 0, vectoriser.id)
        events = list(events)
        trusts = by_labeller(events)
        for some in _in_parts(list(by_decision(events).values()), _AT_ONCE):
            self._index.put(_points(some, trusts, vectoriser, instead))
            tick(len(some))

    def watermark(self) -> Watermark:
        return self._mark

    def search(self, searches: Sequence[Search]) -> list[Found]:
        return self._index.search(searches)


def _points(
    spoken: Sequence[Sequence[LabelEvent]],
    trusts: Mapping[tuple[str, str], Sequence[LabelEvent]],
    vectoriser: Vectoriser,
    instead: Mapping[str, Sequence[Stand]],
) -> Iterator[Point]:
    facts = [events[0]["decision"]["facts"] for events in spoken if events[0]["decision"] is not None]
    for events, vector in zip(spoken, vectoriser.vectorise(facts), strict=True):
        first = events[0]
        values = vector.values.astype(np.float32)
        stood = instead.get(first["decision_id"])
        for stand in stands(with_trust(events, trusts)) if stood is None else stood:
            yield point_of(first, stand, values, vectoriser.profile)


def _in_parts(values: list[_T], size: int) -> Iterator[list[_T]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
