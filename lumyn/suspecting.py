"""Suspects over a home's labels and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from lumyn.collector import collector_paused
from lumyn.label_jobs import known
from lumyn.stores import chosen_vectoriser
from lumyn.wiring import Home
from schemas.errors import LumynError
from streams.diff import checked_record
from streams.reading import all_messages
from streams.suspects import Labeller, Suspect, Suspects, decided_by, find_suspects
from streams.topics import RECORDS


def find(home: Home, tick: Callable[[int], None] = lambda count: None) -> Suspects:
    """The suspects of the home's tenant. Raises `LumynError`."""

    def records() -> Iterator[Mapping[str, Any]]:
        for message in all_messages(home.log, RECORDS):
            tick(1)
            with suppress(LumynError):  # what is not what was decided counts for nothing; `lumyn verify` names it
                record = checked_record(message.value)
                if record.get("tenant") == home.settings.tenant:
                    yield record

    with collector_paused():
        vectoriser = chosen_vectoriser(home.settings, home.agent.control().memory)
        return find_suspects(known(home), vectoriser, decided_by(records()), tick)


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
