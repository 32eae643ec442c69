"""Cluster-robust intervals: decisions that share a subject or a task are not independent.

With weight n_g and weighted value y_g of cluster g, N = sum n_g and r = sum y_g / N, the variance of r is the
jackknife's over whole clusters, (G - 1) / G * sum ((y_g - r n_g) / (N - n_g))^2: CR3, which for clusters of one size
is the usual sandwich CR1. Critical values are Student's with at most G - 1 degrees of freedom; fewer, when sizes are
uneven.

A rare event sits in few clusters, and a variance that rests on k of them is itself badly known: of V = sum v_g it has,
with Var(V) = sum v_g^2, some 2 V^2 / sum v_g^2 degrees of freedom (Satterthwaite 1946, Biometrics Bulletin 2:110).
Those bound the critical value of proportions and paired differences, too; but no interval is made wider than if each
cluster were all or nothing, the most that clusters can do.

Sources: Liang & Zeger 1986, Biometrika 73:13 (sandwich); Bell & McCaffrey 2002, Survey Methodology 28:169 (CR3,
degrees of freedom); MacKinnon, Nielsen & Webb 2023, J. Econometrics 232:272 (why CR3); Kish 1965 (design effect); Korn
& Graubard 1998, Survey Methodology 24:193, and Dean & Pagano 2015, J. Surv. Stat. Methodol. 3:484 (Wilson at the
effective size).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from memory_service.nearby import wilson
from schemas.errors import BadInput
from streams.statistics.cluster_sums import ClusterSums, Floats, Totals
from streams.statistics.estimate import LEVEL, Interval, Test, check_level, t_value
from streams.statistics.paired import PairedCounts, newcombe
from streams.statistics.proportions import nothing_known

FEW_CLUSTERS = 20
"""Below so many effective clusters the variance itself is badly known."""
FEW_CARRIERS = 5
"""Below so many clusters in which the variance sits, an interval is told to rest on them."""
WIDE = 1.5
"""From this design effect on, ignoring clusters makes an interval at least a fifth too narrow."""


@dataclass(frozen=True, slots=True)
class Robust:
    """The mean over clusters with its robust variance.

    `clusters_effective` is (sum n_g)^2 / sum n_g^2; `naive_variance` is what independent observations would have;
    `variance` is None with fewer than two clusters.
    """

    mean: float
    variance: float | None
    naive_variance: float
    df: float
    n: int
    n_kish: float
    clusters: int
    clusters_effective: float
    carriers: float
    """(sum v_g)^2 / sum v_g^2, v_g a cluster's part of the variance: in how many clusters the variance sits."""
    largest_share: float

    @property
    def design_effect(self) -> float | None:
        """How many times larger the variance is than if observations were independent; None where that is unknown."""
        if self.variance is None or self.naive_variance <= 0:
            return None
        return self.variance / self.naive_variance

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the interval should know about the clusters."""
        found = []
        if self.clusters < 2:
            found.append("all decisions are of one subject (or cluster): nothing can be said about others")
        elif self.clusters_effective < FEW_CLUSTERS:
            alike = "decisions of one subject (or cluster) are alike, and"
            worth = f"{self.clusters_effective:.0f}"
            told = (
                f"{alike} there are only {self.clusters} of these"
                if worth == str(self.clusters)
                else f"{alike} these {self.clusters}, of unequal size, tell only as much as {worth} of equal size"
            )
            found.append(f"{told}, which are few: the interval itself is uncertain")
        if self.clusters >= 2 and self.largest_share > 0.25:
            found.append(f"one subject (or cluster) has {self.largest_share:.0%} of the weight")
        if self.variance and self.carriers < FEW_CARRIERS <= self.clusters:
            seen = max(1, round(self.carriers))
            found.append(f"what was found sits in about {seen} of {self.clusters} subjects (or clusters)")
        return tuple(found)


def robust(sums: ClusterSums) -> Robust:
    """The weighted mean with its cluster-robust (CR3) variance. Raises `BadInput` when there is nothing."""
    weights, values = sums.arrays()
    if not len(weights):
        raise BadInput("there are no observations")
    totals = sums.totals
    mean, clusters = totals.value / totals.weight, len(weights)
    variance, df, carriers = None, 0.0, 0.0
    if clusters > 1:
        left = (values - mean * weights) / (totals.weight - weights)
        variance = float((clusters - 1) / clusters * (left @ left))
        df = _degrees_of_freedom(weights)
        fourth = float((left**4).sum())
        carriers = float(left @ left) ** 2 / fourth if fourth > 0 else 0.0
    return Robust(
        mean=mean,
        variance=variance,
        naive_variance=_naive_variance(totals, mean),
        df=df,
        n=totals.n,
        n_kish=min(totals.n, totals.weight**2 / totals.squared_weight),
        clusters=clusters,
        clusters_effective=float(totals.weight**2 / (weights @ weights)),
        carriers=carriers,
        largest_share=float(weights.max() / totals.weight),
    )


def _naive_variance(totals: Totals, mean: float) -> float:
    """n / (n - 1) * sum w^2 (v - r)^2 / (sum w)^2: the same linearisation, each observation a cluster of its own."""
    if totals.n < 2:
        return 0.0
    squares = (
        totals.squared_weight_squared_value
        - 2 * mean * totals.squared_weight_value
        + mean * mean * totals.squared_weight
    )
    return max(0.0, squares) / totals.weight**2 * totals.n / (totals.n - 1)


def _degrees_of_freedom(weights: Floats) -> float:
    """Bell & McCaffrey's: the smaller of those when observations within clusters are independent, and when they agree.

    For clusters of one size both are G - 1.
    """
    return max(1.0, min(len(weights) - 1.0, _satterthwaite(weights, weights), _satterthwaite(weights, weights**2)))


def _satterthwaite(weights: Floats, variances: Floats) -> float:
    """tr(B)^2 / tr(B^2) for B = D^(1/2) Omega D^(1/2), Omega the covariance of the residuals y_g - r n_g.

    Omega = diag(v) - h v' - v h' + V h h', with h = n / N and V = sum v, is diagonal plus rank two, so both traces are
    sums over clusters.
    """
    shares = weights / weights.sum()
    scales = 1 / (1 - shares)
    total = float(variances.sum())
    w, u, s = scales * shares, scales * variances, scales**2 * variances
    trace = float((s - 2 * w * u + total * w * w).sum())
    cross = float((s * (total * w * w - 2 * w * u)).sum())
    ww, wu, uu = float(w @ w), float(w @ u), float(u @ u)
    inner = np.array([[total, -1.0], [-1.0, 0.0]]) @ np.array([[ww, wu], [wu, uu]])
    squared = float(s @ s) + 2 * cross + float(np.trace(inner @ inner))
    return trace * trace / squared if squared > 0 else 1.0


def cluster_proportion(sums: ClusterSums, level: float = LEVEL) -> Interval:
    """Interval of a proportion (values 0 or 1, weighted or not): Wilson's at the effective size n / design effect.

    The effective size is never more than Kish's. Where all values are equal the variance says nothing: each cluster
    then counts as one observation.
    """
    method = "wilson, cluster-robust"
    check_level(level)
    if not sums.totals.n:
        return nothing_known(level, method)
    found = robust(sums)
    rate = min(1.0, max(0.0, found.mean))
    if found.variance is None:
        return Interval(rate, 0.0, 1.0, level, found.n, 0, method, found.warnings)
    size = found.clusters_effective
    if found.variance > 0 and 0 < rate < 1:
        size = min(found.n_kish, rate * (1 - rate) / found.variance)
    lower, upper = _between(found, size, level, lambda n, critical: wilson(rate, n, critical))
    return Interval(rate, lower, upper, level, found.n, size, method, found.warnings)


def _between(
    found: Robust, size: float, level: float, ends: Callable[[float, float], tuple[float, float]]
) -> tuple[float, float]:
    """`ends(n, critical value)` with the degrees of freedom that the variance has, no wider than in the worst case."""
    df = min(found.df, max(1.0, 2 * found.carriers)) if found.variance else found.df
    lower, upper = ends(size, t_value(level, df))
    least, most = ends(min(size, found.clusters_effective), t_value(level, found.df))
    return max(lower, least), min(upper, most)


def cluster_mean(sums: ClusterSums, level: float = LEVEL) -> Interval:
    """Interval of a mean of any values: mean +- t * standard error. For proportions take `cluster_proportion`."""
    method = "t, cluster-robust"
    critical_level = check_level(level)
    found = robust(sums)
    infinite = float("inf")
    if found.variance is None:
        return Interval(found.mean, -infinite, infinite, level, found.n, 0, method, found.warnings)
    half = t_value(critical_level, found.df) * found.variance**0.5
    effect = found.design_effect
    size = found.n / max(1.0, effect) if effect else found.n
    return Interval(found.mean, found.mean - half, found.mean + half, level, found.n, size, method, found.warnings)


def cluster_difference(counts: PairedCounts, differences: ClusterSums, level: float = LEVEL) -> Interval:
    """Interval of P(second right) - P(first right) when pairs share clusters: Newcombe's at the effective size.

    `differences` holds, of the same pairs, +1 where only the second was right, -1 where only the first was, else 0.
    """
    method = "newcombe, cluster-robust"
    check_level(level)
    if counts.n == 0:
        return nothing_known(level, method, lowest=-1.0)
    found = robust(differences)
    gap = counts.second_only - counts.first_only
    if differences.totals.n != counts.n or abs(differences.totals.value - gap) > 1e-6:
        raise BadInput("the differences by cluster are not those of the counted pairs")
    if found.variance is None:
        return Interval(found.mean, -1.0, 1.0, level, found.n, 0, method, found.warnings)
    spread = counts.discordant / counts.n - found.mean**2
    size = found.clusters_effective
    warnings = found.warnings
    if found.variance > 0 and spread > 0:
        size = min(counts.n, spread / found.variance)
    elif counts.discordant == 0:
        warnings = (*warnings, "the two never differ: the interval rests on the number of clusters alone")

    def ends(n: float, critical: float) -> tuple[float, float]:
        interval = newcombe(counts, n, critical, level, method)
        return interval.lower, interval.upper

    lower, upper = _between(found, size, level, ends)
    return Interval(found.mean, lower, upper, level, counts.n, size, method, warnings)


def difference_test(differences: ClusterSums, null: float = 0.0) -> Test:
    """Whether a mean (a paired difference) is another than `null`: t = (mean - null) / standard error.

    McNemar's test for clustered pairs. Source: Obuchowski 1998, Statistics in Medicine 17:1495, with CR3 and Student's
    t.
    """
    method = "t, cluster-robust"
    found = robust(differences)
    if not found.variance:
        note = "the values never differ" if found.variance == 0 else found.warnings[0]
        return Test(1.0 if found.variance is None or found.mean == null else 0.0, None, method, (note,))
    statistic = (found.mean - null) / found.variance**0.5
    return Test(min(1.0, 2 * float(special.stdtr(found.df, -abs(statistic)))), statistic, method, found.warnings)


@dataclass(frozen=True, slots=True)
class Wideness:
    """Whether data are wide: many clusters of few, hardly related decisions each, so that clusters change little."""

    clusters: int
    mean_size: float
    largest_share: float
    design_effect: float | None
    wide: bool
    warning: str | None


def wideness(sums: ClusterSums) -> Wideness:
    """How much clusters matter here. Data that are not wide come with a warning that says why."""
    found = robust(sums)
    effect, size = found.design_effect, found.n / found.clusters
    warning = None
    if found.clusters < 2:
        warning = found.warnings[0]
    elif found.clusters_effective < FEW_CLUSTERS:
        warning = f"not wide: {found.n} decisions of only {found.clusters} subjects; more decisions of these add little"
    elif effect is not None and effect >= WIDE:
        warning = (
            f"not wide: {found.n} decisions of {found.clusters} subjects are worth {found.n / effect:.0f} independent "
            "ones; intervals that ignore this are too narrow"
        )
    return Wideness(found.clusters, size, found.largest_share, effect, warning is None, warning)
