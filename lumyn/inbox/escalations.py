"""Escalations: those that nobody has answered, taking one, answering one, and taking an answer back.

An escalation is open while no label says what became of it. To resolve it with ALLOW or DENY says that this would
have been right at once: label `failure` with `should`, from which the memory learns. With `again` a person is to be
asked the next time, too: label `success`, asking was right, and the memory learns nothing. Somebody who labels the
decision elsewhere resolves it as well.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from lumyn import sdk
from lumyn.home import Home
from lumyn.inbox.store import Event, InboxStore
from lumyn.lookup import sound_record
from memory_service.record_index import Cursor, IndexedRecord
from schemas.errors import BadInput, LumynError, UsageError
from schemas.label import LabelEvent, is_last_word
from schemas.query import And, Expression, Field, Not, OneOf, parse_query
from streams.local_log import wall_clock_ms

SLA_S: Final = 4 * 3600.0
"""How long an escalation may wait, where `[runtime] inbox_sla_s` doesn't say."""
ANSWERS: Final = ("ALLOW", "DENY", "ESCALATE")
MAX_NAME: Final = 80
_OPEN: Final = "verdict = ESCALATE AND label IN (none, retracted)"
_ID: Final = Field("decision_id", "id")


class Taken(LumynError):
    """Somebody else was quicker."""

    code = "taken"


@dataclass(frozen=True, slots=True)
class Open:
    """An open escalation. `seen` is the number of its last event here, 0 where there is none."""

    row: IndexedRecord
    assignee: str
    seen: int
    age_ms: int
    late: bool


_stores: dict[Path, InboxStore] = {}
_lock = threading.Lock()


def store_of(home: Home) -> InboxStore:
    """The inbox of a home, opened once a process."""
    with _lock:
        return _stores.setdefault(home.path, InboxStore(home.path))


def sla_ms(home: Home) -> int:
    """How long an escalation may wait, in milliseconds."""
    return round(home.settings.runtime_setting("inbox_sla_s", SLA_S) * 1000)


def open_escalations(
    home: Home, *, of: str = "all", limit: int | None = None, after: str | None = None
) -> list[Open]:
    """The tenant's open escalations, the oldest first: of `all`, `mine` (the home's actor's) or `nobody`."""
    store, tenant = store_of(home), home.settings.tenant
    parsed = parse_query(_OPEN, now_ms=wall_clock_ms())
    expression: Expression = parsed.expression
    if of == "mine":
        mine = store.assigned(tenant, home.settings.actor)
        if not mine:
            return []
        expression = And((expression, OneOf(_ID, tuple(mine))))
    elif of == "nobody":
        taken = store.assigned(tenant)
        expression = And((expression, Not(OneOf(_ID, tuple(taken))))) if taken else expression
    elif of != "all":
        raise UsageError(f"unknown inbox `{of}`", help="all, mine or nobody")
    query = replace(parsed, expression=expression)
    start = Cursor(after) if after else None
    rows = home.index().find(query, tenant=tenant, limit=limit, after=start, newest_first=False)
    last = store.last(tenant, [row.decision_id for row in rows])
    now, most = wall_clock_ms(), sla_ms(home)
    return [_open(row, last.get(row.decision_id), now, most) for row in rows]


def _open(row: IndexedRecord, last: Event | None, now: int, most: int) -> Open:
    age = max(0, now - row.created_ms)
    assignee = (last.assignee or "") if last is not None and last.type == "assigned" else ""
    return Open(row, assignee, 0 if last is None else last.seq, age, age > most)


def assign(home: Home, decision: str, assignee: str, *, seen: int | None = None) -> Event:
    """Give an open escalation to somebody; an empty name gives it back. With `seen`: only if nothing happened since.

    Raises `NotFound`, `BadInput`, `Taken`.
    """
    name = _escalation(home, decision)
    if len(assignee) > MAX_NAME or not assignee.isprintable():
        raise BadInput(f"a name has at most {MAX_NAME} printable characters", where="assignee")
    store, tenant, actor = store_of(home), home.settings.tenant, home.settings.actor
    with store.alone():
        _check(home, store, name, seen)
        store.add(tenant, name, "assigned", actor, assignee=assignee)
    return store.of(tenant, name)[-1]


