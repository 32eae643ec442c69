"""The interval at a figure: cluster-robust where groups were counted, else Wilson's at the design effect of the flips.

Decisions of one subject are alike. Flips, and what was caught or let pass, are counted by group of subjects
(`groups.py`), so their intervals are those of `streams.statistics.clusters`. For other figures, and for slices, the
effective size (Kish's, where a sample is weighted) is divided by the design effect that the flips show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.verdict import VERDICTS
from streams.backtest.groups import GroupCounts
from streams.backtest.measures import MEASURES, Measure, Value, Weights, as_counts, measured
from streams.backtest.tally import Tally
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import cluster_proportion, robust
from streams.statistics.estimate import Interval
from streams.statistics.proportions import WeightedCounts, nothing_known, wilson_interval

Parts = Iterable[tuple[str, int]]
"""Headings, and whether they are added (1) or taken away (-1)."""

_RIGHT = {"failures_caught": "harmful", "fine_allowed": "fine"}
_WRONG = {"failures_allowed": "harmful", "fine_stopped": "fine"}


@dataclass(frozen=True, slots=True)
class Intervals:
    """Makes the figures of one candidate."""

    tally: Tally
    weights: Weights
    design_effect: float

    def measure(self, name: str, *, baseline: bool = False) -> dict[str, Any]:
        """A measure as the report holds it."""
        value = measured(MEASURES[name], self.tally, self.weights, baseline=baseline)
        sums = self._sums(MEASURES[name], baseline)
        return told(value, self._plain(value) if sums is None else cluster_proportion(sums))

    def of(self, value: Value) -> dict[str, Any]:
        """Any other share: of a rule, a slice, a stretch of time."""
        return told(value, self._plain(value))

    def _plain(self, value: Value) -> Interval:
        return _plain(value, self.design_effect)

    def _sums(self, measure: Measure, baseline: bool) -> ClusterSums | None:
        """Sums by group; None for a measure that is not counted so."""
        groups, weights, name = self.tally.groups, self.weights, measure.name
        now = [] if baseline else [1]
        if name in _RIGHT or name in _WRONG:
            what = _RIGHT.get(name) or _WRONG[name]
            right = _right(what, now)
            parts = right if name in _RIGHT else [(what, 1), *((heading, -sign) for heading, sign in right)]
            return sums_of(groups, parts, (what,), weights)
        if name == "accuracy":
            return sums_of(groups, [*_right("harmful", now), *_right("fine", now)], ("harmful", "fine"), weights)
        if baseline or not name.startswith("flips"):
            return None
        source, _, target = name.removeprefix("flips").removeprefix(".").partition("to_")
        only = source.removeprefix("from_").rstrip("_") or None
        return sums_of(groups, [(f"to_{target}" if target else "flips", 1)], ("compared",), weights, only)


def _right(what: str, now: list[int]) -> list[tuple[str, int]]:
    """What was right as recorded; for the candidate with what it gains and without what it loses."""
    return [(f"{what}_right", 1), *((f"{what}_gained", 1) for _ in now), *((f"{what}_lost", -1) for _ in now)]


def sums_of(
    groups: GroupCounts, parts: Parts, wholes: Iterable[str], weights: Weights, only: str | None = None
) -> ClusterSums:
    """Of each group: how many there are, and how many count; `only` those of one recorded verdict count."""
    sums, parts = ClusterSums(), list(parts)
    for verdict in VERDICTS:
        whole: Counter[int] = Counter()
        for heading in wholes:
            whole.update(groups.counts(heading, verdict))
        part: Counter[int] = Counter()
        for heading, sign in parts if only in (None, verdict) else ():
            for group, number in groups.counts(heading, verdict).items():
                part[group] += sign * number
        weight = 1.0 if weights is None else weights.get(verdict, 1.0)
        for group, number in sorted(whole.items()):
            if number > 0:
                sums.add_many(str(group), number, part[group], weight=weight)
    return sums


def intervals(tally: Tally, weights: Weights) -> Intervals:
    """With the design effect that the flips show: never below 1, as nothing is gained from alike decisions."""
    sums = sums_of(tally.groups, [("flips", 1)], ("compared",), weights)
    effect = None
    if sums.totals.n:
        found = robust(sums)
        effect = found.design_effect
    return Intervals(tally, weights, max(1.0, effect or 1.0))


def _plain(value: Value, design_effect: float) -> Interval:
    counts = WeightedCounts()
    for verdict, (part, whole) in value.strata.items():
        weight = 1.0 if value.weights is None else value.weights.get(verdict, 1.0)
        counts.n += whole
        counts.weight += weight * whole
        counts.weight_of_successes += weight * part
        counts.squared_weight += weight * weight * whole
    if not counts.n:
        return nothing_known(0.95, "wilson")
    n = counts.n_effective / design_effect
    return wilson_interval(min(1.0, counts.weight_of_successes / counts.weight) * n, n)


def told(value: Value, interval: Interval) -> dict[str, Any]:
    """A value with its interval, in JSON's form."""
    return as_counts(value) | {
        "lower": interval.lower,
        "upper": interval.upper,
        "n_effective": round(interval.n_effective, 1),
        "method": interval.method,
        "warnings": list(interval.warnings),
    }


def as_dict(interval: Interval) -> Mapping[str, Any]:
    """An interval of its own."""
    return {
        "estimate": interval.estimate,
        "lower": interval.lower,
        "upper": interval.upper,
        "n": interval.n,
        "n_effective": round(interval.n_effective, 1),
        "method": interval.method,
        "warnings": list(interval.warnings),
    }
