"""`GET /v1/decisions`: decisions by filters, page by page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from fastapi import Request

from lumyn.api.cursors import cursor_in, cursor_text, list_digest
from lumyn.api.filters import PAGING, filters
from lumyn.api.homes import home_of
from lumyn.api.traceability import with_traceability
from lumyn.home import Home
from lumyn.lookup import sound_record
from lumyn.searching import search
from memory_service.record_index import IndexedRecord
from schemas.errors import Forbidden, IntegrityError
from schemas.ids import iso_time
from schemas.query import describe
from streams.local_log import wall_clock_ms

MOST: Final = 1000
MOST_RECORDS: Final = 200
"""How many whole records a page may hold."""
Order = Literal["newest", "oldest"]
Expand = Literal["none", "record"]


@dataclass(frozen=True, slots=True)
class Paging:
    """How a list is given out."""

    limit: int
    order: Order
    expand: Expand
    cursor: str | None


def page(request: Request, paging: Paging) -> dict[str, Any]:
    """One page of the list that a request's parameters mean. Raises `BadInput`, `UsageError`, `NotFound`."""
    home = home_of(request)
    given = request.query_params.multi_items()
    tenant = home.settings.tenant
    if any(name == "tenant" and value != tenant for name, value in given):
        raise Forbidden(f"the key is tenant `{tenant}`'s, and sees no other's decisions", where="tenant")
    query = filters(given, wall_clock_ms())
    listed = list_digest(
        f"decisions/{paging.order}", tenant, [(name, value) for name, value in given if name not in PAGING]
    )
    after = cursor_in(paging.cursor, listed) if paging.cursor is not None else None
    limit = min(paging.limit, MOST_RECORDS) if paging.expand == "record" else paging.limit
    newest = paging.order == "newest"
    rows = search(home, query, limit=limit + 1, newest_first=newest, say=lambda text: None, after=after)
    more = len(rows) > limit
    shown = rows[:limit]
    return {
        "decisions": [_whole(home, row) if paging.expand == "record" else _listed(row) for row in shown],
        "next_cursor": cursor_text(shown[-1].decision_id, listed) if more else None,
        "query": describe(query) if query else None,
    }


def _listed(row: IndexedRecord) -> dict[str, Any]:
    """A decision as the index knows it."""
    at = iso_time(row.created_ms)
    return {
        "decision_id": row.decision_id,
        "tenant": row.tenant,
        "created_at": at,
        "verdict": row.verdict,
        "reason_codes": list(row.reason_codes),
        "action_type": row.action_type,
        "subject_id": row.subject_id,
        "policy": {"name": row.policy, "version": row.version},
        "amount": row.amount,
        "currency": row.currency,
        "amount_usd": row.amount_usd,
        "label": row.label,
        "condition_id": row.policy,
        "condition_version": row.version,
        "entity_id": row.subject_id,
        "evaluated_at": at,
        "outcome": "triggered" if row.rules else "not_triggered",
        "rules": list(row.rules),
    }


def _whole(home: Home, row: IndexedRecord) -> dict[str, Any]:
    """The record itself with its label; what is not sound any more is an error in its place, and the list goes on."""
    try:
        record: Mapping[str, Any] = sound_record(home, row.decision_id)[1]
    except IntegrityError as error:
        return {"decision_id": row.decision_id, "error": error.as_dict()}
    return {**with_traceability(record), "label": row.label}
