"""Verify a log, or a part of it: requests, receipts, records and signed leaves side by side, offset by offset.

All four are in the order of request offsets, so one pass with flat memory finds what was edited, dropped or put in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar

from schemas.seal import is_sealed
from streams.checkpoints import Chain
from streams.control import read_control
from streams.decide_agent import GROUP
from streams.events import check_events, uncovered_events
from streams.integrity import Check
from streams.log import Log, Message
from streams.prior_records import PriorRecords
from streams.reading import is_embedded, last_of, messages, object_in, request_offset, start_of
from streams.retention import Held
from streams.sealing import is_erased
from streams.slots import Finding, Partition, Slot, check_unrecorded, expects_record
from streams.span import EVERYTHING, Span
from streams.topics import DEAD_LETTERS, EVENTS, RECEIPTS, RECORDS, REQUESTS, full_name
from streams.verify import Traces, opened_checks, stored_checks

T = TypeVar("T")


@dataclass(slots=True)
class Summary:
    """What a verification went through; filled as it goes. Decisions are those of the tenant asked for."""

    decisions: int = 0
    covered: int = 0
    """Decisions that a checkpoint covers."""
    after_last: int = 0
    """Decisions after the last checkpoint of their partition: no checkpoint speaks of them."""
    never_covered: int = 0
    """Decisions before the first checkpoint, or between two."""
    erased: int = 0
    """Decisions of forgotten subjects: digests and places were checked, what was asked is gone."""
    sealed: int = 0
    """Decisions whose subjects' keys are not here: likewise."""
    expired: int = 0
    """Signed receipts of retries, conflicts and dead letters that have expired: nothing can be compared any more."""
    events_after_last: int = 0
    """Control and label events that no checkpoint covers."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A record whose own digests hold."""

    message: Message
    value: Mapping[str, Any]
    checks: list[Check]


class _Peek(Generic[T]):
    """A stream in the order of offsets, and the offset that it stands at."""

    def __init__(self, items: Iterator[tuple[int, T]]) -> None:
        self._items = items
        self.offset: float = inf
        self._value: T | None = None
        self._next()

    def _next(self) -> None:
        self.offset, self._value = next(self._items, (inf, None))

    def take(self, offset: float) -> T | None:
        """What it holds for an offset."""
        if self.offset != offset:
            return None
        value = self._value
        self._next()
        return value


def verify_all(
    log: Log, chain: Chain, summary: Summary, *, now_ms: int, tenant: str | None = None, span: Span = EVERYTHING
) -> Iterator[Finding]:
    """Every decision of a span with its checks, and what should be in the log and is gone. `chain` is caught up.

    With a `tenant`, sound decisions of others are passed over; what fails is told whatever tenant it claims.
    """
    for fault in chain.faults:
        yield Finding(fault.place, [Check("checkpoint", False, fault.detail)])
    for topic in EVENTS:
        for place, checks in check_events(log, chain, topic):
            yield Finding(place, checks)
        summary.events_after_last += uncovered_events(log, chain, topic)
    sweep = _Sweep(log, chain, now_ms, tenant, summary)
    for number in range(log.partitions(REQUESTS)):
        offsets = span.offsets(log, number)
        if offsets is not None:
            yield from sweep.partition(number, *offsets)


