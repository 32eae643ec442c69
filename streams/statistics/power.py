"""What a run of a given size can find, and how large it must be. Normal approximations, two-sided tests.

`design_effect` is how many times larger the variance is than of independent decisions (`clusters.wideness`): n
decisions are worth n / design_effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from memory_service.nearby import wilson
from schemas.errors import UsageError
from streams.statistics.estimate import LEVEL, check_level, z_value

POWER = 0.8
"""The chance to find what is there, where none is asked for."""
_STEPS = 80


def power_of_pairs(
    n: float, difference: float, discordant: float, level: float = LEVEL, design_effect: float = 1.0
) -> float:
    """The chance that n pairs show a difference d when a share psi of pairs is discordant.

    Phi((|d| sqrt(n) - z sqrt(psi)) / sqrt(psi - d^2)). Source: Connor 1987, Biometrics 43:207 (after Miettinen 1968).
    """
    z, size = z_value(level), _size(n, design_effect)
    if not abs(difference) <= _share(discordant):
        raise UsageError(f"a difference of {difference} needs at least as many discordant pairs, not {discordant}")
    if difference == 0:
        return 1 - level
    spread = discordant - difference * difference
    distance = abs(difference) * math.sqrt(size) - z * math.sqrt(discordant)
    if spread <= 0:
        return 1.0 if distance > 0 else 0.0
    return NormalDist().cdf(distance / math.sqrt(spread))


def detectable_difference(
    n: float, discordant: float, level: float = LEVEL, power: float = POWER, design_effect: float = 1.0
) -> float | None:
    """The smallest difference that n pairs find with this power; None when even the largest possible is not found."""
    check_level(power, "power")
    if discordant == 0 or power_of_pairs(n, discordant, discordant, level, design_effect) < power:
        return None

    def found(difference: float) -> bool:
        return power_of_pairs(n, difference, discordant, level, design_effect) >= power

    return _smallest(found, 0.0, discordant)


def pairs_needed(
    difference: float, discordant: float, level: float = LEVEL, power: float = POWER, design_effect: float = 1.0
) -> int:
    """How many pairs find a difference d: (z sqrt(psi) + z_power sqrt(psi - d^2))^2 / d^2 (Connor 1987)."""
    check_level(power, "power")
    if difference == 0 or abs(difference) > _share(discordant):
        raise UsageError(f"no number of pairs finds a difference of {difference} among {discordant} discordant pairs")
    z, z_power = z_value(level), NormalDist().inv_cdf(power)
    spread = math.sqrt(max(0.0, discordant - difference * difference))
    root = z * math.sqrt(discordant) + z_power * spread
    return math.ceil(max(1.0, root * root / (difference * difference) * _effect(design_effect)))


def power_of_rates(
    n: float, rate: float, base: float, base_n: float, level: float = LEVEL, design_effect: float = 1.0
) -> float:
    """The chance that n decisions at `rate` differ visibly from `base_n` others at `base` (two independent runs).

    Phi((|d| - z s0) / s1) + Phi((-|d| - z s0) / s1), s0 pooled, s1 not. Source: Fleiss, Levin & Paik 2003, Statistical
    Methods for Rates and Proportions, chapter 4.
    """
    z = z_value(level)
    one, other = _size(n, design_effect), _size(base_n, design_effect)
    pooled = (_share(rate) * one + _share(base) * other) / (one + other)
    null = math.sqrt(pooled * (1 - pooled) * (1 / one + 1 / other))
    spread = math.sqrt(rate * (1 - rate) / one + base * (1 - base) / other)
    gap = abs(rate - base)
    if spread == 0:
        return 1.0 if gap > z * null else 0.0
    normal = NormalDist()
    return normal.cdf((gap - z * null) / spread) + normal.cdf((-gap - z * null) / spread)


def detectable_rates(
    n: float, base: float, base_n: float, level: float = LEVEL, power: float = POWER, design_effect: float = 1.0
) -> tuple[float | None, float | None]:
    """The nearest rates below and above `base` that n decisions would tell apart from it; None where there is none."""
    check_level(power, "power")

    def found(rate: float) -> bool:
        return power_of_rates(n, rate, base, base_n, level, design_effect) >= power

    lower = _smallest(lambda step: found(base - step), 0.0, base) if base > 0 and found(0.0) else None
    upper = _smallest(lambda step: found(base + step), 0.0, 1 - base) if base < 1 and found(1.0) else None
    return (None if lower is None else base - lower), (None if upper is None else base + upper)


def runs_to_see(rate: float, power: float = LEVEL, design_effect: float = 1.0) -> int:
    """How many decisions show at least one event of this rate with this chance: log(1 - power) / log(1 - rate).

    At 0.95 about 3 / rate: Hanley & Lippman-Hand 1983, JAMA 249:1743 (rule of three).
    """
    check_level(power, "power")
    if not 0 < rate < 1:
        raise UsageError(f"a rate must lie between 0 and 1, not {rate}")
    return math.ceil(math.log1p(-power) / math.log1p(-rate) * _effect(design_effect) - 1e-9)


def runs_to_know(rate: float, margin: float, level: float = LEVEL, design_effect: float = 1.0) -> int:
    """How many decisions give a Wilson interval of this rate that reaches at most `margin` from its middle."""
    z = z_value(level)
    if not 0 < margin < 1:
        raise UsageError(f"a margin must lie between 0 and 1, not {margin}")

    def known(n: float) -> bool:
        lower, upper = wilson(_share(rate), n, z)
        return (upper - lower) / 2 <= margin

    most = 1.0
    while not known(most):
        most *= 2
    return max(1, math.ceil(_smallest(known, 0.0, most) * _effect(design_effect) - 1e-6))


def _smallest(holds: Callable[[float], bool], low: float, high: float) -> float:
    """The smallest value in (low, high] for which something holds that holds from there on; it holds at `high`."""
    for _ in range(_STEPS):
        middle = (low + high) / 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _share(value: float) -> float:
    if not 0 <= value <= 1:
        raise UsageError(f"a share must lie within 0 and 1, not {value}")
    return value


def _effect(design_effect: float) -> float:
    if design_effect <= 0:
        raise UsageError(f"a design effect is positive, not {design_effect}")
    return design_effect


def _size(n: float, design_effect: float) -> float:
    if n <= 0:
        raise UsageError(f"{n} is no number of decisions")
    return n / _effect(design_effect)
