"""The rate of "allowing would be wrong" near a request, with an honest interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from schemas.canonical import tidy

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Rate:
    """A weighted rate with its 95% Wilson interval and the number of observations it is worth."""

    rate: float | None
    lower: float
    upper: float
    n_effective: float


UNKNOWN = Rate(None, 0, 1, 0)


def weighted_rate(neighbours: Iterable[tuple[float, bool]], unit: float = 1) -> Rate:
    """Rate over (score, allowing was wrong) pairs; each weighs its score, at most 1, to the fourth power.

    `unit` is the score that counts as 1.

    A perfectly similar neighbour is one observation, a distant one a small part of one: the effective size is the sum
    of the weights (each at most 1, so Kish's (sum w)^2 / sum w^2 is never less). The interval is Wilson's (1927).
    """
    total = wrong = 0.0
    for score, harmful in neighbours:
        if score <= 0:
            continue
        weight = score / unit if score < unit else 1.0
        weight *= weight
        weight *= weight
        total += weight
        if harmful:
            wrong += weight
    if total <= 0.0:
        return UNKNOWN
    rate = wrong / total
    lower, upper = wilson(rate, total)
    return Rate(*(tidy(round(value, 6)) for value in (rate, lower, upper, total)))


def wilson(rate: float, n: float, z: float = _Z) -> tuple[float, float]:
    """Score interval of a proportion from n (may be fractional) observations, 95% by default (Wilson 1927)."""
    z2 = z * z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
