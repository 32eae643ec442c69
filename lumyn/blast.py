"""The blast radius of a label job over a home's records; many records are asked in several processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from lumyn.collector import collector_paused
from lumyn.config import DEFAULT_EMBEDDER
from lumyn.home import Home
from lumyn.processes import in_order
from lumyn.stores import chosen, chosen_vectoriser
from schemas.errors import LumynError
from streams.blast_radius import UNSOUND, Blast, BlastRadius, Supposed
from streams.diff import checked_record
from streams.erasures import erasures
from streams.label_history import Histories
from streams.label_jobs import Plan, supposed
from streams.reading import all_messages
from streams.sealing import opened_record
from streams.topics import RECORDS

WORTH_PROCESSES = 20_000
_CHUNK = 1024


def places(home: Home) -> int:
    """How many places of the log the records take up, at most."""
    log = home.log
    return sum(log.end(RECORDS, p) - log.begin(RECORDS, p) for p in range(log.partitions(RECORDS)))


def of_plan(
    home: Home, plan: Plan, known: Histories, until: int, tick: Callable[[int], None], *, may_fork: bool = True
) -> BlastRadius:
    """The past decisions that would have come out otherwise with a plan's memory. Raises `LumynError`.

    `known` are the labelled decisions, whole up to the memory version `until`. `may_fork`: not in a process with
    other threads at work, such as a server.
    """
    control = home.agent.control()
    with collector_paused():
        blast = Blast(
            Supposed(home.settings.tenant, supposed(plan, known)),
            [*chain(*known.trusts.values()), *chain.from_iterable(history.events for history in known.values())],
            chosen_vectoriser(home.settings, control.memory),
            home.log.epoch,
            control.compiled,
            until,
            home.log.keys,
            erasures(home.log),
        )
        radius = BlastRadius()
        if blast.reaches_any:
            # a model's own threads do not survive a fork
            static = chosen(home.settings, control.memory).embedder == DEFAULT_EMBEDDER
            forks = may_fork and hasattr(os, "fork") and static
            several = forks and places(home) >= WORTH_PROCESSES
            parts = (_in_processes if several else _here)(blast, _chunks(home))
            for count, part in parts:
                radius.add(part)
                tick(count)
    radius.flips.sort(key=lambda flip: flip.badness)
    return radius


def _chunks(home: Home) -> Iterator[list[bytes]]:
    values = (message.value for message in all_messages(home.log, RECORDS))
    while chunk := list(islice(values, _CHUNK)):
        yield chunk


def _here(blast: Blast, chunks: Iterator[list[bytes]]) -> Iterator[tuple[int, BlastRadius]]:
    for chunk in chunks:
        yield len(chunk), _of_chunk(blast, chunk)


def _of_chunk(blast: Blast, chunk: Sequence[bytes]) -> BlastRadius:
    records: list[Mapping[str, Any]] = []
    unsound = 0
    for value in chunk:
        try:
            records.append(opened_record(blast.keys, checked_record(value)))
        except LumynError:
            unsound += 1
    radius = blast.among(records)
    radius.not_comparable.update({UNSOUND: unsound} if unsound else {})
    return radius


_forked: list[Blast] = []
"""What forked processes were made with: the memory is shared with them, not sent."""


def _in_processes(blast: Blast, chunks: Iterator[list[bytes]]) -> Iterator[tuple[int, BlastRadius]]:
    """The same in as many processes as there are cores; the log is read here alone, a few chunks ahead."""
    _forked[:] = [blast]
    try:
        lost = "a process that asked past decisions again was killed"
        for _, found in in_order(_work, chunks, _start, method="fork", lost=lost):
            yield found
    finally:
        _forked.clear()


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone speaks and stops


def _work(chunk: Sequence[bytes]) -> tuple[int, BlastRadius]:
    return len(chunk), _of_chunk(_forked[0], chunk)
