"""Finding records by id for whoever must be sure that one does not exist: through an index that has caught up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from memory_service.record_index import IndexedRecord, RecordIndex
from schemas.canonical import decode_trusted
from schemas.errors import StorageUnavailable
from schemas.query import parse_query
from streams.log import Log
from streams.reading import ends_of
from streams.sealing import opened_record
from streams.subject_keys import keys_of
from streams.topics import RECORDS

_ASK = 50
_NEAR = 10
"""Records not asked for that are read along rather than asking the log twice."""
_READ = 32


class RecordFinder(Protocol):
    """Records by id."""

    def find(self, decision_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        """Those of the ids that have a record. One that is left out does not exist. Raises `StorageUnavailable`."""
        ...


class IndexedFinder:
    """Asks the index; what it does not know is asked again once it has indexed all that was in the log by then."""

    def __init__(
        self,
        log: Log,
        open_index: Callable[[], RecordIndex],
        *,
        catch_up: Callable[[RecordIndex], object] | None = None,
        wait_s: float = 30.0,
    ) -> None:
        """The index is opened when it is first asked, again after each failure to do so. `catch_up` brings it up to

        date here; without it another process (the index agent) does.
        """
        self._log = log
        self._open_index = open_index
        self._opened: RecordIndex | None = None
        self._catch_up = catch_up
        self._wait_s = wait_s

    @property
    def _index(self) -> RecordIndex:
        if self._opened is None:
            self._opened = self._open_index()
        return self._opened

    def find(self, decision_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        wanted = list(dict.fromkeys(decision_ids))
        found = self._look(wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            self._wait_until_current()
            found |= self._look(missing)
        return found

    def _wait_until_current(self) -> None:
        if self._catch_up is not None:
            self._catch_up(self._index)
            return
        ends = _ends(self._log)
        deadline = time.monotonic() + self._wait_s
        while not is_current(self._log, self._index, ends):
            if time.monotonic() > deadline:
                raise StorageUnavailable(
                    f"the record index has not caught up within {self._wait_s:g} s",
                    help="is `lumyn worker index` running?",
                )
            time.sleep(0.05)

    def _look(self, decision_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
        rows: list[IndexedRecord] = []
        for start in range(0, len(decision_ids), _ASK):
            some = decision_ids[start : start + _ASK]
            names = ", ".join(f"'{name}'" for name in some)
            rows += self._index.find(parse_query(f"decision_id IN ({names})", now_ms=0), tenant=None, limit=len(some))
        wanted: dict[int, dict[int, str]] = {}
        for row in rows:
            wanted.setdefault(row.partition, {})[row.offset] = row.decision_id
        out: dict[str, Mapping[str, Any]] = {}
        for partition, names_at in wanted.items():
            for run in _runs(sorted(names_at)):
                for message in self._log.read(RECORDS, partition, run[0], run[-1] - run[0] + 1):
                    name = names_at.get(message.offset)
                    if name is not None and message.key == name.encode():
                        out[name] = opened_record(keys_of(self._log), decode_trusted(message.value))
        return out


def _runs(offsets: Sequence[int]) -> Iterator[list[int]]:
    """Sorted offsets in runs that one read brings: what stands near each other is labelled together."""
    run: list[int] = []
    for offset in offsets:
        if run and (offset - run[-1] > _NEAR or offset - run[0] >= _READ):
            yield run
            run = []
        run.append(offset)
    if run:
        yield run


def is_current(log: Log, index: RecordIndex, ends: Mapping[int, int] | None = None) -> bool:
    """Whether an index stands at the ends of `records`; what lies between may be transaction markers only."""
    positions = index.positions()
    return all(
        positions.get(p, 0) >= end or not log.read(RECORDS, p, positions.get(p, 0), 1)
        for p, end in (ends or _ends(log)).items()
    )


def _ends(log: Log) -> dict[int, int]:
    return dict(enumerate(ends_of(log, RECORDS)))