class _Sweep:
    def __init__(self, log: Log, chain: Chain, now_ms: int, tenant: str | None, summary: Summary) -> None:
        self._log = log
        self._chain = chain
        self._now_ms = now_ms
        self._tenant = tenant
        self._summary = summary
        self._topic = full_name(log.prefix, REQUESTS)
        self._control = read_control(log)
        self._dead = {_place(object_in(message).get("source")) for message in messages(log, DEAD_LETTERS, 0)}
        self._damaged: set[str] = set()
        self._told: list[Finding] = []

    def partition(self, number: int, first: int, last: int | None) -> Iterator[Finding]:
        """Verify the requests of a partition in [first, last)."""
        log = self._log
        self._at = Partition(
            log,
            self._topic,
            number,
            Held(log, number, self._now_ms),
            PriorRecords(log, number),
            log.committed(GROUP, REQUESTS, number),
            self._dead,
            self._damaged,
        )
        end = self._end(number) if last is None else min(last, self._end(number))
        requests = _Peek((message.offset, message) for message in messages(log, REQUESTS, number, first))
        receipts = _Peek(self._receipts(number, first))
        records = _Peek(self._records(number, first))
        leaves = _Peek((at, (leaf, by)) for at, leaf, by in self._chain.leaves(self._topic, number, first))
        expected = first
        while (at := min(requests.offset, receipts.offset, records.offset, leaves.offset)) < end:
            offset = int(at)
            if is_embedded(log):
                yield from self._hole(expected, offset)
            expected = offset + 1
            slot = Slot(offset, requests.take(at), receipts.take(at), leaves.take(at))
            recorded = records.take(at)
            yield from self._tell()
            yield from self._check(slot, recorded)
        yield from self._tell()
        if is_embedded(log):
            yield from self._hole(expected, end)

    def _end(self, number: int) -> int:
        """One after the last request offset that anything speaks of; what comes meanwhile is for the next time."""
        newest = [last_of(self._log, topic, number) for topic in (RECEIPTS, RECORDS)]
        spoken = [(request_offset(message) or 0) + 1 for message in newest if message is not None]
        covered = self._chain.head(REQUESTS, number)["end"]
        return max(self._log.end(REQUESTS, number), self._at.position, covered, *spoken)

    def _receipts(self, number: int, first: int) -> Iterator[tuple[int, Message]]:
        """Receipts by their request's offset; one that can't be placed is told of, not given."""
        last = -1
        for message in messages(self._log, RECEIPTS, number, start_of(self._log, RECEIPTS, number, first)):
            offset = request_offset(message)
            if offset is None or _place(object_in(message)["source"]) != (self._topic, number, offset):
                self._tell_of(message, None, Check("receipt", False, "it names no request of this partition"))
            elif offset <= last:
                detail = f"another receipt of request {offset}, or a later request's, stands before it"
                self._tell_of(message, None, Check("receipt", False, detail))
            else:
                last = offset
                yield offset, message

    def _records(self, number: int, first: int) -> Iterator[tuple[int, _Recorded]]:
        """Records by their request's offset; one whose own digests fail has no place that could be believed."""
        last = -1
        for message in messages(self._log, RECORDS, number, start_of(self._log, RECORDS, number, first)):
            value = object_in(message)
            if not isinstance(value.get("decision_id"), str):
                checks = [Check("record_digest", False, "the stored bytes are not a record any more")]
            else:
                checks, opened = opened_checks(self._log, message.value, value)
            if all(check.ok for check in checks):
                checks += self._misplaced(message, value, last)
            if not all(check.ok for check in checks):
                self._tell_of(message, value.get("decision_id"), *checks)
                continue
            last = int(value["log"]["offset"])
            if last >= first:
                yield last, _Recorded(message, opened, checks)

    def _misplaced(self, message: Message, record: dict[str, Any], last: int) -> list[Check]:
        place = record["log"]
        if (place["topic"], place["partition"]) != (self._topic, message.partition):
            return [Check("request", False, "its place is not in this partition of the log")]
        if message.key != record["decision_id"].encode():
            return [Check("record", False, "it is filed under another id")]
        if place["offset"] <= last:
            return [Check("record", False, "it stands after the record of a later request, or twice")]
        return []

    def _tell_of(self, message: Message, name: Any, *checks: Check) -> None:
        """Note a receipt or record that has no place. What else speaks of such a record does not tell of it again."""
        if message.topic == RECORDS:
            self._damaged |= {(message.key or b"").decode("utf-8", "replace"), str(name)}
            self._summary.decisions += 1
        place = f"{message.topic}/{message.partition}/{message.offset}"
        self._told.append(Finding(name if isinstance(name, str) else place, list(checks), message.topic == RECORDS))

    def _tell(self) -> Iterator[Finding]:
        yield from self._told
        self._told.clear()

    def _hole(self, start: int, end: int) -> Iterator[Finding]:
        """Offsets of the embedded log that hold nothing at all, unless they are old enough to have expired."""
        held = self._at.held
        if start >= end or all(held.expired(topic, end - 1) for topic in (REQUESTS, RECEIPTS)):
            return
        offsets = f"{start}" if end == start + 1 else f"{start} to {end - 1}"
        gone = Check("request", False, "what was asked and decided here is gone, receipt and all")
        yield Finding(f"{REQUESTS}/{self._at.number}/{offsets}", [gone])

    def _check(self, slot: Slot, recorded: _Recorded | None) -> Iterator[Finding]:
        if recorded is None and expects_record(slot):
            recorded = self._late(slot.offset)
        if recorded is None:
            finding = check_unrecorded(self._at, slot)
            if finding is not None:
                self._summary.decisions += finding.decision
                yield finding
            elif slot.leaf is not None and slot.receipt is None:
                self._summary.expired += slot.leaf[0][:1] != b"-"
            return
        record = recorded.value
        request, receipt = self._at.request(slot.offset, slot.request), self._at.receipt(slot.offset, slot.receipt)
        traces = Traces(request, receipt, slot.leaf)
        checks = [
            *recorded.checks,
            *stored_checks(self._log, self._control, record, traces, self._at.held, recorded.message.time_ms),
        ]
        if self._tenant in (None, record["tenant"]) or not all(check.ok for check in checks):
            self._count(slot, record)
            yield Finding(record["decision_id"], checks, decision=True, record=record)

    def _late(self, offset: int) -> _Recorded | None:
        """A record that showed after its receipt, if it is sound and was not told of."""
        message = self._at.record(offset)
        if message is None:
            return None
        value = object_in(message)
        checks, opened = opened_checks(self._log, message.value, value)
        if value.get("decision_id") in self._damaged or not all(check.ok for check in checks):
            return None
        return _Recorded(message, opened, checks)

    def _count(self, slot: Slot, record: Mapping[str, Any]) -> None:
        self._summary.decisions += 1
        if is_sealed(record):
            self._summary.erased += is_erased(record)
            self._summary.sealed += not is_erased(record)
        if slot.leaf is not None:
            self._summary.covered += 1
        elif slot.offset >= self._chain.head(REQUESTS, self._at.number)["end"]:
            self._summary.after_last += 1
        else:
            self._summary.never_covered += 1


def _place(source: Any) -> Any:
    return (source.get("topic"), source.get("partition"), source.get("offset")) if isinstance(source, dict) else None
