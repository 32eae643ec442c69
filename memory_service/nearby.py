"""The rate of "allowing would be wrong" near a request, with an honest interval."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.canonical import tidy

_Z = 1.959963984540054
_LEAST_EVIDENCE = 1e-9


@dataclass(frozen=True, slots=True)
class Rate:
    """A weighted rate with its 95% Wilson interval and the number of observations it is worth."""

    rate: float | None
    lower: float
    upper: float
    n_effective: float


UNKNOWN = Rate(None, 0, 1, 0)


def similarity_weight(score: float, unit: float = 1) -> float:
    """What a score weighs: at most 1, to the fourth power; nothing at 0 and below. `unit` is the score that is 1."""
    if score <= 0:
        return 0.0
    weight = score / unit if score < unit else 1.0
    weight *= weight
    return weight * weight


def weighted_rate(
    neighbours: Iterable[tuple[float, bool]], unit: float = 1, worths: Sequence[float] | None = None
) -> Rate:
    """Rate over (score, allowing was wrong) pairs; each weighs its score, at most 1, to the fourth power.

    `unit` is the score that counts as 1. `worths` are what each neighbour is worth beside that (trust times decay).

    A perfectly similar neighbour is one observation, a distant one a small part of one: the effective size is the sum
    of the weights (each at most 1, so Kish's (sum w)^2 / sum w^2 is never less). The interval is Wilson's (1927). Its
    upper end is that of harm at full weight: distrust and age make the estimate less certain, never the gate wider.
    """
    if worths:
        return _worth_less(neighbours, unit, worths)
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
    return _rounded(rate, lower, upper, total)


def _worth_less(neighbours: Iterable[tuple[float, bool]], unit: float, worths: Sequence[float]) -> Rate:
    fine = wrong = full = 0.0
    for (score, harmful), worth in zip(neighbours, worths, strict=True):
        weight = similarity_weight(score, unit)
        if harmful:
            wrong += weight * worth
            full += weight
        else:
            fine += weight * worth
    total, most = fine + wrong, fine + full
    if total < _LEAST_EVIDENCE:
        return UNKNOWN
    rate = wrong / total
    return _rounded(rate, wilson(rate, total)[0], wilson(full / most, most)[1], total)


def _rounded(rate: float, lower: float, upper: float, total: float) -> Rate:
    return Rate(*(tidy(round(value, 6)) for value in (rate, lower, upper, total)))


def wilson(rate: float, n: float, z: float = _Z) -> tuple[float, float]:
    """Score interval of a proportion from n (may be fractional) observations, 95% by default (Wilson 1927)."""
    z2 = z * z
    centre = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)
