"""A confidence sequence by betting, for watched runs whose decisions share subjects: one subject (cluster) at a time.

Against every possible value m a bettor stakes on what the next cluster's y_g - m n_g will be. If m is the truth the
game is fair, and the capital ever reaches 1 / alpha with probability at most alpha (Ville 1939); all m against which
it has not are the interval. It assumes only that each cluster's expected y_g is m times its expected n_g, whatever
came before, and that n_g is at most a number known beforehand: no model of what happens within a cluster, no
normality.

Source: Waudby-Smith & Ramdas 2024, JRSS B 86:1, section 4 (hedged capital, predictable plug-in bets); here the mean of
a bounded variable is generalised to a ratio of sums.
"""

from __future__ import annotations

import math

import numpy as np

from schemas.errors import BadInput
from streams.statistics.cluster_sums import Floats
from streams.statistics.estimate import LEVEL, Interval, check_level
from streams.statistics.proportions import nothing_known

_TRUNCATION = 0.75
_GRID = 1001


class RatioSequence:
    """The confidence sequence of sum y_g / sum n_g, fed cluster by cluster, each once it is whole.

    `lowest` is 0 for a proportion, -1 for a paired difference (values -1, 0, 1); the highest value is 1. `largest` is
    the most observations a cluster may have, 1 where decisions are independent. Its state is a few arrays over `grid`,
    the values of m that are tried.

    Clusters must be fed in the order in which they are finished, and the order must not depend on how they came out.
    """

    def __init__(
        self,
        level: float = LEVEL,
        *,
        lowest: float = 0.0,
        largest: int = 1,
        grid: Floats | None = None,
    ) -> None:
        if largest < 1 or lowest not in (0.0, -1.0):
            raise BadInput("a cluster has at least one observation, and values begin at 0 or -1")
        self._log_threshold = -math.log(1 - check_level(level))
        self._level, self._lowest, self._largest = level, lowest, largest
        self.grid = np.linspace(lowest, 1.0, _GRID) if grid is None else grid
        # Half of the capital bets that the truth is above m, half that it is below.
        self._log_above = np.full(len(self.grid), math.log(0.5))
        self._log_below = self._log_above.copy()
        with np.errstate(divide="ignore"):
            self._most_above = _TRUNCATION / (self.grid - lowest)
            self._most_below = _TRUNCATION / (1.0 - self.grid)
        self._clusters = 0
        self._n = 0
        self._total = 0.0
        self._squares = ((1.0 - lowest) / 2) ** 2

    def add(self, n: int, total: float) -> None:
        """One whole cluster: `n` observations with this total. Raises `BadInput` when it can't be such a cluster."""
        if not 0 < n <= self._largest:
            raise BadInput(
                f"a cluster of {n} observations, where at most {self._largest} were declared",
                help="declare the largest cluster before the first observation",
            )
        if not self._lowest * n <= total <= n:
            raise BadInput(f"{n} observations can't have the total {total}")
        bet = self._next_bet()
        z = (total - self.grid * n) / self._largest
        self._log_above += np.log1p(np.minimum(bet, self._most_above) * z)
        self._log_below += np.log1p(-np.minimum(bet, self._most_below) * z)
        self._clusters += 1
        self._n += n
        self._total += total
        self._squares += ((total - self._guess() * n) / self._largest) ** 2

    def _next_bet(self) -> float:
        """sqrt(2 log(2 / alpha) / (variance t log(1 + t))), from what was seen before: it can't know what comes."""
        t = self._clusters + 1
        variance = self._squares / t
        return math.sqrt(2 * (self._log_threshold + math.log(2)) / (variance * t * math.log(1 + t)))

    def _guess(self) -> float:
        """The ratio so far, drawn to the middle by one observation."""
        return ((1.0 + self._lowest) / 2 + self._total) / (self._n + 1)

    def log_capital(self) -> Floats:
        """log of the capital against each m of the grid; at log(1 / alpha) or more, m is rejected, at any time."""
        capital: Floats = np.maximum(self._log_above, self._log_below)
        return capital

    def interval(self) -> Interval:
        """The interval now. Its ends are the nearest rejected values of the grid, so it is at most a step too wide."""
        method = "betting, any time"
        if self._n == 0:
            return nothing_known(self._level, method, lowest=self._lowest)
        estimate = self._total / self._n
        kept = np.flatnonzero(self.log_capital() < self._log_threshold)
        if len(kept):
            first, last = max(int(kept[0]) - 1, 0), min(int(kept[-1]) + 1, len(self.grid) - 1)
            lower, upper = float(self.grid[first]), float(self.grid[last])
        else:  # between two values of the grid
            lower = upper = estimate
        lower, upper = min(lower, estimate), max(upper, estimate)
        return Interval(estimate, lower, upper, self._level, self._n, self._clusters, method)
