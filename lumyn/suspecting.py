"""Suspects over a home's labels and records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lumyn.label_jobs import known
from lumyn.stores import make_vectoriser
from lumyn.wiring import existing_home
from schemas.record import SCHEMA
from streams.reading import messages, object_in
from streams.suspects import Suspects, decided_by, find_suspects
from streams.topics import RECORDS


def find(tick: Callable[[int], None]) -> Suspects:
    """The suspects of the home's tenant. Raises `LumynError`."""
    home = existing_home()

    def records() -> Iterator[dict[str, Any]]:
        for partition in range(home.log.partitions(RECORDS)):
            for message in messages(home.log, RECORDS, partition, home.log.begin(RECORDS, partition)):
                tick(1)
                record = object_in(message)
                if record.get("schema") == SCHEMA and record["tenant"] == home.settings.tenant:
                    yield record

    return find_suspects(known(home), make_vectoriser(home.settings), decided_by(records()), tick)
