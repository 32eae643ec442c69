"""The blast radius of a label job over a home's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lumyn.collector import collector_paused
from lumyn.stores import make_vectoriser
from lumyn.wiring import Home
from schemas.errors import LumynError
from streams.blast_radius import BlastRadius, Supposed, blast_radius
from streams.diff import checked_record
from streams.label_history import History
from streams.label_jobs import Plan, supposed
from streams.reading import messages
from streams.topics import RECORDS

UNSOUND = "not a sound record: `lumyn verify` says more"


def places(home: Home) -> int:
    """How many places of the log the records take up, at most."""
    log = home.log
    return sum(log.end(RECORDS, p) - log.begin(RECORDS, p) for p in range(log.partitions(RECORDS)))


def of_plan(home: Home, plan: Plan, known: Mapping[str, History], tick: Callable[[int], None]) -> BlastRadius:
    """The past decisions that would have come out otherwise with a plan's memory. Raises `LumynError`."""
    control = home.agent.control()
    unsound: Counter[str] = Counter()
    with collector_paused():
        radius = blast_radius(
            Supposed(home.settings.tenant, supposed(plan, known)),
            (event for history in known.values() for event in history.events),
            _records(home, tick, unsound),
            make_vectoriser(home.settings),
            home.log.epoch,
            control.compiled,
        )
    radius.not_comparable += unsound
    return radius


def _records(home: Home, tick: Callable[[int], None], unsound: Counter[str]) -> Iterator[dict[str, Any]]:
    for partition in range(home.log.partitions(RECORDS)):
        for message in messages(home.log, RECORDS, partition, home.log.begin(RECORDS, partition)):
            tick(1)
            try:
                yield checked_record(message.value)
            except LumynError:
                unsound[UNSOUND] += 1
