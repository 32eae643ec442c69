"""What a label is worth when it is asked for: the trust in its labeller, halved with each half-life of its age.

Ages are whole milliseconds of log time. The arithmetic is plain IEEE 754 additions, products and quotients, in one
order, so that every store and every machine gets the same number to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from decimal import Decimal, localcontext
from functools import lru_cache

from schemas.label import FULL_TRUST

LEAST_WORTH = 0.5
"""What a fine label must be worth to support or to soften."""
LEAST_TRUST = FULL_TRUST // 2

_LN2 = 0.6931471805599453
_TERMS = 20


def _coefficients() -> tuple[float, ...]:
    """Of the series of 2^-x, the highest power first; 20 terms are exact to the last place for x in 0..1."""
    terms, term = [1.0], 1.0
    for power in range(1, _TERMS):
        term *= -_LN2 / power
        terms.append(term)
    return tuple(reversed(terms))


_SERIES = _coefficients()


@lru_cache(maxsize=65536)
def decay(age_ms: int, half_life_ms: int) -> float:
    """0.5 ^ (age / half-life): 1 at age 0 and below, exactly a half at each further half-life."""
    halvings, rest = divmod(max(0, age_ms), half_life_ms)
    fraction, value = rest / half_life_ms, 0.0
    for coefficient in _SERIES:
        value = value * fraction + coefficient
    return math.ldexp(value, -halvings)


def worth(trust: int, age_ms: int, half_life_ms: int | None) -> float:
    """Trust (hundredths) times decay, 0 to 1; without a half-life nothing decays."""
    share = trust / FULL_TRUST
    return share if half_life_ms is None else share * decay(age_ms, half_life_ms)


def worths(trusts_and_ages: Iterable[tuple[int, int]], half_life_ms: int | None) -> tuple[float, ...]:
    """The worth of each of some labels; empty where each is worth 1."""
    found = tuple(worth(trust, age_ms, half_life_ms) for trust, age_ms in trusts_and_ages)
    return found if any(one < 1 for one in found) else ()


@lru_cache(maxsize=4096)
def oldest_that_counts(trust: int, half_life_ms: int) -> int:
    """The age in milliseconds up to which a label of that trust (a half at least) is worth a half: a whole number,
    which every store compares alike."""
    with localcontext() as context:
        context.prec = 40
        halvings = (Decimal(trust) / LEAST_TRUST).ln() / Decimal(2).ln()
        return int(halvings * half_life_ms + Decimal("1e-20"))