def resolve(
    home: Home, decision: str, verdict: str, reason: str, *, again: bool = False, seen: int | None = None
) -> LabelEvent:
    """Answer an open escalation; returns the label that this becomes. Of two at once one wins.

    Raises `NotFound`, `BadInput` without a reason, `Taken` where somebody answered it before.
    """
    name = _escalation(home, decision)
    if verdict not in ANSWERS:
        raise BadInput(f"unknown verdict `{verdict}`", where="verdict", help=f"one of {', '.join(ANSWERS)}")
    if not reason.strip():
        raise BadInput("a reason is missing", where="reason", help="a sentence: it stands in the label")
    store, tenant, actor = store_of(home), home.settings.tenant, home.settings.actor
    learns = verdict != "ESCALATE" and not again
    with store.alone():  # the label is written within: whoever comes second finds it
        _check(home, store, name, seen)
        event = sdk.label_in(
            home, name, "failure" if learns else "success", summary=reason.strip(),
            should=verdict if learns else None, actor=actor, event_id=f"inbox-{uuid.uuid4().hex}", wait_s=0,
        )  # fmt: skip
        store.add(tenant, name, "resolved", actor, verdict=verdict, again=not learns)
    home.remembers(event["version"], 3.0)
    return event


def reopen(home: Home, decision: str, why: str) -> LabelEvent:
    """Take what was said back, as the last word over all labellers; the escalation is open again.

    Raises `NotFound`, `BadInput` without a reason; `UsageError` where it is open.
    """
    name = _escalation(home, decision)
    if not why.strip():
        raise BadInput("a reason is missing", where="reason", help="a sentence: it stands in the label")
    store, tenant, actor = store_of(home), home.settings.tenant, home.settings.actor
    with store.alone():
        if last_label(home, name) is None:
            raise UsageError(f"escalation `{name}` is open")
        event = sdk.label_in(
            home, name, "retracted", summary=why.strip(), actor=actor, settle=True,
            event_id=f"inbox-{uuid.uuid4().hex}", wait_s=0,
        )  # fmt: skip
        store.add(tenant, name, "reopened", actor)
    home.remembers(event["version"], 3.0)
    return event


def last_label(home: Home, decision_id: str) -> LabelEvent | None:
    """The label that answers an escalation; None while it is open."""
    last = None
    for event in home.events(decision_id):
        if event["tenant"] == home.settings.tenant and is_last_word(event):
            last = event
    if last is None:
        return None
    return None if last["label"] in (None, "retracted") else last


def _escalation(home: Home, decision: str) -> str:
    """The whole id of an escalation. Raises `NotFound`, `BadInput` for a decision that is none."""
    record = sound_record(home, decision, home.settings.tenant)[1]
    name = str(record["decision_id"])
    if record["verdict"] != "ESCALATE":
        was = record["verdict"]
        raise BadInput(f"decision `{name}` is no escalation: it was {was}", help="`lumyn label` labels it")
    return name


def _check(home: Home, store: InboxStore, name: str, seen: int | None) -> None:
    """Refuse what was answered, or is not any more as it was seen. Raises `Taken`."""
    label = last_label(home, name)
    if label is not None:
        should = f", {label['should']} would have been right" if label["should"] else ""
        raise Taken(
            f"escalation `{name}` was resolved by {label['actor']} at {label['at'][:19]}Z: {label['label']}{should}",
            help="nothing was changed; reopen it to answer otherwise",
        )
    events = store.of(home.settings.tenant, name)
    if seen is not None and (events[-1].seq if events else 0) != seen:
        last = events[-1]
        what = f"given to {last.assignee or 'nobody'}" if last.type == "assigned" else last.type
        raise Taken(f"escalation `{name}` was {what} by {last.actor} meanwhile", help="look again, then decide")
