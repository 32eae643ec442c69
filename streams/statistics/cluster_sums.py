"""Sums per cluster, in bounded memory: all that cluster-robust statistics need of any number of decisions."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schemas.errors import BadInput

MOST_CLUSTERS = 4096
"""Beyond these, clusters are put together into as many buckets."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all observations, for what would hold if they were independent."""

    n: int
    weight: float
    value: float
    squared_weight: float
    squared_weight_value: float
    squared_weight_squared_value: float


class ClusterSums:
    """The weight and the weighted value of each cluster (a subject, a task, a conversation).

    Beyond `most` clusters they are folded by a stable hash into `most` buckets. A bucket holds whole clusters, so
    buckets are as independent as clusters were: intervals stay honest, and lose next to nothing (the variance has
    `most` - 1 degrees of freedom left). The result does not depend on the order in which observations come.
    """

    __slots__ = ("_buckets", "_clusters", "_most", "_n", "_squared", "_squared_value", "_squared_value_squared")

    def __init__(self, most: int = MOST_CLUSTERS) -> None:
        self._most = most
        self._clusters: dict[str, list[float]] = {}
        self._buckets: list[list[float]] | None = None
        self._n = 0
        self._squared = self._squared_value = self._squared_value_squared = 0.0

    @property
    def folded(self) -> bool:
        """Whether there were more clusters than are kept apart."""
        return self._buckets is not None

    def add(self, cluster: str, value: float, weight: float = 1.0) -> None:
        """One observation. `value` is 0 or 1 for a proportion, -1, 0 or 1 for a paired difference."""
        if not 0 < weight < float("inf"):
            raise BadInput(f"a weight must be positive and finite, not {weight}")
        squared = weight * weight
        self._n += 1
        self._squared += squared
        self._squared_value += squared * value
        self._squared_value_squared += squared * value * value
        self._put(cluster, weight, weight * value)

    def add_many(
        self, cluster: str, n: int, total: float, squares: float | None = None, weight: float = 1.0
    ) -> None:
        """`n` observations of one weight with this `total`; `squares` is that of their squares (0/1: the total)."""
        if n <= 0:
            raise BadInput(f"{n} is no number of observations")
        if not 0 < weight < float("inf"):
            raise BadInput(f"a weight must be positive and finite, not {weight}")
        squared = weight * weight
        self._n += n
        self._squared += squared * n
        self._squared_value += squared * total
        self._squared_value_squared += squared * (total if squares is None else squares)
        self._put(cluster, weight * n, weight * total)

    def merge(self, other: ClusterSums) -> None:
        """Take in what another has summed; both keep the same number of clusters apart."""
        if other._most != self._most:
            raise BadInput(f"sums over {other._most} buckets don't fit into {self._most}")
        self._n += other._n
        self._squared += other._squared
        self._squared_value += other._squared_value
        self._squared_value_squared += other._squared_value_squared
        if other._buckets is not None:
            mine = self._fold()
            for bucket, (weight, value) in enumerate(other._buckets):
                mine[bucket][0] += weight
                mine[bucket][1] += value
        for cluster, (weight, value) in other._clusters.items():
            self._put(cluster, weight, value)

    def _put(self, cluster: str, weight: float, value: float) -> None:
        if self._buckets is not None:
            sums = self._buckets[self._bucket(cluster)]
        elif cluster in self._clusters:
            sums = self._clusters[cluster]
        elif len(self._clusters) < self._most:
            self._clusters[cluster] = [weight, value]
            return
        else:
            sums = self._fold()[self._bucket(cluster)]
        sums[0] += weight
        sums[1] += value

    def _fold(self) -> list[list[float]]:
        if self._buckets is None:
            self._buckets = [[0.0, 0.0] for _ in range(self._most)]
            for cluster, (weight, value) in self._clusters.items():
                bucket = self._buckets[self._bucket(cluster)]
                bucket[0] += weight
                bucket[1] += value
            self._clusters = {}
        return self._buckets

    def _bucket(self, cluster: str) -> int:
        return zlib.crc32(cluster.encode("utf-8", "surrogatepass")) % self._most

    @property
    def totals(self) -> Totals:
        """Sums over everything."""
        weights, values = self.arrays()
        squares = self._squared, self._squared_value, self._squared_value_squared
        return Totals(self._n, float(weights.sum()), float(values.sum()), *squares)

    def arrays(self) -> tuple[Floats, Floats]:
        """(weight, weighted value) of each cluster or bucket that holds something."""
        kept: Iterable[list[float]] = self._clusters.values() if self._buckets is None else self._buckets
        rows = [row for row in kept if row[0] > 0]
        table = np.array(rows, dtype=np.float64).reshape(len(rows), 2)
        return table[:, 0], table[:, 1]
