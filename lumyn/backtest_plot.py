"""The geometry of a report's plots: numbers only, so that nothing recorded can become part of a drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from schemas.verdict import SEVERITY, VERDICTS

WIDTH, HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 10, 10, 24


@dataclass(frozen=True, slots=True)
class Curve:
    """A rate over time: points of a line, the polygon of its interval, ticks, and where policies were released."""

    line: str
    band: str
    dots: tuple[tuple[float, float], ...]
    ticks: tuple[tuple[float, str], ...]
    """(y, label)"""
    marks: tuple[tuple[float, int], ...]
    """(x, number of the release)"""
    second: str = ""
    """Another line to compare with."""


def flips_curve(time: Mapping[str, Any]) -> Curve:
    """The share of flips over time with its interval."""
    points = time["points"]
    most = max((point["flips"]["upper"] for point in points if point["flips"]["rate"] is not None), default=0.0)
    scale = _Scale(points, time["hours"], _nice(most))
    line = [(scale.x(n), scale.y(point["flips"]["rate"])) for n, point in enumerate(points)]
    upper = [(scale.x(n), scale.y(point["flips"]["upper"])) for n, point in enumerate(points)]
    lower = [(scale.x(n), scale.y(point["flips"]["lower"])) for n, point in enumerate(points)]
    return Curve(_path(line), _path([*upper, *lower[::-1]]), tuple(line), scale.ticks(), scale.marks(time["releases"]))


def verdict_curve(time: Mapping[str, Any], verdict: str) -> Curve:
    """The share of a verdict over time: the candidate's, and as `second` the recorded one."""
    points = time["points"]
    rates = [point[side][verdict] or 0.0 for point in points for side in ("before", "after")]
    scale = _Scale(points, time["hours"], _nice(max(rates, default=0.0)))
    after = [(scale.x(n), scale.y(point["after"][verdict])) for n, point in enumerate(points)]
    before = [(scale.x(n), scale.y(point["before"][verdict])) for n, point in enumerate(points)]
    return Curve(_path(after), "", tuple(after), scale.ticks(), scale.marks(time["releases"]), _path(before))


class _Scale:
    def __init__(self, points: Sequence[Mapping[str, Any]], hours: int, most: float) -> None:
        from schemas.ids import time_ms_of

        self._times = [time_ms_of(point["at"]) for point in points]
        self._each = max(1, hours) * 3_600_000
        self._most = most

    def x(self, number: int) -> float:
        return self._at(self._times[number] + self._each / 2)

    def _at(self, ms: float) -> float:
        span = self._times[-1] + self._each - self._times[0]
        return round(_LEFT + (WIDTH - _LEFT - _RIGHT) * (ms - self._times[0]) / span, 1)

    def y(self, rate: float | None) -> float:
        share = min(1.0, (rate or 0.0) / self._most)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        return tuple((self.y(self._most * part), f"{self._most * part:.3g}".rstrip(".")) for part in (0, 0.5, 1))

    def marks(self, releases: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, int], ...]:
        from schemas.ids import time_ms_of

        if not self._times:
            return ()
        low, high = self._times[0], self._times[-1] + self._each
        placed = ((number, time_ms_of(release["at"])) for number, release in enumerate(releases, start=1))
        return tuple((self._at(ms), number) for number, ms in placed if low <= ms <= high)


def _nice(most: float) -> float:
    """The next of 0.1%, 0.2%, 0.5%, 1%, ... 100%."""
    for tenth in (0.001, 0.01, 0.1, 1.0):
        for step in (0.1, 0.2, 0.5, 1):
            if most <= tenth * step * 10 and tenth * step * 10 <= 1:
                return tenth * step * 10
    return 1.0


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def matrix_cells(cells: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """The verdicts used, and by old verdict the cells: count, share of the row, side of its square, and direction."""
    used: list[str] = [v for v in VERDICTS if any(v in (cell["old"], cell["new"]) for cell in cells)]
    counts = {(cell["old"], cell["new"]): cell["count"] for cell in cells}
    rows = []
    for old in used:
        whole = sum(counts.get((old, new), 0) for new in used)
        row = []
        for new in used:
            count = counts.get((old, new), 0)
            share = count / whole if whole else 0.0
            way = (SEVERITY[new] > SEVERITY[old]) - (SEVERITY[new] < SEVERITY[old])
            row.append({"count": count, "share": share, "side": round(40 * sqrt(share), 1), "way": way})
        rows.append(row)
    return used, rows


def bar(figure: Mapping[str, Any]) -> tuple[float, float, float]:
    """Where an interval begins and ends, and its estimate, in per cent of the width."""
    return tuple(round(100 * (figure[name] or 0.0), 2) for name in ("lower", "upper", "rate"))  # type: ignore[return-value]
