"""A sample of the records, drawn so that every one is as likely as any other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streams.log import Log
from streams.reading import all_messages, at_offset, object_in
from streams.sealing import opened_record
from streams.subject_keys import keys_of
from streams.topics import RECORDS

Record = Mapping[str, Any]
_FEW = 100_000
"""Up to so many offsets are all read; of more, places are drawn."""
_DRAWS_A_RECORD = 20


@dataclass(frozen=True, slots=True)
class Sample:
    """Records in the order of their ids, and of how many: exact when all were read, else None."""

    records: tuple[Record, ...]
    of: int | None


def sample_records(log: Log, count: int, seed: int, wanted: Callable[[Record], bool]) -> Sample:
    """At most `count` of the wanted records. Raises `StorageUnavailable`.

    A long log isn't read whole: places are drawn until there are enough, at most twenty a record; a place that holds
    none (a marker, what compaction removed) counts as a draw and gives nothing, so that no record is favoured.
    """
    pick = random.Random(seed)
    spans = [(p, log.begin(RECORDS, p), log.end(RECORDS, p)) for p in range(log.partitions(RECORDS))]
    places = sum(end - begin for _, begin, end in spans)
    if places <= max(_FEW, count):
        return _of_all(_all(log, wanted), count, pick)
    found: dict[str, Record] = {}
    for place in pick.sample(range(places), min(places, count * _DRAWS_A_RECORD)):
        record = _at(log, spans, place)
        if record is not None and wanted(record):
            found[record["decision_id"]] = record
            if len(found) == count:
                break
    return Sample(tuple(found[name] for name in sorted(found)), None)


def _all(log: Log, wanted: Callable[[Record], bool]) -> Iterator[Record]:
    for message in all_messages(log, RECORDS):
        record = opened_record(keys_of(log), object_in(message))
        if record and wanted(record):
            yield record


def _of_all(records: Iterator[Record], count: int, pick: random.Random) -> Sample:
    """Reservoir sampling (Vitter 1985, algorithm R)."""
    kept: list[Record] = []
    seen = 0
    for record in records:
        seen += 1
        if len(kept) < count:
            kept.append(record)
        elif (at := pick.randrange(seen)) < count:
            kept[at] = record
    return Sample(tuple(sorted(kept, key=lambda record: str(record["decision_id"]))), seen)


def _at(log: Log, spans: list[tuple[int, int, int]], place: int) -> Record | None:
    for partition, begin, end in spans:
        if place < end - begin:
            found = at_offset(log, RECORDS, partition, begin + place)
            return opened_record(keys_of(log), object_in(found)) or None if found is not None else None
        place -= end - begin
    return None
