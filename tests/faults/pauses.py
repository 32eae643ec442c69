"""How long nothing was decided while requests kept coming: read from the log's own times."""

from __future__ import annotations

import itertools

from faults.reading import Snapshot


def longest_pause(snapshot: Snapshot) -> dict[str, float]:
    """The longest time between two receipts, in seconds: of the whole group, and of the worst partition."""
    by_partition = [sorted({m.time_ms for m in messages}) for messages in snapshot.topics["receipts"].values()]
    everywhere = sorted({time for times in by_partition for time in times})
    return {
        "group_s": _longest(everywhere),
        "partition_s": max((_longest(times) for times in by_partition), default=0.0),
    }


def _longest(times: list[int]) -> float:
    return max((b - a for a, b in itertools.pairwise(times)), default=0) / 1000
