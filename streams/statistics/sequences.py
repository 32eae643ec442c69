"""Confidence sequences: intervals that hold at every moment at once, however often one looks, and whenever one stops.

With a prior over the parameter, M_n(p) = (likelihood averaged over the prior) / likelihood(p) is a martingale that
starts at 1 when p is the truth, so P(M_n(p) >= 1 / alpha at any n) <= alpha (Ville 1939), and all p with M_n(p) < 1 /
alpha are a confidence sequence. It needs the counts so far and nothing else. Observations must be independent, given
the rate; of decisions that share subjects take `betting.RatioSequence`, one subject at a time.

Sources: Robbins 1970, Ann. Math. Statist. 41:1397; Howard, Ramdas, McAuliffe & Sekhon 2021, Ann. Statist. 49:1055;
Lindon & Malek 2022, NeurIPS 35 (counts). Jeffreys' prior, 1/2 each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from schemas.errors import BadInput
from streams.statistics.estimate import LEVEL, Interval, check_level
from streams.statistics.paired import PairedCounts
from streams.statistics.proportions import nothing_known

_PRIOR = 0.5
_STEPS = 60


def log_evidence(successes: Any, failures: Any, rate: Any) -> Any:
    """log M_n(rate): at log(1 / alpha) or more, the rate is rejected at alpha, at any time. Works on arrays.

    log B(s + 1/2, f + 1/2) / B(1/2, 1/2) - s log rate - f log(1 - rate).
    """
    mixture = special.betaln(successes + _PRIOR, failures + _PRIOR) - special.betaln(_PRIOR, _PRIOR)
    return mixture - special.xlogy(successes, rate) - special.xlog1py(failures, -np.asarray(rate, dtype=float))


def proportion_sequence(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The confidence sequence of a proportion after `n` observations: call it as often as you like, as they come."""
    threshold = -math.log(1 - check_level(level))
    method = "beta-binomial mixture, any time"
    if not 0 <= successes <= n:
        raise BadInput(f"{successes} of {n} is no proportion")
    if n == 0:
        return nothing_known(level, method)
    failures, rate = n - successes, successes / n

    def rejected(value: float) -> bool:
        return float(log_evidence(successes, failures, value)) >= threshold

    return Interval(rate, _edge(rate, 0.0, rejected), _edge(rate, 1.0, rejected), level, n, n, method)


def log_paired_evidence(plus: Any, minus: Any, zero: Any, difference: Any) -> Any:
    """log M_n of "the difference is this": the mixture over the likelihood's maximum among all that have it.

    Works on arrays. `plus` pairs favour the second, `minus` the first, `zero` neither.
    """
    counts = [np.asarray(count, dtype=float) for count in (plus, minus, zero)]
    n = counts[0] + counts[1] + counts[2]
    mixture = (
        sum(special.gammaln(count + _PRIOR) for count in counts)
        - special.gammaln(n + 3 * _PRIOR)
        - 3 * special.gammaln(_PRIOR)
        + special.gammaln(3 * _PRIOR)
    )
    gap = np.asarray(difference, dtype=float)
    # By symmetry the difference is made positive: P(favoured) = x + |gap|, P(other) = x.
    favoured = np.where(gap >= 0, counts[0], counts[1])
    other = np.where(gap >= 0, counts[1], counts[0])
    gap = np.abs(gap)
    # The root of the derivative of favoured log(x + gap) + other log x + zero log(1 - gap - 2 x).
    linear = (favoured + other) * (1 - gap) - 2 * gap * (other + counts[2])
    root = np.sqrt(linear**2 + 8 * n * other * gap * (1 - gap))
    x = np.clip((linear + root) / (4 * np.maximum(n, 1)), 0, (1 - gap) / 2)
    largest = (
        special.xlogy(favoured, x + gap)
        + special.xlogy(other, x)
        + special.xlogy(counts[2], np.maximum(1 - gap - 2 * x, 0))
    )
    return mixture - largest


def difference_sequence(counts: PairedCounts, level: float = LEVEL) -> Interval:
    """The confidence sequence of P(second right) - P(first right), from the pairs counted so far."""
    threshold = -math.log(1 - check_level(level))
    method = "dirichlet-multinomial mixture, any time"
    n = counts.n
    if n == 0:
        return nothing_known(level, method, lowest=-1.0)
    zero = n - counts.discordant
    difference = (counts.second_only - counts.first_only) / n

    def rejected(value: float) -> bool:
        evidence = log_paired_evidence(counts.second_only, counts.first_only, zero, value)
        return float(evidence) >= threshold

    lower, upper = _edge(difference, -1.0, rejected), _edge(difference, 1.0, rejected)
    return Interval(difference, lower, upper, level, n, n, method)


def _edge(inside: float, end: float, rejected: Callable[[float], bool]) -> float:
    """Where rejection begins between the estimate and an end: the evidence only grows on the way."""
    if inside == end or not rejected(end):
        return end
    outside = end
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if rejected(middle):
            outside = middle
        else:
            inside = middle
    return outside
