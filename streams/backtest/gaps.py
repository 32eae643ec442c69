"""Requests of a range that no record speaks of: which are retries and dead letters, and which decisions are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from streams.log import Log
from streams.reading import is_embedded, messages, object_in, request_offset, start_of
from streams.span import Span
from streams.topics import RECEIPTS, REQUESTS

_LOOKED_AT = 10_000
_MOST_RUNS = 100_000
_NAMED = 20
_FEW_QUESTIONS = 64
"""Gaps that are looked up one by one in a log that is asked over the network; more are read through."""

Run = tuple[int, int]


@dataclass(slots=True)
class Gaps:
    """Offsets of requests without a record, by what became of them.

    `outcomes`: duplicate, conflict, rejected (by receipts); `decided`: a record that was there and is gone; `expired`:
    before the first request that the log still holds; `unknown`: nothing tells (markers on Kafka, expired receipts).
    Of the last two nobody can tell whether they were decisions.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    named: list[str] = field(default_factory=list)
    """Stretches that are gone or unknown, at most twenty."""

    @property
    def gone(self) -> int:
        """Decisions whose records are not there any more."""
        return self.outcomes["decided"]

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"by_outcome": dict(sorted(self.outcomes.items())), "gone": self.gone, "named": self.named}


class Runs:
    """Which request offsets of a partition have records, as runs; parts come in order.

    Of more than `_MOST_RUNS` a partition only the length of the gaps is kept (`untold`): memory stays flat.
    """

    def __init__(self) -> None:
        self._runs: dict[int, list[Run]] = {}
        self.untold = 0

    def add(self, partition: int, runs: Iterable[Run]) -> None:
        """Take a part's runs in."""
        known = self._runs.setdefault(partition, [])
        for first, last in runs:
            if known and (known[-1][1] == first - 1 or (len(known) >= _MOST_RUNS and first > known[-1][1])):
                self.untold += first - known[-1][1] - 1
                known[-1] = (known[-1][0], last)
            else:
                known.append((first, last))

    def repeated(self) -> list[str]:
        """Places whose record doesn't come after the one before: put in twice, or out of order."""
        return [
            f"{REQUESTS}/{partition}/{after[0]}"
            for partition, runs in self._runs.items()
            for before, after in pairwise(runs)
            if after[0] <= before[1]
        ]

    def gaps(self, partition: int, first: int, last: int) -> Iterator[Run]:
        """What lies between them, within [first, last)."""
        at = first
        for low, high in self._runs.get(partition, []):
            if low > at:
                yield at, min(low, last) - 1
            at = max(at, high + 1)
        if at < last:
            yield at, last - 1

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"runs": [[partition, runs] for partition, runs in self._runs.items()], "untold": self.untold}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Runs:
        made = cls()
        for partition, runs in value["runs"]:
            made._runs[partition] = [(low, high) for low, high in runs]
        made.untold = value["untold"]
        return made


def find_gaps(log: Log, span: Span, ends: dict[int, int], runs: Runs) -> Gaps:
    """What became of the requests that have no record; `ends`: where the partitions of `requests` ended at the start.

    Raises `StorageUnavailable`.
    """
    found = Gaps(Counter({"unknown": runs.untold} if runs.untold else {}))
    for partition, end in ends.items():
        offsets = span.offsets(log, partition)
        if offsets is None:
            continue
        first, last = offsets[0], end if offsets[1] is None else min(offsets[1], end)
        gaps = list(runs.gaps(partition, first, last))
        if not gaps:
            continue
        begins = log.begin(RECEIPTS, partition), log.begin(REQUESTS, partition)
        if is_embedded(log) or len(gaps) <= _FEW_QUESTIONS:
            for gap in gaps[:_LOOKED_AT]:
                _tell(found, partition, gap, _receipts(log, partition, gap, begins[0]), begins[1])
        else:
            _read_through(log, found, partition, gaps, begins[1])
        for low, high in gaps[_LOOKED_AT:] if is_embedded(log) else []:
            found.outcomes["unknown"] += high - low + 1
    return found


def _receipts(log: Log, partition: int, gap: Run, held: int) -> dict[int, str]:
    """The outcome of each offset of a gap that a receipt speaks of."""
    out: dict[int, str] = {}
    start = max(held, start_of(log, RECEIPTS, partition, gap[0]))
    for message in messages(log, RECEIPTS, partition, start):
        offset = request_offset(message)
        if offset is None or offset > gap[1]:
            break
        if offset >= gap[0]:
            out[offset] = str(object_in(message).get("outcome"))
    return out


def _read_through(log: Log, found: Gaps, partition: int, gaps: list[Run], begin: int) -> None:
    """Many gaps over a network: the receipts are read once, beside the gaps."""
    waiting = iter(gaps)
    gap = next(waiting, None)
    told: dict[int, str] = {}
    for message in messages(log, RECEIPTS, partition, start_of(log, RECEIPTS, partition, gaps[0][0])):
        offset = request_offset(message)
        while gap is not None and offset is not None and offset > gap[1]:
            _tell(found, partition, gap, told, begin)
            told, gap = {}, next(waiting, None)
        if gap is None:
            return
        if offset is not None and offset >= gap[0]:
            told[offset] = str(object_in(message).get("outcome"))
    while gap is not None:
        _tell(found, partition, gap, told, begin)
        told, gap = {}, next(waiting, None)


def _tell(found: Gaps, partition: int, gap: Run, told: dict[int, str], begin: int) -> None:
    """Count a gap; `begin` is the first request offset that the log still holds."""
    counts = Counter(told.values())
    untold = gap[1] - gap[0] + 1 - len(told)
    expired = min(untold, max(0, min(begin, gap[1] + 1) - gap[0]))
    for what, number in (("expired", expired), ("unknown", untold - expired)):
        if number:
            counts[what] = number
    found.outcomes.update(counts)
    lost = ", ".join(f"{counts[what]} {what}" for what in ("decided", "expired", "unknown") if counts[what])
    if lost and len(found.named) < _NAMED:
        found.named.append(f"{REQUESTS}/{partition}/{gap[0]} to {gap[1]}: {lost}")
