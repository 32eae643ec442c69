"""The exact in-process index: every point of a tenant's action type in memory, searched without approximation.

Block vectors repeat (the same intent, the same set of categories), so each block keeps its unique rows once and a
point names its three rows: fewer products, the same exact integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from memory_service.blocks import BLOCKS, SLICES, Array
from memory_service.point import OPEN, Hit, Point
from memory_service.store import Found, Search

_GROUP = 64
_MOST_SOFTENING = 16
Indices = npt.NDArray[np.int64]


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


class _Bucket:
    """All points, past and present, of one tenant's action type."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._rows = [_Rows(SLICES[name].stop - SLICES[name].start) for name in BLOCKS]
        self._open: dict[str, int] = {}
        self._numbers: list[list[int]] = [[], [], []]
        self._frozen: dict[str, Any] = {}

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
        self._frozen.clear()

    def columns(self) -> dict[str, Any]:
        """The points as arrays, made once after a change."""
        if not self._frozen:
            points = self.points
            self._frozen = {
                "from": np.array([p.from_version for p in points], dtype=np.int64),
                "to": np.array([p.to_version for p in points], dtype=np.int64),
                "id": np.array([p.memory_id for p in points]),
                "amount": np.array([np.nan if p.amount is None else p.amount for p in points], dtype=np.float64),
                "failure": np.array([p.label == "failure" for p in points]),
                "success": np.array([p.label == "success" for p in points]),
                "harmful": np.array([p.meaning == "harmful" for p in points]),
                "neutral": np.array([p.meaning == "neutral" for p in points]),
                "fine": np.array([p.meaning == "fine" and not p.contested for p in points]),
                "denied": np.array([p.verdict == "DENY" and p.label == "failure" for p in points]),
                "rows": [np.array(numbers, dtype=np.int64) for numbers in self._numbers],
                "live": {},
            }
        return self._frozen

    def live(self, version: int) -> Indices:
        """Indices of the points in force at a version; the last few versions asked for are kept."""
        columns = self.columns()
        cache: dict[int, Indices] = columns["live"]
        if version not in cache:
            if len(cache) >= 4:
                cache.clear()
            cache[version] = np.flatnonzero((columns["from"] <= version) & (version < columns["to"]))
        return cache[version]

    def block_dots(self, searches: Sequence[Search]) -> tuple[list[Array], list[Array | None]]:
        """Per block, products of its unique rows with all queries: (rows, searches), with and without text."""
        full: list[Array] = []
        without: list[Array | None] = []
        for name, rows in zip(BLOCKS, self._rows, strict=True):
            part = SLICES[name]
            full.append(rows.matrix @ np.stack([s.query.full[part] for s in searches], axis=1))
            if name == "text":
                without.append(None)
                continue
            zero = np.zeros(part.stop - part.start, dtype=np.float32)
            columns = [zero if s.query.without_text is None else s.query.without_text[part] for s in searches]
            without.append(rows.matrix @ np.stack(columns, axis=1))
        return full, without


class _Scored:
    """One search's scores over a bucket's live points, and the ways to pick among them."""

    def __init__(self, bucket: _Bucket, search: Search, dots: list[Array], without: list[Array | None]) -> None:
        self.bucket, self.search, self.dots, self.without = bucket, search, dots, without
        self.columns = columns = bucket.columns()
        live = bucket.live(search.version)
        if search.leave_out is not None:
            live = live[columns["id"][live] != search.leave_out]
        self.live = live
        self.score = sum(d[r[live]] for d, r in zip(dots, columns["rows"], strict=True))

    def among(self, column: str, gate: bool = False) -> Indices:
        """Places in `live` where a column holds, past the amount gate if asked."""
        holds = self.columns[column][self.live]
        if gate:
            holds = holds & self._gate(harmful=column == "harmful")
        return np.flatnonzero(holds)

    def _gate(self, *, harmful: bool) -> npt.NDArray[np.bool_]:
        """More money is never safer: a harmful point counts up to amount x within, a fine one from amount / within.

        Without an amount on one side a harmful one counts and a fine one doesn't; on neither side both count.
        """
        amounts = self.columns["amount"][self.live]
        unknown: npt.NDArray[np.bool_] = np.isnan(amounts)
        amount = self.search.amount
        if amount is None:
            return np.ones(len(amounts), dtype=bool) if harmful else unknown
        with np.errstate(invalid="ignore"):
            if harmful:
                little: npt.NDArray[np.bool_] = amounts <= amount * self.search.amount_within
                return unknown | little
            enough: npt.NDArray[np.bool_] = amounts >= amount / self.search.amount_within
            return ~unknown & enough

    def top(self, places: Indices, k: int, score: Array | None = None) -> list[int]:
        """The k best places, by (-dot, memory_id)."""
        values = (self.score if score is None else score)[places]
        if len(places) > k:
            cut = np.partition(values, len(values) - k)[len(values) - k]
            keep = values >= cut
            places, values = places[keep], values[keep]
        ids = self.columns["id"][self.live[places]]
        return [int(p) for p in places[np.lexsort((ids, -values))][:k]]

    def hit(self, place: int) -> Hit:
        index = int(self.live[place])
        parts = [int(d[r[index]]) for d, r in zip(self.dots, self.columns["rows"], strict=True)]
        return Hit(self.bucket.points[index], sum(parts), (parts[0], parts[1], parts[2]))

    def hits(self, places: Iterable[int]) -> tuple[Hit, ...]:
        return tuple(self.hit(place) for place in places)


def _first(scored: _Scored, places: Indices) -> Hit | None:
    best = scored.top(places, 1)
    return scored.hit(best[0]) if best else None


def _softening(scored: _Scored, harmful: Hit | None) -> tuple[Hit, ...]:
    """Failed DENYs, gated and uncontested, with no harmful one nearer."""
    places = np.intersect1d(scored.among("denied"), scored.among("fine", gate=True), assume_unique=True)
    if harmful is not None and len(places):
        places = places[scored.score[places] >= harmful.dot]
    return scored.hits(scored.top(places, _MOST_SOFTENING))


def _without_text(scored: _Scored, places: Indices) -> Hit | None:
    if scored.search.query.without_text is None or not len(places):
        return None
    rows = scored.columns["rows"]
    parts = [None if d is None else d[r[scored.live]] for d, r in zip(scored.without, rows, strict=True)]
    score = sum(part for part in parts if part is not None)
    place = scored.top(places, 1, score)[0]
    dots = [0 if part is None else int(part[place]) for part in parts]
    return Hit(scored.bucket.points[int(scored.live[place])], sum(dots), (dots[0], dots[1], dots[2]))


def _find(scored: _Scored) -> Found:
    search = scored.search
    harmful_places = scored.among("harmful", gate=True)
    harmful = _first(scored, harmful_places)
    return Found(
        failures=scored.hits(scored.top(scored.among("failure"), search.top_k)),
        successes=scored.hits(scored.top(scored.among("success"), search.top_k)),
        nearby=scored.hits(scored.top(np.flatnonzero(~scored.columns["neutral"][scored.live]), search.neighbours)),
        harmful=harmful,
        harmful_without_text=_without_text(scored, harmful_places),
        fine=_first(scored, scored.among("fine", gate=True)),
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
