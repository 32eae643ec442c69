"""Counts by cluster: decisions of one subject are alike, so intervals must count subjects, not decisions.

Clusters are put into a fixed number of groups by their hash, so memory stays flat whatever the number of subjects:
groups of independent clusters are independent too, and intervals over groups hold as those over clusters do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

GROUPS = 4096

Heading = tuple[str, str]
"""(what is counted, recorded verdict): the second is the stratum that a sample's weights go by."""


def group_of(cluster: str) -> int:
    """The group of a cluster; the same in every process and run."""
    return crc32(cluster.encode("utf-8", "surrogatepass")) & (GROUPS - 1)


class GroupCounts:
    """Under each heading, how many decisions fell on each group. A heading is made at its first addition."""

    def __init__(self) -> None:
        self._counts: dict[Heading, NDArray[np.int64]] = {}

    def add_all(self, heading: Heading, groups: Sequence[int], numbers: Sequence[int] | None = None) -> None:
        """Count decisions by their groups: one each, or as many as `numbers` says."""
        if not groups:
            return
        import numpy as np

        self._plus(heading, np.bincount(groups, numbers, minlength=GROUPS).astype(np.int64))

    def add(self, other: GroupCounts) -> None:
        """Take another part's counts in."""
        for heading, counts in other._counts.items():
            self._plus(heading, counts)

    def _plus(self, heading: Heading, counts: NDArray[np.int64]) -> None:
        known = self._counts.get(heading)
        self._counts[heading] = counts if known is None else known + counts

    def counts(self, what: str, verdict: str) -> dict[int, int]:
        """How many decisions under a heading fell on each group that has any."""
        found = self._counts.get((what, verdict))
        return {} if found is None else {int(group): int(found[group]) for group in found.nonzero()[0]}

    def as_dict(self) -> dict[str, Any]:
        """JSON form: only groups that hold something."""
        return {
            "/".join(heading): [[int(group), int(counts[group])] for group in counts.nonzero()[0]]
            for heading, counts in self._counts.items()
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Iterable[tuple[int, int]]]) -> GroupCounts:
        made = cls()
        for heading, pairs in value.items():
            listed, (what, _, verdict) = list(pairs), heading.partition("/")
            made.add_all((what, verdict), [group for group, _ in listed], [number for _, number in listed])
        return made
