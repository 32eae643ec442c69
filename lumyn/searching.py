"""Searching a home's decisions with the query language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from lumyn.home import Home
from schemas.ids import iso_time
from schemas.query import TODAY, OneOf, Query, Range, Value, describe, leaves, parse_query, with_values
from streams.index_sync import fetcher
from streams.local_log import wall_clock_ms

if TYPE_CHECKING:
    from memory_service.record_index import Cursor, IndexedRecord

_BEGINNING, _END = 400, 200


def _pseudonyms(home: Home) -> Callable[[Value], list[str]]:
    """A sealed decision is indexed under its subject's pseudonym: found by the subject's name while its key lives."""
    return lambda value: home.log.keys.named(home.settings.tenant, value) if isinstance(value, str) else []


def search(
    home: Home,
    query: str | Query | None,
    *,
    limit: int | None,
    newest_first: bool,
    say: Callable[[str], None],
    after: Cursor | None = None,
) -> list[IndexedRecord]:
    """Decisions of the home's tenant that fit; what was understood is said when there is a query. Raises `BadQuery`."""
    parsed = understood(home, query, say) if query else None
    tenant, fetch = home.settings.tenant, fetcher(home.log)
    return home.index().find(parsed, tenant=tenant, limit=limit, after=after, newest_first=newest_first, fetch=fetch)


def readable(query: Query) -> str:
    """The query as understood, for a person: of a very long one its beginning and end, and how much is left out."""
    text = describe(query)
    if len(text) <= _BEGINNING + _END:
        return text
    terms = sum(len(leaf.values) if isinstance(leaf, OneOf) else 1 for leaf in leaves(query.expression))
    left_out = f"({len(text) - _BEGINNING - _END:,} characters left out; it has {terms:,} terms)"
    return f"{text[:_BEGINNING]} … {left_out} … {text[-_END:]}"


def understood(home: Home, query: str | Query, say: Callable[[str], None]) -> Query:
    """A query for the home's index; what was understood is said. Raises `BadQuery`."""
    now_ms = wall_clock_ms()
    parsed = parse_query(query, now_ms=now_ms) if isinstance(query, str) else query
    say(f"query: {readable(parsed)}")
    for leaf in leaves(parsed.expression):
        low = leaf.low if isinstance(leaf, Range) and leaf.field.kind == "time" else None
        if isinstance(low, int) and low > now_ms:
            say(f"note: {iso_time(low)} has not come yet; {TODAY}")
    return replace(parsed, expression=with_values(parsed.expression, "subject_id", _pseudonyms(home)))
