"""The decisions of an incident: those that were linked, and those that its query finds now, with their records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lumyn.home import Home
from lumyn.incidents.model import Incident
from lumyn.lookup import sound_record
from lumyn.searching import understood
from memory_service.record_index import IndexedRecord
from schemas.errors import BadQuery, LumynError
from schemas.query import And, Expression, Field, OneOf, Or, Query, Range
from schemas.seal import is_sealed
from streams.index_sync import fetcher

DAY_MS: Final = 24 * 3600 * 1000
_CREATED = Field("created_at", "time")
_ID = Field("decision_id", "id")


@dataclass(frozen=True, slots=True)
class Decisions:
    """The index's rows of the incident's decisions, oldest first; how many its query finds, and what went wrong."""

    rows: tuple[IndexedRecord, ...]
    by_query: int
    problem: str | None


def within(incident: Incident) -> list[Expression]:
    """The incident's window as a condition."""
    if incident.start_ms is None and incident.end_ms is None:
        return []
    return [Range(_CREATED, incident.start_ms, incident.end_ms, below=True)]


def compared_from(incident: Incident, start: int, end: int) -> int:
    """From when on the time before the window is compared (ms): as long as the window, where one was given.

    Else a day at the least: from the first to the last of some decisions is often a moment in which nothing else is.
    """
    length = end - start
    return max(0, start - (length if incident.start_ms is not None else max(length, DAY_MS)))


def decisions_of(home: Home, incident: Incident, limit: int | None = None) -> Decisions:
    """Both: linked ones wherever they lie, and what the query finds within the window. Raises `StorageUnavailable`."""
    parts: list[Expression] = []
    by_query, problem = 0, None
    index, tenant, fetch = home.index(), home.settings.tenant, fetcher(home.log)
    if incident.query is not None and incident.asked is None:
        problem = "it was redacted, so what it found is not known any more"
    if incident.asked is not None:
        try:
            found: Expression = understood(home, incident.asked, lambda text: None).expression
        except BadQuery as error:  # what an older version took
            problem = error.message
        else:
            found = And((found, *within(incident))) if within(incident) else found
            by_query = index.count(Query(incident.asked, found), tenant=tenant, fetch=fetch)
            parts.append(found)
    if incident.decisions:
        parts.append(OneOf(_ID, tuple(incident.decisions)))
    if not parts:
        return Decisions((), 0, problem)
    query = Query("", parts[0] if len(parts) == 1 else Or(tuple(parts)))
    rows = index.find(query, tenant=tenant, limit=limit, newest_first=False, fetch=fetch)
    return Decisions(tuple(rows), by_query, problem)


def records_of(home: Home, incident: Incident, limit: int) -> Iterator[Mapping[str, Any] | None]:
    """The sound, open records of at most `limit` of them, linked ones first; None for one that can't be read."""
    names = incident.decisions[:limit]
    if len(names) < limit and incident.asked is not None:
        names += [row.decision_id for row in decisions_of(home, incident, limit).rows]
    for name in list(dict.fromkeys(names))[:limit]:
        try:
            record = sound_record(home, name)[1]
        except LumynError:
            yield None
        else:
            yield None if is_sealed(record) else record
