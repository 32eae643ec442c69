"""Two verdicts on the same decisions: McNemar's test and Newcombe's interval of the difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from scipy import special

from memory_service.nearby import wilson
from schemas.errors import BadInput
from streams.statistics.estimate import LEVEL, Interval, Test, z_value
from streams.statistics.proportions import nothing_known

EXACT_BELOW = 25
"""Discordant pairs below which only the exact test is used (Dixon & Massey; statsmodels and SAS likewise)."""

Method = Literal["auto", "exact", "mid-p", "chi2"]


@dataclass(frozen=True, slots=True)
class PairedCounts:
    """How two ways to decide did on the same labelled decisions: each right (1) or not (0)."""

    both: int = 0
    first_only: int = 0
    second_only: int = 0
    neither: int = 0

    def __post_init__(self) -> None:
        if min(self.both, self.first_only, self.second_only, self.neither) < 0:
            raise BadInput("counts of pairs can't be negative")

    @property
    def n(self) -> int:
        """All pairs."""
        return self.both + self.first_only + self.second_only + self.neither

    @property
    def discordant(self) -> int:
        """Pairs in which the two differ: the only ones that say which is better."""
        return self.first_only + self.second_only

    def __add__(self, other: PairedCounts) -> PairedCounts:
        return PairedCounts(
            self.both + other.both,
            self.first_only + other.first_only,
            self.second_only + other.second_only,
            self.neither + other.neither,
        )


def mcnemar(counts: PairedCounts, method: Method = "auto") -> Test:
    """Whether one of two is right more often, from the discordant pairs b and c alone.

    `exact`: 2 P(X <= min(b, c)), X binomial(b + c, 1/2). `mid-p`: that less P(X = min(b, c)). `chi2`: (|b - c| - 1)^2 /
    (b + c), one degree of freedom. `auto` is exact below 25 discordant pairs, else mid-p, which keeps its level and
    finds more. Independent pairs only: decisions that share a subject go to `clusters.difference_test`.

    Sources: McNemar 1947, Psychometrika 12:153; Edwards 1948 (continuity); Fagerland, Lydersen & Laake 2013, BMC Med.
    Res. Methodol. 13:91 (mid-p).
    """
    n, least = counts.discordant, min(counts.first_only, counts.second_only)
    if method == "auto":
        method = "exact" if n < EXACT_BELOW else "mid-p"
    if n == 0:
        return Test(1.0, None, f"mcnemar, {method}", ("the two never differ",))
    if method == "chi2":
        gap = abs(counts.first_only - counts.second_only)
        statistic = (gap - 1) ** 2 / n if gap else 0.0
        return Test(float(special.chdtrc(1, statistic)), statistic, "mcnemar, chi2 with continuity correction")
    p_value = 2 * float(special.bdtr(least, n, 0.5))
    if method == "mid-p":
        log_point = math.lgamma(n + 1) - math.lgamma(least + 1) - math.lgamma(n - least + 1) - n * math.log(2)
        # Where b = c, twice the lower tail holds the middle twice, of which mid-p counts it once.
        p_value -= math.exp(log_point)
    return Test(min(1.0, p_value), None, f"mcnemar, {method}")


def paired_difference(counts: PairedCounts, level: float = LEVEL) -> Interval:
    """Interval of P(second right) - P(first right), from independent pairs.

    Square-and-add of Wilson's limits with the correlation phi of the pairs. Source: Newcombe 1998, Statistics in
    Medicine 17:2635, method 10.
    """
    return newcombe(counts, counts.n, z_value(level), level, "newcombe, paired")


def newcombe(counts: PairedCounts, n_effective: float, critical: float, level: float, method: str) -> Interval:
    """Newcombe's interval when the pairs are worth `n_effective` independent ones, at a given critical value."""
    n = counts.n
    if n == 0:
        return nothing_known(level, method, lowest=-1.0)
    first, second = (counts.both + counts.first_only) / n, (counts.both + counts.second_only) / n
    difference = second - first
    low_1, high_1 = wilson(first, n_effective, critical)
    low_2, high_2 = wilson(second, n_effective, critical)
    phi = _phi(counts)
    below = _root(second - low_2, high_1 - first, phi)
    above = _root(high_2 - second, first - low_1, phi)
    lower, upper = max(-1.0, difference - below), min(1.0, difference + above)
    return Interval(difference, lower, upper, level, n, n_effective, method)


def _root(one: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def _phi(counts: PairedCounts) -> float:
    """The correlation within pairs, with Newcombe's continuity correction where it is positive."""
    a, b, c, d = counts.both, counts.first_only, counts.second_only, counts.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if margins == 0:
        return 0.0
    excess = float(a * d - b * c)
    if excess > 0:
        excess = max(excess - counts.n / 2, 0.0)
    return excess / math.sqrt(margins)
