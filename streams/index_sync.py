"""The record index beside a log: caught up on `records` and `labels`, and given the records it doesn't hold."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from memory_service.record_index import Fetch, RecordIndex, Refused
from schemas.canonical import decode_trusted
from schemas.errors import StorageUnavailable
from streams.log import Log, Message
from streams.sealing import opened_record
from streams.subject_keys import keys_of
from streams.topics import LABELS, RECORDS
from streams.versions import offset_after

_BATCH = 2000
SMALL_BATCH: Final = 100
"""For who catches up beside others: they wait for a batch at the most."""


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """What catching up took in; `refused` are messages that are no decision records."""

    records: int
    labels: int
    refused: tuple[Refused, ...]


@dataclass(slots=True)
class Seen:
    """What one that catches up again and again keeps from one time to the next."""

    labels_offset: int | None = None


def catch_up(
    log: Log,
    index: RecordIndex,
    progress: Callable[[int], None] | None = None,
    seen: Seen | None = None,
    size: int = _BATCH,
) -> CaughtUp:
    """Index all that the log holds and the index has not seen. `progress` gets each batch's size, `size` at the most.

    May be broken off and run again, and by several threads and processes at once. Raises `StorageUnavailable`.
    """
    records, refused = 0, []
    positions = index.positions()
    waiting = _in_time_order(log, positions, size)
    while batch := list(islice(waiting, size)):
        refused += index.apply([(m.partition, m.offset, _decoded(m)) for m in batch])
        records += len(batch)
        if progress:
            progress(len(batch))
    return CaughtUp(records, _catch_up_labels(log, index, progress, seen or Seen(), size), tuple(refused))


def _in_time_order(log: Log, positions: Mapping[int, int], size: int) -> Iterator[Message]:
    """All partitions merged by time: rows that come in the order of their ids pack tightly into the index."""
    partitions = (_messages(log, RECORDS, p, positions.get(p, 0), size) for p in range(log.partitions(RECORDS)))
    return heapq.merge(*partitions, key=lambda message: message.time_ms)


def _catch_up_labels(
    log: Log, index: RecordIndex, progress: Callable[[int], None] | None, seen: Seen, size: int
) -> int:
    labels = 0
    if seen.labels_offset is None:
        seen.labels_offset = offset_after(log, LABELS, index.labels_position())
    waiting = _messages(log, LABELS, 0, seen.labels_offset, size)
    while batch := list(islice(waiting, size)):
        index.apply([], [decode_trusted(message.value) for message in batch])
        seen.labels_offset = batch[-1].offset + 1
        labels += len(batch)
        if progress:
            progress(len(batch))
    return labels


def _messages(log: Log, topic: str, partition: int, offset: int, size: int) -> Iterator[Message]:
    end = log.end(topic, partition)
    if offset > end:
        raise StorageUnavailable(
            f"the index stands at {offset}, beyond the log's end {end}: it belongs to another log",
            where=f"{topic}/{partition}",
            help="run `lumyn index rebuild`",
        )
    while offset < end:
        messages = log.read(topic, partition, offset, size)
        if not messages:
            return
        yield from messages
        offset = messages[-1].offset + 1


def _decoded(message: Message) -> Mapping[str, Any]:
    try:
        value = decode_trusted(message.value)
    except ValueError:
        return {}  # which the index refuses, and goes on
    return value if isinstance(value, dict) else {}


def fetcher(log: Log) -> Fetch:
    """How the index asks the log for a record."""

    def fetch(partition: int, offset: int) -> Mapping[str, Any] | None:
        found = log.read(RECORDS, partition, offset, 1)
        return opened_record(keys_of(log), _decoded(found[0])) or None if found and found[0].offset == offset else None

    return fetch
