"""Whether two independent groups differ in a rate, and how strongly a category goes with one of them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from scipy import special

from schemas.errors import BadInput
from streams.statistics.drift import drift
from streams.statistics.estimate import Test

_TIES = 1e-9


def fisher(first: tuple[int, int], second: tuple[int, int]) -> Test:
    """Fisher's exact test of two rates, each (events, observations); two-sided: all tables that are no likelier.

    Source: Fisher 1935, J. Royal Statist. Soc. 98:39. Raises `BadInput`.
    """
    (a, n), (b, m) = first, second
    if not (0 <= a <= n and 0 <= b <= m):
        raise BadInput(f"{a} of {n} and {b} of {m} are no rates")
    events = a + b
    counts = np.arange(max(0, events - m), min(events, n) + 1, dtype=float)
    log_p = _log_choose(n, counts) + _log_choose(m, events - counts) - _log_choose(n + m, np.float64(events))
    own = log_p[int(a - counts[0])]
    p = float(np.exp(log_p[log_p <= own + _TIES]).sum())
    return Test(min(1.0, p), None, "fisher, exact")


def association(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """How well a category tells two groups apart, from counts by category: 0 not at all, 1 wholly. Raises `BadInput`.

    Cramer's V with its bias taken out, so that many categories in few observations do not look telling. Source:
    Bergsma 2013, J. Korean Statist. Soc. 42:323.
    """
    found = drift(first, second)
    n, k = sum(first.values()) + sum(second.values()), found.df + 1
    if n < 2 or k < 2:
        return 0.0
    phi = max(0.0, found.chi_squared / n - (k - 1) / (n - 1))
    smaller = min(k - (k - 1) ** 2 / (n - 1), 2 - 1 / (n - 1)) - 1
    return min(1.0, math.sqrt(phi / smaller)) if smaller > 0 else 0.0


def _log_choose(n: int, k: np.ndarray | np.float64) -> np.ndarray:
    result: np.ndarray = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return result
