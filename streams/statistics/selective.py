"""Labels exist only for what was allowed: what can be said about the rest, and what can't.

An outcome is seen only where the action was carried out, so labelled decisions are a selection, and their rate is not
the rate among all. Without further assumptions there are bounds; where each decision was labelled by a known chance
above 0 (exploration, or shadow runs that were carried out at random), weighting by it gives an estimate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from memory_service.nearby import wilson
from schemas.errors import BadInput
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import cluster_proportion, robust
from streams.statistics.estimate import LEVEL, Interval, z_value

_LEAST_EFFECTIVE = 30


@dataclass(frozen=True, slots=True)
class Bounds:
    """All rates that fit what was seen, whatever the unlabelled ones were.

    `lower` and `upper` are of these decisions; `interval_lower` and `interval_upper` also cover sampling error, at
    `level`.
    """

    labelled: int
    n: int
    lower: float
    upper: float
    interval_lower: float
    interval_upper: float
    level: float
    note: str


def bounds(events: int, labelled: int, n: int, level: float = LEVEL, design_effect: float = 1.0) -> Bounds:
    """Worst-case bounds of a rate among `n` decisions of which `labelled` have an outcome and `events` of these count.

    events / n <= rate <= (events + n - labelled) / n. Source: Manski 1989, J. Human Resources 24:343; Manski 2003,
    Partial Identification, chapter 1. Each end's Wilson limit is two-sided at `level`, so that both hold together at
    `level`.
    """
    z = z_value(level)
    if not 0 <= events <= labelled <= n:
        raise BadInput(f"{events} events of {labelled} labelled of {n} don't fit together")
    if design_effect <= 0:
        raise BadInput(f"a design effect is positive, not {design_effect}")
    if n == 0:
        return Bounds(0, 0, 0.0, 1.0, 0.0, 1.0, level, selection_note(0, 0))
    lower, upper = events / n, (events + n - labelled) / n
    size = n / max(1.0, design_effect)
    reach = wilson(lower, size, z)[0], wilson(upper, size, z)[1]
    return Bounds(labelled, n, lower, upper, *reach, level, selection_note(labelled, n))


def selection_note(labelled: int, n: int) -> str:
    """What to say beside every rate that rests on labels."""
    if labelled == n:
        return "every decision has an outcome"
    return (
        f"{n - labelled} of {n} decisions have no outcome: labels exist only for what was allowed or looked at, "
        "and these may be unlike the rest"
    )


class PropensitySums:
    """Labelled decisions, each weighted by 1 / the chance that it was labelled; of unlabelled ones only how many.

    The chances must be known from how decisions were explored, not guessed from the data, and be above 0 for every
    decision that the rate is to speak of.
    """

    __slots__ = ("_sums", "n")

    def __init__(self) -> None:
        self._sums = ClusterSums()
        self.n = 0

    def add(self, cluster: str, propensity: float, event: bool | None) -> None:
        """One decision; `event` is None when it was not labelled. Raises `BadInput` for a chance of 0 or above 1.

        `cluster` is its subject; a decision of its own subject gives its own id.
        """
        if not 0 < propensity <= 1:
            raise BadInput(
                f"a chance of {propensity} of being labelled can't be weighted",
                help="decisions that could never be labelled have no estimate: give the bounds (`bounds`) for them",
            )
        self.n += 1
        if event is not None:
            self._sums.add(cluster, float(event), 1 / propensity)

    def interval(self, level: float = LEVEL) -> Interval:
        """Hajek's estimate sum(y / e) / sum(1 / e) with a cluster-robust interval.

        Sources: Horvitz & Thompson 1952, JASA 47:663; Hajek 1971 (the ratio); the variance is that of a ratio of sums
        over clusters (`clusters.robust`).
        """
        interval = replace(cluster_proportion(self._sums, level), method="inverse propensity (hajek), cluster-robust")
        if interval.estimate is None:
            return interval
        found = robust(self._sums)
        warnings = [*interval.warnings]
        if found.n_kish < _LEAST_EFFECTIVE:
            warnings.append(f"the weights leave {found.n_kish:.0f} effective observations of {found.n}")
        return replace(interval, warnings=tuple(warnings))

    def horvitz_thompson(self) -> float | None:
        """sum(y / e) / n: unbiased, less steady; far from Hajek's estimate it says that chances or labels are off."""
        return self._sums.totals.value / self.n if self.n else None
