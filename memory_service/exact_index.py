"""The exact in-process index: every point of a tenant's action type in memory, searched without approximation.

Block vectors repeat (the same intent, the same set of categories), so each block keeps its unique rows once and a
point names its three rows: fewer products, the same exact integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from memory_service.blocks import BLOCKS, SLICES, Array
from memory_service.columns import Columns
from memory_service.point import Hit, Point
from memory_service.store import Found, Search
from memory_service.worth import LEAST_TRUST, oldest_that_counts, worths
from schemas.label import FULL_TRUST

_GROUP = 64
_MOST_SOFTENING = 16
_VIEWS_KEPT = 4
_MANY_ROWS = 1024
_MOST_CANDIDATES = 512
_ROUNDING = 16.0
_PARTS = tuple(SLICES[name] for name in BLOCKS)
_CATEGORIES, _NUMBERS = _PARTS[1], _PARTS[2]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Gate = Callable[[Indices | None], Mask]


class _Rows:
    """Unique rows of one block, growing; `add` gives a row's number. `longest` is the greatest Euclidean length."""

    def __init__(self) -> None:
        self._matrix: Array = np.zeros((0, 0), dtype=np.float32)
        self._numbers: dict[bytes, int] = {}
        self.longest = 0.0

    def add(self, row: Array) -> int:
        key = row.tobytes()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            if number == len(self._matrix):
                grown = np.zeros((max(64, 2 * number), len(row)), dtype=np.float32)
                grown[:number] = self._matrix[:number] if number else 0
                self._matrix = grown
            self._matrix[number] = row
            wide = row.astype(np.float64)
            self.longest = max(self.longest, math.sqrt(float(np.dot(wide, wide))))
        return number

    @property
    def matrix(self) -> Array:
        return self._matrix[: len(self._numbers)]


class _Pairs:
    """Which pairs of a text row and a categories row there are, growing: they repeat even more than their parts."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int], int] = {}
        self._rows: Indices | None = None

    def add(self, text: int, categories: int) -> int:
        number = self._numbers.setdefault((text, categories), len(self._numbers))
        if self._rows is not None and number >= self._rows.shape[1]:
            self._rows = None
        return number

    @property
    def rows(self) -> Indices:
        """(2, pairs): each pair's text row and categories row."""
        if self._rows is None:
            self._rows = np.array(list(self._numbers), dtype=np.int64).reshape(-1, 2).T.copy()
        return self._rows


class _View:
    """A bucket's points in force at one version, as arrays of the same length."""

    def __init__(self, columns: Mapping[str, Any], live: Indices, own_numbers: bool) -> None:
        """`own_numbers`: no two points of the bucket share their numbers, so that rows are points."""
        self.live = live
        self.own_numbers = own_numbers and len(live) == len(columns["id"])
        whole = len(live) == len(columns["id"])
        self.column: Mapping[str, Any] = columns if whole else {n: values[live] for n, values in columns.items()}
        self.rows: tuple[Indices, ...] = tuple(self.column[name] for name in BLOCKS)
        self.unknown: Mask = np.isnan(self.column["amount"])

    def without(self, memory_id: str, columns: Mapping[str, Any]) -> _View:
        """The same with one decision left out."""
        return _View(columns, self.live[self.column["id"] != memory_id], False)


_NO_VECTOR: Array = np.zeros(0, dtype=np.float32)


def _without_vector(point: Point) -> Point:
    """The rows hold it already, most of it once for many points."""
    return replace(point, vector=_NO_VECTOR)


