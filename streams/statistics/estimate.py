"""What every estimate says: a value with its interval, or a test with its p-value, and what to be careful about."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

from scipy import special

from schemas.errors import UsageError

LEVEL = 0.95
"""The confidence level used where none is asked for."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval.

    `estimate` is None where nothing was observed; the interval is then all that is possible. `n` counts observations,
    `n_effective` the independent ones that they are worth. `warnings` are sentences for a reader.
    """

    estimate: float | None
    lower: float
    upper: float
    level: float
    n: float
    n_effective: float
    method: str
    warnings: tuple[str, ...] = ()

    def excludes(self, value: float) -> bool:
        """Whether a value lies outside: at this level the data speak against it."""
        return not self.lower <= value <= self.upper


@dataclass(frozen=True, slots=True)
class Test:
    """A two-sided test of "no difference". `statistic` is None for exact tests."""

    __test__ = False  # pytest, too, collects what is called Test

    p_value: float
    statistic: float | None
    method: str
    warnings: tuple[str, ...] = ()


def check_level(level: float, what: str = "confidence level") -> float:
    """A number strictly between 0 and 1. Raises `UsageError`."""
    if not 0 < level < 1:
        raise UsageError(f"the {what} must lie between 0 and 1, not {level}", help="0.95 is the usual one")
    return level


def z_value(level: float) -> float:
    """The two-sided critical value of the normal distribution: 1.96 at 0.95."""
    return NormalDist().inv_cdf((1 + check_level(level)) / 2)


def t_value(level: float, df: float) -> float:
    """The two-sided critical value of Student's t; `df` may be fractional."""
    return float(special.stdtrit(df, (1 + check_level(level)) / 2))
