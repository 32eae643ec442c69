"""The exact in-process index: every point of a tenant's action type in memory, searched without approximation.

Block vectors repeat (the same intent, the same set of categories), so each block keeps its unique rows once and a
point names its three rows: fewer products, the same exact integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memory_service.blocks import BLOCKS, SLICES, Array
from memory_service.point import OPEN, Hit, Point
from memory_service.store import Found, Search

_GROUP = 64
_MOST_SOFTENING = 16
_VIEWS_KEPT = 4
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class _Rows:
    """Unique rows of one block, growing; `add` gives a row's number."""

    def __init__(self, dims: int) -> None:
        self._matrix: Array = np.zeros((64, dims), dtype=np.float32)
        self._numbers: dict[bytes, int] = {}

    def add(self, row: Array) -> int:
        key = row.tobytes()
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._numbers)
            if number == len(self._matrix):
                self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._matrix[number] = row
        return number

    @property
    def matrix(self) -> Array:
        return self._matrix[: len(self._numbers)]


class _View:
    """A bucket's points in force at one version, as arrays of the same length."""

    def __init__(self, columns: Mapping[str, Any], rows: Sequence[Indices], live: Indices) -> None:
        self.live = live
        self.rows = [r[live] for r in rows]
        self.column = {name: values[live] for name, values in columns.items()}
        self.unknown: Mask = np.isnan(self.column["amount"])

    def without(self, memory_id: str, columns: Mapping[str, Any], rows: Sequence[Indices]) -> _View:
        """The same with one decision left out."""
        return _View(columns, rows, self.live[self.column["id"] != memory_id])


