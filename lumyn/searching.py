"""Searching a home's decisions with the query language."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lumyn.wiring import Home
from schemas.query import describe, parse_query
from streams.index_sync import fetcher
from streams.local_log import wall_clock_ms

if TYPE_CHECKING:
    from memory_service.record_index import IndexedRecord


def search(
    home: Home, query: str | None, *, limit: int | None, newest_first: bool, say: Callable[[str], None]
) -> list[IndexedRecord]:
    """Decisions of the home's tenant that fit; what was understood is said when there is a query. Raises `BadQuery`."""
    parsed = parse_query(query, now_ms=wall_clock_ms()) if query else None
    if parsed is not None:
        say(f"query: {describe(parsed)}")
    return home.index().find(
        parsed, tenant=home.settings.tenant, limit=limit, newest_first=newest_first, fetch=fetcher(home.log)
    )
