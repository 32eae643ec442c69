"""Recall from Qdrant that equals the exact index, hit for hit: what a first look leaves open is asked again.

A limit cuts through points of equal score anywhere, so a page that came back full says nothing certain about its last
score, and an answer counts only when all of it lies above that. Where only such a cut stands in the way, the points of
that score are fetched whole; where a kind of point is too rare among the nearest, it is asked for by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Literal

import numpy as np

from memory_service.blocks import BLOCKS, SLICES, Array
from memory_service.point import Hit, Point
from memory_service.qdrant.engine import Nearest, PointId, Ranked
from memory_service.qdrant.memory_cache import Known
from memory_service.qdrant.memory_points import HARMFUL
from memory_service.qdrant.memory_questions import (
    BARE,
    NEARBY,
    NEAREST,
    NEAREST_BARE,
    ROLES,
    SOFTENING,
    filter_of,
    test_of,
    wanted,
)
from memory_service.qdrant.memory_watermark import HELP
from memory_service.store import Found, Search
from memory_service.worth import worths
from schemas.errors import MemoryUnavailable

_SPARE = 16
"""Asked for beyond what is wanted and the one left out: for neutral points and equal scores."""
_SHOWN = tuple(name for name in ROLES if name not in (NEARBY, BARE))
_ORDER = itemgetter(0, 1)
"""(-dot, memory_id, ...): the order of answers."""
Entry = tuple[int, Known]
"""A point and its score as an exact integer."""


def identity(search: Search) -> Hashable:
    """What two searches with the same answer have in common."""
    query = search.query
    return (
        query.full.tobytes(),
        None if query.without_text is None else query.without_text.tobytes(),
        *(search.tenant, search.action_type, search.version, search.leave_out),
        *(search.amount, search.amount_within, search.comparable, search.top_k, search.neighbours),
        *(search.named, search.half_life_ms, search.at_ms if search.half_life_ms is not None else 0),
    )


@dataclass(frozen=True, slots=True)
class _Page:
    """What one search brought, in order: all points with scores above `floor`; None: all there are."""

    dots: list[int]
    points: list[Known]
    floor: int | None

    def best(self, count: int, holds: Callable[[Known], bool] | None = None) -> list[Entry]:
        """The first `count` whose point holds."""
        entries = zip(self.dots, self.points, strict=True)
        return list(islice(entries if holds is None else (e for e in entries if holds(e[1])), count))


def _page(query: Nearest, ranked: Ranked, known: Mapping[PointId, Known], leave_out: str | None) -> _Page:
    dots, points = list(map(int, ranked.scores)), [known[point_id] for point_id in ranked.ids]
    full = len(dots) >= query.limit
    if full and query.above is not None:
        raise MemoryUnavailable("memory holds more points in force than its watermark says", help=HELP)
    floor = min(dots) if full else None if query.above is None else int(query.above)
    if leave_out is not None or len(set(dots)) < len(dots):
        entries = [(-dot, point.memory_id, point) for dot, point in zip(dots, points, strict=True)]
        entries = sorted((entry for entry in entries if entry[1] != leave_out), key=_ORDER)
        dots, points = [-entry[0] for entry in entries], [entry[2] for entry in entries]
    return _Page(dots, points, floor)


class Recollecting:
    """One search under way: what it has seen, what it still has to ask, and in the end what it found."""

    def __init__(self, search: Search, most: int) -> None:
        """`most`: no more points than this are in force."""
        self.search, self._most = search, most
        self._asked: dict[str, Nearest] = {}
        self._pages: dict[str, _Page] = {}
        self._answers: dict[str, list[Entry]] = {}
        if search.query.without_text is None:
            self._answers[BARE] = []

    def to_ask(self) -> dict[str, Nearest]:
        """The searches still to be made, each with the name under which `take` wants its result; none at the end."""
        if not self._pages:
            looks = (NEAREST,) if BARE in self._answers else (NEAREST, NEAREST_BARE)
            self._asked = {name: self._first(name) for name in looks}
            return self._asked
        states = {name: self._settle(name) for name in ROLES if name not in self._answers}
        cut = {self._source(name) for name, state in states.items() if state == "cut"}
        if cut:
            self._asked = {name: self._rest(name) for name in cut}
        else:
            short = [name for name, state in states.items() if state == "short" and name not in self._pages]
            self._asked = {name: self._first(name) for name in short}
        return self._asked

    def _first(self, name: str) -> Nearest:
        """The nearest that a question or a first look is about."""
        which, query = filter_of(name, self.search), self.search.query
        vector = query.without_text if name in (BARE, NEAREST_BARE) else query.full
        assert which is not None and vector is not None
        return Nearest(vector, which, wanted(name, self.search) + 1 + _SPARE)

    def _rest(self, name: str) -> Nearest:
        """A page again, with all the points of its last score."""
        page, query = self._pages[name], self._first(name)
        assert page.floor is not None
        return Nearest(query.vector, query.filter, self._most + 1, above=page.floor - 1)

    def kin(self, name: str) -> tuple[object, ...]:
        """Searches alike in this differ in their vector, or little more; side by side the engine does them at once."""
        search, query = self.search, self._asked[name]
        return name, query.limit, search.tenant, search.action_type, search.version

    def take(self, name: str, ranked: Ranked, known: Mapping[PointId, Known]) -> None:
        """Take in the result of one search."""
        self._pages[name] = _page(self._asked[name], ranked, known, self.search.leave_out)

    def _source(self, name: str) -> str:
        """The page that a question is answered from: its own, or else a first look."""
        if name in self._pages:
            return name
        return NEAREST_BARE if name == BARE else NEAREST

    def _seen(self, name: str, count: int) -> list[Entry]:
        """The best of a question's kind that were seen."""
        if name in self._pages:
            return self._pages[name].best(count)
        return self._pages[self._source(name)].best(count, test_of(name, self.search))

    def _settle(self, name: str) -> Literal["answered", "cut", "short"]:
        """Answer a question from what was seen, if that is certain.

        `cut`: certain once the page's last score is there whole. `short`: it takes points beyond that.
        """
        count = wanted(name, self.search)
        if not count or filter_of(name, self.search) is None:
            self._answers[name] = []
            return "answered"
        page, seen = self._pages[self._source(name)], self._seen(name, count)
        if name != SOFTENING:
            needed = seen[-1][0] if len(seen) == count else None
        elif (harmful := self._answers.get("harmful")) is None:
            return "short"
        else:
            # those not farther than the nearest harmful one, so all as near as that must have been seen
            bound = harmful[0][0] if harmful else None
            last = seen[-1][0] if len(seen) == count else None
            needed = max((dot for dot in (bound, last) if dot is not None), default=None)
            seen = [entry for entry in seen if bound is None or entry[0] >= bound]
        if page.floor is None or (needed is not None and needed > page.floor):
            self._answers[name] = seen
            return "answered"
        return "cut" if needed == page.floor else "short"

    def reported(self) -> Iterator[Known]:
        """The points that the answer shows whole."""
        return (point for name in (*self._shown, BARE) for _, point in self._answers[name])

    @property
    def _shown(self) -> tuple[str, ...]:
        return (*_SHOWN, NEARBY) if self.search.named else _SHOWN

    def _worths(self) -> tuple[float, ...]:
        points = (point.content for _, point in self._answers[NEARBY])
        return worths(((p.trust, self.search.at_ms - p.at_ms) for p in points), self.search.half_life_ms)

    def found(self, whole: Mapping[PointId, Point]) -> Found:
        """The answer, once nothing is left to ask. Raises `MemoryUnavailable` when a score is not exact."""
        query, answers = self.search.query, self._answers
        hits = _hits((entry for name in self._shown for entry in answers[name]), query.full, whole)
        bare = {} if query.without_text is None else _hits(answers[BARE], query.without_text, whole)

        def listed(name: str) -> tuple[Hit, ...]:
            return tuple(hits[point.id] for _, point in answers[name])

        return Found(
            failures=listed("failures"),
            successes=listed("successes"),
            nearby=tuple((dot, HARMFUL in point.roles) for dot, point in answers[NEARBY]),
            harmful=next(iter(listed("harmful")), None),
            harmful_without_text=next(iter(bare.values()), None),
            fine=next(iter(listed("fine")), None),
            softening=listed(SOFTENING),
            worths=self._worths(),
            named=listed(NEARBY) if self.search.named else (),
        )


def _hits(entries: Iterable[Entry], query: Array, whole: Mapping[PointId, Point]) -> dict[PointId, Hit]:
    """Points with their products by block, which must add up to the engine's scores."""
    dots = {point.id: dot for dot, point in entries}
    if not dots:
        return {}
    points = [whole[point_id] for point_id in dots]
    each = np.stack([point.vector for point in points]) * query
    products = np.stack([each[:, SLICES[name]].sum(axis=1) for name in BLOCKS], axis=1)
    hits = {}
    for (point_id, dot), point, (a, b, c) in zip(dots.items(), points, products.tolist(), strict=True):
        if a + b + c != dot:
            raise MemoryUnavailable(
                f"the memory's score of `{point.memory_id}` is {dot}, not {a + b + c:.0f}: it is not exact",
                help=f"the collection must hold plain float32 vectors under the dot product; {HELP}",
            )
        hits[point_id] = Hit(point, dot, (int(a), int(b), int(c)))
    return hits
