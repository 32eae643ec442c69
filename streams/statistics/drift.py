"""Whether two runs saw the same mix of cases: Pearson's chi-squared and the population stability index, from counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy import special

from schemas.errors import BadInput

_SMALL = 5.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How far two distributions over categories differ.

    `psi_expected` is what PSI would be at its 95th percentile if nothing had changed: small runs have a large PSI by
    chance alone, which the usual limits 0.1 and 0.25 ignore.
    """

    psi: float
    psi_expected: float
    chi_squared: float
    df: int
    p_value: float
    warnings: tuple[str, ...] = ()


def drift(before: Mapping[str, int], after: Mapping[str, int]) -> Drift:
    """Compare counts by category. Raises `BadInput` when one side is empty.

    chi2 = sum (observed - expected)^2 / expected over both rows (Pearson 1900), k - 1 degrees of freedom. PSI = sum (q
    - p) ln(q / p), with half an observation added to each category (Siddiqi 2006, Credit Risk Scorecards); its chance
    level is (1/n + 1/m) times chi-squared's quantile (Yurdakul & Naranjo 2020, J. Risk Model Validation 14:89).
    """
    names = sorted(name for name in {*before, *after} if before.get(name, 0) or after.get(name, 0))
    rows = [[float(side.get(name, 0)) for name in names] for side in (before, after)]
    sizes = [sum(row) for row in rows]
    if min((count for row in rows for count in row), default=0) < 0 or min(sizes) <= 0:
        raise BadInput("both sides need counts, and none may be negative")
    df = len(names) - 1
    if df == 0:
        return Drift(0.0, 0.0, 0.0, 0, 1.0)
    chi_squared, least = 0.0, math.inf
    for index in range(len(names)):
        share = (rows[0][index] + rows[1][index]) / sum(sizes)
        for row, size in zip(rows, sizes, strict=True):
            expected = share * size
            least = min(least, expected)
            chi_squared += (row[index] - expected) ** 2 / expected
    half = 0.5 * len(names)
    shares = [[(count + 0.5) / (size + half) for count in row] for row, size in zip(rows, sizes, strict=True)]
    psi = sum((q - p) * math.log(q / p) for p, q in zip(*shares, strict=True))
    chance = float(special.chdtri(df, 0.05)) * (1 / sizes[0] + 1 / sizes[1])
    warnings = ("some categories are rare: the p-value is rough",) if least < _SMALL else ()
    return Drift(psi, chance, chi_squared, df, float(special.chdtrc(df, chi_squared)), warnings)
