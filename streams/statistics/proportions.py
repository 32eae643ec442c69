"""Intervals of one proportion from independent observations, counted or weighted."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

from memory_service.nearby import wilson
from schemas.errors import BadInput
from streams.statistics.estimate import LEVEL, Interval, check_level, z_value


def wilson_interval(successes: float, n: float, level: float = LEVEL) -> Interval:
    """The score interval: all p with |successes/n - p| <= z sqrt(p (1 - p) / n).

    Source: Wilson 1927, JASA 22:209; recommended by Brown, Cai & DasGupta 2001. Raises `BadInput`.
    """
    z = z_value(level)
    _check(successes, n)
    if n == 0:
        return nothing_known(level, "wilson")
    lower, upper = wilson(successes / n, n, z)
    return Interval(successes / n, lower, upper, level, n, n, "wilson")


def clopper_pearson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The exact interval, which covers at least at its level for every n and p, and mostly more.

    Bounds are quantiles of Beta(s, n - s + 1) and Beta(s + 1, n - s). Source: Clopper & Pearson 1934, Biometrika
    26:404.
    """
    tail = (1 - check_level(level)) / 2
    _check(successes, n)
    if n == 0:
        return nothing_known(level, "clopper-pearson")
    lower = 0.0 if successes == 0 else float(special.betaincinv(successes, n - successes + 1, tail))
    upper = 1.0 if successes == n else float(special.betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(successes / n, lower, upper, level, n, n, "clopper-pearson")


@dataclass(slots=True)
class WeightedCounts:
    """Sums over weighted yes/no observations, all that a weighted proportion needs."""

    n: int = 0
    weight: float = 0.0
    weight_of_successes: float = 0.0
    squared_weight: float = 0.0

    def add(self, success: bool, weight: float) -> None:
        """One observation; its weight is positive."""
        if not 0 < weight < float("inf"):
            raise BadInput(f"a weight must be positive and finite, not {weight}")
        self.n += 1
        self.weight += weight
        self.squared_weight += weight * weight
        if success:
            self.weight_of_successes += weight

    @property
    def n_effective(self) -> float:
        """(sum w)^2 / sum w^2, at most n. Source: Kish 1965, Survey Sampling, section 11.7."""
        return min(self.n, self.weight * self.weight / self.squared_weight) if self.n else 0.0


def weighted_interval(counts: WeightedCounts, level: float = LEVEL) -> Interval:
    """Wilson's interval of a weighted proportion at Kish's effective size."""
    z = z_value(level)
    if counts.n == 0:
        return nothing_known(level, "wilson, weighted")
    rate = min(1.0, counts.weight_of_successes / counts.weight)
    lower, upper = wilson(rate, counts.n_effective, z)
    return Interval(rate, lower, upper, level, counts.n, counts.n_effective, "wilson, weighted")


def nothing_known(level: float, method: str, lowest: float = 0.0) -> Interval:
    """The interval of a quantity in [lowest, 1] of which nothing was observed."""
    return Interval(None, lowest, 1.0, level, 0, 0, method, ("nothing was observed",))


def _check(successes: float, n: float) -> None:
    if not 0 <= successes <= n < float("inf"):
        raise BadInput(f"{successes} of {n} is no proportion")