class _Bucket:
    """All points, past and present, of one tenant's action type."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._rows = [_Rows(SLICES[name].stop - SLICES[name].start) for name in BLOCKS]
        self._open: dict[str, int] = {}
        self._numbers: list[list[int]] = [[], [], []]
        self._columns: dict[str, Any] = {}
        self._row_numbers: list[Indices] = []
        self._views: dict[int, _View] = {}

    def put(self, point: Point) -> None:
        """Add a point, or the same point with its end."""
        at = self._open.get(point.memory_id)
        if at is not None and self.points[at].from_version == point.from_version:
            self.points[at] = point
        else:
            at = len(self.points)
            self.points.append(point)
            for numbers, rows, name in zip(self._numbers, self._rows, BLOCKS, strict=True):
                numbers.append(rows.add(np.ascontiguousarray(point.vector[SLICES[name]])))
        if point.to_version == OPEN:
            self._open[point.memory_id] = at
        elif self._open.get(point.memory_id) == at:
            del self._open[point.memory_id]
        self._columns = {}
        self._views.clear()

    def view(self, version: int, leave_out: str | None) -> _View:
        """The points in force at a version; the last few versions asked for are kept."""
        view = self._views.get(version)
        if view is None:
            if not self._columns:
                self._columns = _columns(self.points)
                self._row_numbers = [np.array(numbers, dtype=np.int64) for numbers in self._numbers]
            if len(self._views) >= _VIEWS_KEPT:
                self._views.clear()
            live = np.flatnonzero((self._columns["from"] <= version) & (version < self._columns["to"]))
            view = self._views[version] = _View(self._columns, self._row_numbers, live)
        return view if leave_out is None else view.without(leave_out, self._columns, self._row_numbers)

    def block_dots(self, searches: Sequence[Search]) -> tuple[list[Array], list[Array | None]]:
        """Per block, products of its unique rows with all queries: (rows, searches), with and without text."""
        full: list[Array] = []
        without: list[Array | None] = []
        for name, rows in zip(BLOCKS, self._rows, strict=True):
            part = SLICES[name]
            full.append(_product(rows.matrix, [s.query.full[part] for s in searches]))
            if name == "text":
                without.append(None)
                continue
            zero = np.zeros(part.stop - part.start, dtype=np.float32)
            bare = [zero if s.query.without_text is None else s.query.without_text[part] for s in searches]
            without.append(_product(rows.matrix, bare))
        return full, without


def _product(matrix: Array, queries: Sequence[Array]) -> Array:
    """(rows, queries); a block that every query leaves empty costs nothing."""
    if not any(query.any() for query in queries):
        return np.zeros((len(matrix), len(queries)), dtype=np.float32)
    if len(queries) == 1:
        return (matrix @ queries[0])[:, np.newaxis]
    return matrix @ np.stack(queries, axis=1)


def _columns(points: Sequence[Point]) -> dict[str, Any]:
    """The points as arrays."""
    return {
        "from": np.array([p.from_version for p in points], dtype=np.int64),
        "to": np.array([p.to_version for p in points], dtype=np.int64),
        "id": np.array([p.memory_id for p in points]),
        "amount": np.array([np.nan if p.amount is None else p.amount for p in points], dtype=np.float64),
        "amountless": np.array([p.amount is None and p.comparable for p in points]),
        "failure": np.array([p.label == "failure" for p in points]),
        "success": np.array([p.label == "success" for p in points]),
        "harmful": np.array([p.meaning == "harmful" for p in points]),
        "known": np.array([p.meaning != "neutral" for p in points]),
        "fine": np.array([p.meaning == "fine" and not p.contested for p in points]),
        "denied": np.array(
            [p.verdict == "DENY" and p.label == "failure" and p.meaning == "fine" and not p.contested for p in points]
        ),
    }


class _Scored:
    """One search's scores over a bucket's points in force, and the ways to pick among them.

    The nearest of all, in order, answer most questions; a question that they don't answer whole is asked of all.
    """

    def __init__(self, bucket: _Bucket, search: Search, dots: list[Array], without: list[Array | None]) -> None:
        self.bucket, self.search, self.dots, self.without = bucket, search, dots, without
        self.view = bucket.view(search.version, search.leave_out)
        self.score: Array = dots[0][self.view.rows[0]]
        self.score += dots[1][self.view.rows[1]]
        self.score += dots[2][self.view.rows[2]]
        self.everywhere = np.arange(len(self.view.live))
        self.nearest = self.top(self.everywhere, max(search.neighbours, search.top_k))

    def best(self, holds: Mask, k: int) -> list[int]:
        """The k best places where a mask holds, by (-dot, memory_id)."""
        found = [place for place in self.nearest if holds[place]][:k]
        if len(found) == k or len(self.nearest) == len(self.everywhere):
            return found
        places = np.flatnonzero(holds)
        return found if len(places) == len(found) else self.top(places, k)

    def top(self, places: Indices, k: int, score: Array | None = None) -> list[int]:
        """The k best of some places, by (-dot, memory_id)."""
        values = (self.score if score is None else score)[places]
        if len(places) > k:
            cut = np.partition(values, len(values) - k)[len(values) - k]
            keep = values >= cut
            places, values = places[keep], values[keep]
        ids = self.view.column["id"][places]
        chosen: list[int] = places[np.lexsort((ids, -values))][:k].tolist()
        return chosen

    def harmful(self) -> Mask:
        """Harmful points past the amount gate: more money is never safer, so they count up to amount x within.

        Where an amount is not known on one side, a harmful point counts.
        """
        amount, mask = self.search.amount, self.view.column["harmful"]
        if amount is None:
            return mask  # type: ignore[no-any-return]
        with np.errstate(invalid="ignore"):
            return mask & (self.view.unknown | (self.view.column["amount"] <= amount * self.search.amount_within))  # type: ignore[no-any-return]

    def fine(self, column: str) -> Mask:
        """Fine points past the amount gate: from amount / within on; without amounts, those that have none either."""
        amount, mask = self.search.amount, self.view.column[column]
        if amount is None:
            return mask & self.view.column["amountless"] & self.search.comparable  # type: ignore[no-any-return]
        with np.errstate(invalid="ignore"):
            return mask & (self.view.column["amount"] >= amount / self.search.amount_within)  # type: ignore[no-any-return]

    def hit(self, place: int) -> Hit:
        """The point at a place, with its exact products."""
        parts = [int(d[r[place]]) for d, r in zip(self.dots, self.view.rows, strict=True)]
        return Hit(self.bucket.points[int(self.view.live[place])], sum(parts), (parts[0], parts[1], parts[2]))

    def hits(self, places: Iterable[int]) -> tuple[Hit, ...]:
        """The points at some places."""
        return tuple(self.hit(place) for place in places)


def _first(scored: _Scored, holds: Mask) -> Hit | None:
    best = scored.best(holds, 1)
    return scored.hit(best[0]) if best else None


def _softening(scored: _Scored, harmful: Hit | None) -> tuple[Hit, ...]:
    """Failed DENYs, gated and uncontested, with no harmful one nearer."""
    holds = scored.fine("denied")
    if harmful is not None:
        holds = holds & (scored.score >= harmful.dot)
    return scored.hits(scored.best(holds, _MOST_SOFTENING))


def _without_text(scored: _Scored, holds: Mask) -> Hit | None:
    places = np.flatnonzero(holds)
    if scored.search.query.without_text is None or not len(places):
        return None
    rows = scored.view.rows
    parts = [None if d is None else d[r] for d, r in zip(scored.without, rows, strict=True)]
    score = np.zeros(len(scored.everywhere), dtype=np.float32)
    for part in parts:
        if part is not None:
            score += part
    place = scored.top(places, 1, score)[0]
    dots = [0 if part is None else int(part[place]) for part in parts]
    return Hit(scored.bucket.points[int(scored.view.live[place])], sum(dots), (dots[0], dots[1], dots[2]))


def _find(scored: _Scored) -> Found:
    search, column = scored.search, scored.view.column
    gated = scored.harmful()
    harmful = _first(scored, gated)
    near = scored.best(column["known"], search.neighbours)
    return Found(
        failures=scored.hits(scored.best(column["failure"], search.top_k)),
        successes=scored.hits(scored.best(column["success"], search.top_k)),
        nearby=tuple(zip(map(int, scored.score[near]), map(bool, column["harmful"][near]), strict=True)),
        harmful=harmful,
        harmful_without_text=_without_text(scored, gated),
        fine=_first(scored, scored.fine("fine")),
        softening=_softening(scored, harmful),
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
        full, without = bucket.block_dots([searches[n] for n in numbers])
        for column, number in enumerate(numbers):
            dots = [block[:, column] for block in full]
            bare = [None if block is None else block[:, column] for block in without]
            answers[number] = _find(_Scored(bucket, searches[number], dots, bare))
