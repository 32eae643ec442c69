"""Suspects over a home's labels and records."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final
from weakref import WeakKeyDictionary

from lumyn.collector import collector_paused
from lumyn.home import Home
from lumyn.label_jobs import known
from lumyn.stores import chosen_vectoriser
from schemas.errors import LumynError
from streams.diff import checked_record
from streams.label_history import Histories
from streams.log import Log
from streams.reading import ends_of, messages
from streams.subject_keys import State
from streams.suspects import Labeller, Suspect, Suspects, decided_by, find_suspects
from streams.topics import LABELS, RECORDS

_MOST_TENANTS: Final = 16
_MOST_SUBJECTS: Final = 2000
"""Of more encrypted subjects nothing is remembered: asking for all their keys would cost as much."""


def find(home: Home, tick: Callable[[int], None] = lambda count: None) -> Suspects:
    """The suspects of the home's tenant, from every label and record. Raises `LumynError`."""
    return _ranked(home, known(home), _resting(home, tick=tick), tick)


def kept(home: Home) -> Suspects:
    """`find`, remembered for as long as nothing that it is made from has changed; of records only new ones are read."""
    of_log = _kept.setdefault(home.log, OrderedDict())
    found = _remembered(home, of_log)
    if found is None:
        with _one_at_a_time:  # who waited finds what the one before made
            found = _remembered(home, of_log) or _made(home, of_log)
    return found


@dataclass(frozen=True, slots=True)
class _Resting:
    """How many decisions rest on each label, by the records up to some offsets."""

    ends: tuple[int, ...]
    counts: Counter[str]


@dataclass(frozen=True, slots=True)
class _Kept:
    """Suspects, what they were made from, and what had become of the subjects' keys by then."""

    labels: tuple[Any, ...]
    keys: Mapping[str, State]
    resting: _Resting
    found: Suspects


_one_at_a_time = threading.Lock()
_kept: WeakKeyDictionary[Log, OrderedDict[str, _Kept]] = WeakKeyDictionary()


def _labels(home: Home) -> tuple[Any, ...]:
    """What the answer depends on beside the records and the keys."""
    settings = home.settings
    return home.log.epoch, home.log.end(LABELS, 0), home.agent.control().memory, settings.embedder, settings.redact


def _remembered(home: Home, of_log: Mapping[str, _Kept]) -> Suspects | None:
    one = of_log.get(home.settings.tenant)
    current = one is not None and one.resting.ends == ends_of(home.log, RECORDS) and _is_of(one, home, _labels(home))
    return one.found if one is not None and current else None


def _is_of(one: _Kept, home: Home, labels: tuple[Any, ...]) -> bool:
    return one.labels == labels and one.keys == _states(home, one.keys)


def _made(home: Home, of_log: OrderedDict[str, _Kept]) -> Suspects:
    """What comes while this reads may be in the answer, and is not in what is noted: then it is made once more."""
    tenant = home.settings.tenant
    before, labels = of_log.get(tenant), _labels(home)
    if before is not None and before.labels[0] != labels[0]:
        before = None
    resting = _resting(home, None if before is None else before.resting)
    if before is not None and resting.counts == before.resting.counts and _is_of(before, home, labels):
        one = replace(before, resting=resting)
    else:
        labelled = known(home)
        decisions = (event["decision"] for history in labelled.values() for event in history.events)
        states = _states(home, {one["subject"] for one in decisions if one is not None and "subject" in one})
        one = _Kept(labels, states, resting, _ranked(home, labelled, resting))
    of_log.pop(tenant, None)
    if len(one.keys) <= _MOST_SUBJECTS:
        of_log[tenant] = one
    if len(of_log) > _MOST_TENANTS:
        of_log.popitem(last=False)
    return one.found


def _states(home: Home, subjects: Iterable[str]) -> dict[str, State]:
    return {subject: home.log.keys.state(subject) for subject in subjects}


def _resting(
    home: Home, before: _Resting | None = None, tick: Callable[[int], None] = lambda count: None
) -> _Resting:
    """Go on from `before` to the records' present ends."""
    log = home.log
    ends = ends_of(log, RECORDS)  # a log only grows: they say what it holds

    def records() -> Iterator[Mapping[str, Any]]:
        for partition, end in enumerate(ends):
            start = log.begin(RECORDS, partition) if before is None else before.ends[partition]
            for message in messages(log, RECORDS, partition, start) if start < end else ():
                if message.offset >= end:
                    break
                tick(1)
                with suppress(LumynError):  # what is not what was decided counts for nothing; `lumyn verify` names it
                    record = checked_record(message.value)
                    if record.get("tenant") == home.settings.tenant:
                        yield record

    with collector_paused():
        counts = decided_by(records())
    return _Resting(ends, counts if before is None else before.counts + counts)


def _ranked(
    home: Home, labelled: Histories, resting: _Resting, tick: Callable[[int], None] = lambda count: None
) -> Suspects:
    with collector_paused():
        vectoriser = chosen_vectoriser(home.settings, home.agent.control().memory)
        return find_suspects(labelled, vectoriser, resting.counts, tick)


def of_labeller(found: Suspects, labeller: str | None) -> list[Suspect]:
    """One labeller's suspects, or all."""
    return [suspect for suspect in found.points if labeller in (None, suspect.labeller)]


def as_dict(found: Suspects, limit: int, labeller: str | None = None) -> dict[str, Any]:
    """The JSON form: the first `limit`, and all labellers."""
    chosen = of_labeller(found, labeller)
    return {
        "of": len(chosen),
        "points": [asdict(suspect) for suspect in chosen[:limit]],
        "labellers": [_labeller(one) for one in found.labellers],
    }


def _labeller(one: Labeller) -> dict[str, Any]:
    return {
        "labeller": one.name,
        "labels": one.labels,
        "error_rate": one.error_rate,
        "suspects": one.suspects,
        "largest_burst": one.largest_burst,
    }