class _Bucket:
    """All points, past and present, of one tenant's action type."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.rows = [_Rows() for _ in _PARTS]
        self.pairs = _Pairs()
        self.distrusted = False
        self._open: dict[str, int] = {}
        self._columns = Columns()
        self._views: dict[int, _View] = {}

    def put(self, point: Point) -> None:
        """Add a point, or the same point with its end."""
        at = self._open.get(point.memory_id)
        if at is not None and self.points[at].from_version == point.from_version:
            self.points[at] = _without_vector(point)
            self._columns.end(at, point)
        else:
            at = len(self.points)
            self.distrusted |= point.trust < FULL_TRUST
            self.points.append(_without_vector(point))
            numbers = [
                rows.add(np.ascontiguousarray(point.vector[part])) for rows, part in zip(self.rows, _PARTS, strict=True)
            ]
            self._columns.append(point, self.pairs.add(numbers[0], numbers[1]), numbers)
        if point.is_open:
            self._open[point.memory_id] = at
        elif self._open.get(point.memory_id) == at:
            del self._open[point.memory_id]
        self._views.clear()

    def view(self, version: int, leave_out: str | None) -> _View:
        """The points in force at a version; the last few versions asked for are kept."""
        view = self._views.get(version)
        columns = self._columns.named
        if view is None:
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            live = np.flatnonzero((columns["from"] <= version) & (version < columns["to"]))
            view = self._views[version] = _View(columns, live, len(self.rows[2].matrix) == len(self.points))
        return view if leave_out is None else view.without(leave_out, columns)

    def block_dots(self, searches: Sequence[Search]) -> list[Array]:
        """Per block, products of all queries with its unique rows: (searches, rows)."""
        return [
            _product([s.query.full[part] for s in searches], rows.matrix)
            for rows, part in zip(self.rows, _PARTS, strict=True)
        ]


def _product(queries: Sequence[Array], matrix: Array) -> Array:
    """(queries, rows); many rows cost nothing when every query leaves their block empty."""
    if len(matrix) > _MANY_ROWS and not any(query.any() for query in queries):
        return np.zeros((len(queries), len(matrix)), dtype=np.float32)
    if len(queries) == 1:
        return (matrix @ queries[0])[np.newaxis]
    return np.stack(queries) @ matrix.T


class _Scored:
    """One search's scores over a bucket's points in force, and the ways to pick among them.

    The nearest of all, in order, answer most questions; a question that they don't answer whole is asked of all.
    A gate says of some places, or of all, whether they count.
    """

    def __init__(self, bucket: _Bucket, search: Search, dots: Sequence[Array]) -> None:
        self.bucket, self.search, self.dots = bucket, search, dots
        self.view = bucket.view(search.version, search.leave_out)
        self.column = self.view.column
        texts, categories = bucket.pairs.rows
        pairs = dots[0].take(texts) + dots[1].take(categories)
        self.score: Array = pairs.take(self.column["pair"])
        self.score += dots[2] if self.view.own_numbers else dots[2].take(self.view.rows[2])
        self.nearest = self.top(None, 2 * max(search.neighbours, search.top_k))  # many of them may be neutral

    def best(self, gate: Gate, k: int) -> Indices:
        """The k best places that a gate lets through, by (-dot, memory_id)."""
        found = self.nearest[gate(self.nearest)][:k]
        if len(found) == k or len(self.nearest) == len(self.score):
            return found
        places = np.flatnonzero(gate(None))
        return found if len(places) == len(found) else self.top(places, k)

    def top(self, places: Indices | None, k: int) -> Indices:
        """The k best of some places, or of all, by (-dot, memory_id)."""
        values = self.score if places is None else self.score[places]
        if len(values) > k:
            cut = np.partition(values, len(values) - k)[len(values) - k]
            keep = np.flatnonzero(values >= cut)
            values = values[keep]
            places = keep if places is None else places[keep]
        elif places is None:
            places = np.arange(len(values))
        return self.ordered(places, values)[:k]

    def ordered(self, places: Indices, values: Array) -> Indices:
        """Places by (-value, memory_id)."""
        return places[np.lexsort((self.column["id"][places], -values))]

    def is_(self, column: str) -> Gate:
        """The gate of a column of yes and no."""
        values = self.column[column]
        return lambda at: values if at is None else values[at]

    def harmful(self, at: Indices | None) -> Mask:
        """Harmful points past the amount gate: more money is never safer, so they count up to amount x within.

        Where an amount is not known on one side, a harmful point counts.
        """
        amount = self.search.amount
        mask: Mask = _at(self.column["harmful"], at)
        if amount is None:
            return mask
        low: Mask = _at(self.column["amount"], at) <= amount * self.search.amount_within
        return mask & (low | _at(self.view.unknown, at))  # type: ignore[no-any-return]

    def fine(self, column: str) -> Gate:
        """Fine points past the amount gate: from amount / within on; without amounts, those that have none either."""
        amount, values = self.search.amount, self.column[column]
        if self.search.half_life_ms is not None:
            values = values & self._young(self.search.half_life_ms)
        if amount is None:
            comparable = self.search.comparable
            return lambda at: _at(values, at) & _at(self.column["amountless"], at) & comparable
        least = amount / self.search.amount_within
        return lambda at: _at(values, at) & (_at(self.column["amount"], at) >= least)

    def _young(self, half_life_ms: int) -> Mask:
        """Which points are not too old to be worth a half, at the trust that they have; all that have too little."""
        trusts = range(FULL_TRUST + 1)
        oldest = [oldest_that_counts(trust, half_life_ms) if trust >= LEAST_TRUST else 0 for trust in trusts]
        young: Mask = self.search.at_ms - self.column["at"] <= np.array(oldest, dtype=np.int64)[self.column["trust"]]
        return young

    def worths(self, places: Indices) -> tuple[float, ...]:
        """What some points are worth; empty where each is worth 1."""
        half_life_ms = self.search.half_life_ms
        if half_life_ms is None and not self.bucket.distrusted:
            return ()
        ages = (self.search.at_ms - self.column["at"][places]).tolist()
        return worths(zip(self.column["trust"][places].tolist(), ages, strict=True), half_life_ms)

    def softening(self, harmful: Indices) -> Indices:
        """Failed DENYs, gated and uncontested, with no harmful one nearer."""
        denied = self.fine("denied")
        if not len(harmful):
            return self.best(denied, _MOST_SOFTENING)
        near, least = self.nearest, self.score[harmful[0]]
        if least > self.score[near[-1]]:  # then whoever is as near is among the nearest
            found: Indices = near[denied(near) & (self.score[near] >= least)]
            return found[:_MOST_SOFTENING]
        return self.best(lambda at: denied(at) & (_at(self.score, at) >= least), _MOST_SOFTENING)

    def hits(self, *groups: Indices) -> list[tuple[Hit, ...]]:
        """For each group of places its points, with their exact products."""
        places = np.concatenate(groups)
        texts, categories, numbers = (
            block.take(rows.take(places)).astype(np.int64).tolist()
            for block, rows in zip(self.dots, self.view.rows, strict=True)
        )
        points, live = self.bucket.points, self.view.live.take(places).tolist()
        hits = [
            Hit(points[at], t + c + n, (t, c, n)) for at, t, c, n in zip(live, texts, categories, numbers, strict=True)
        ]
        ends = list(accumulate(map(len, groups)))
        return [tuple(hits[end - len(group) : end]) for group, end in zip(groups, ends, strict=True)]

    def without_text(self, places: Indices) -> Hit | None:
        """The best of some places when text is left out.

        The two queries' numbers are the same but for a factor and rounding, so that their products differ by at most
        the length of what is left between the queries times the longest row (Cauchy-Schwarz). Only places that are
        near enough to the best within that bound are multiplied out.
        """
        query = self.search.query.without_text
        if query is None or not len(places):
            return None
        categories, numbers = self.bucket.rows[1], self.bucket.rows[2]
        dots = (categories.matrix @ query[_CATEGORIES]).take(self.view.rows[1].take(places))
        rows = self.view.rows[2].take(places)
        factor, left = _alike(query[_NUMBERS], self.search.query.full[_NUMBERS])
        near = dots + np.float32(factor) * self.dots[2].take(rows)
        reach = 2 * left * numbers.longest + _ROUNDING
        chosen = np.flatnonzero(near >= near.max() - reach)
        if len(chosen) > _MOST_CANDIDATES:
            products = (numbers.matrix @ query[_NUMBERS]).take(rows.take(chosen))
        else:
            products = numbers.matrix[rows.take(chosen)] @ query[_NUMBERS]
        dots = dots.take(chosen)
        score = dots + products
        best = np.flatnonzero(score == score.max())
        if len(best) > 1:
            best = best[np.argsort(self.column["id"][places[chosen[best]]], kind="stable")]
        first = best[0]
        parts = (0, int(dots[first]), int(products[first]))
        return Hit(self.bucket.points[int(self.view.live[places[chosen[first]]])], sum(parts), parts)


def _at(values: Any, at: Indices | None) -> Any:
    return values if at is None else values[at]


def _alike(one: Array, other: Array) -> tuple[float, float]:
    """The factor that brings another vector nearest to one, and the length of what is left between them."""
    square = float(other @ other)
    factor = float(np.float32(float(one @ other) / square)) if square else 0.0
    left = one.astype(np.float64) - factor * other.astype(np.float64)
    return factor, math.sqrt(float(left @ left))


def _find(scored: _Scored) -> Found:
    search, column = scored.search, scored.column
    nearest = scored.best(scored.harmful, 1)
    failures, successes, harmful, fine, softening = scored.hits(
        scored.best(scored.is_("failure"), search.top_k),
        scored.best(scored.is_("success"), search.top_k),
        nearest,
        scored.best(scored.fine("fine"), 1),
        scored.softening(nearest),
    )
    near = scored.best(scored.is_("known"), search.neighbours)
    dots: list[int] = scored.score[near].astype(np.int64).tolist()
    bare = None
    if search.query.without_text is not None:
        bare = scored.without_text(np.flatnonzero(scored.harmful(None)))
    return Found(
        failures=failures,
        successes=successes,
        nearby=tuple(zip(dots, column["harmful"][near].tolist(), strict=True)),
        worths=scored.worths(near),
        named=scored.hits(near)[0] if search.named else (),
        harmful=harmful[0] if harmful else None,
        harmful_without_text=bare,
        fine=fine[0] if fine else None,
        softening=softening,
    )


class ExactIndex:
    """Points of many tenants, searched exactly, at any version that it holds."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def put(self, points: Iterable[Point]) -> None:
        """Take in new points and ends of points, in version order."""
        for point in points:
            self._buckets.setdefault((point.tenant, point.action_type), _Bucket()).put(point)

    def search(self, searches: Sequence[Search]) -> list[Found]:
        """One answer a search, in order; searches of one bucket are multiplied together."""
        answers: list[Found] = [Found()] * len(searches)
        groups: dict[tuple[str, str], list[int]] = {}
        for number, search in enumerate(searches):
            groups.setdefault((search.tenant, search.action_type), []).append(number)
        for key, numbers in groups.items():
            bucket = self._buckets.get(key)
            if bucket is None:
                continue
            for start in range(0, len(numbers), _GROUP):
                self._search_group(bucket, searches, numbers[start : start + _GROUP], answers)
        return answers

    def _search_group(
        self, bucket: _Bucket, searches: Sequence[Search], numbers: list[int], answers: list[Found]
    ) -> None:
        dots = bucket.block_dots([searches[n] for n in numbers])
        for row, number in enumerate(numbers):
            answers[number] = _find(_Scored(bucket, searches[number], [block[row] for block in dots]))
