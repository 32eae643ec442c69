"""The inbox: open escalations with their age, taking one, answering one, and what was answered."""

from __future__ import annotations

import re
from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.inbox import escalations
from lumyn.lookup import sound_record
from schemas.errors import BadInput
from schemas.ids import is_decision_id, time_ms_of
from streams.explain import explain_record
from streams.local_log import wall_clock_ms
from streams.sealing import shown_record

ROWS: Final = 50
_COUNTED: Final = 1000
_SHOWN_RESOLVED: Final = 100
_DONE: Final = {
    "taken": "It is given to whom you said.",
    "resolved": "It is resolved, and the label is stored.",
    "reopened": "It is open again; what was said is taken back.",
}
_SEEN: Final = re.compile(r"[0-9]{1,15}", re.ASCII)


def list_(visit: Visit) -> Response:
    """Open escalations, the oldest first."""
    of, after = visit.query.get("of", "all"), visit.query.get("after")
    if after and not is_decision_id(after):
        raise BadInput("this place in the list is none", help="begin at the oldest again")
    home = visit.home
    if of == "resolved":
        events = escalations.store_of(home).resolved(visit.principal.tenant, _SHOWN_RESOLVED)
        return render.html("inbox_resolved", visit=visit, here="inbox", of=of, events=events)
    found = escalations.open_escalations(home, of=of, limit=_COUNTED + 1, after=after)
    late = sum(one.late for one in found[:_COUNTED])
    return render.html(
        "inbox", visit=visit, here="inbox", of=of, found=found[:ROWS], count=len(found), most=_COUNTED, late=late,
        older=found[ROWS - 1].row.decision_id if len(found) > ROWS else None, after=after,
        sla_ms=escalations.sla_ms(home), done=_DONE.get(visit.query.get("done", "")),
    )  # fmt: skip


def show(visit: Visit) -> Response:
    """One escalation: why it was sent to a person, and the form to answer it."""
    return _page(visit, done=_DONE.get(visit.query.get("done", "")))


def _page(visit: Visit, status: int = 200, **more: Any) -> Response:
    home, tenant = visit.home, visit.principal.tenant
    record = shown_record(home.log.keys, sound_record(home, visit.request.path_params["decision_id"], tenant)[1])
    name = record["decision_id"]
    events = escalations.store_of(home).of(tenant, name)
    assigned = [e.assignee or "" for e in events if e.type == "assigned"] if events else []
    given: dict[str, Any] = {"done": None, "error": None, "typed": {}, **more}
    visit.must_see(given["error"])
    created_ms = time_ms_of(record["created_at"])
    age_ms = max(0, wall_clock_ms() - created_ms)
    return render.html(
        "escalation", status, visit=visit, here="inbox", record=record, events=events, created_ms=created_ms,
        age_ms=age_ms, late=age_ms > escalations.sla_ms(home), sla_ms=escalations.sla_ms(home),
        seen=events[-1].seq if events else 0, label=escalations.last_label(home, name),
        assignee=assigned[-1] if assigned and events[-1].type == "assigned" else "",
        explained=explain_record(record).split("\n"), **given,
    )  # fmt: skip


def assign(visit: Visit) -> Response:
    """Give it to somebody, or back."""
    name = visit.request.path_params["decision_id"]
    to = visit.form.get("to", "")
    escalations.assign(visit.home, name, visit.home.settings.actor if to == "me" else "", seen=_seen(visit))
    return _back(name, "taken")


def resolve(visit: Visit) -> Response:
    """Answer it."""
    name, form = visit.request.path_params["decision_id"], visit.form
    try:
        escalations.resolve(
            visit.home, name, form.get("verdict", ""), form.get("reason", ""), again=form.get("again") == "yes",
            seen=_seen(visit),
        )  # fmt: skip
    except escalations.Taken as error:
        return _page(visit, 409, error=error, typed=form)
    except BadInput as error:
        return _page(visit, 422, error=error, typed=form)
    return _back(name, "resolved")


def reopen(visit: Visit) -> Response:
    """Take the answer back."""
    name = visit.request.path_params["decision_id"]
    try:
        escalations.reopen(visit.home, name, visit.form.get("reason", ""))
    except BadInput as error:
        return _page(visit, 422, error=error)
    return _back(name, "reopened")


def _seen(visit: Visit) -> int | None:
    text = visit.form.get("seen", "")
    return int(text) if _SEEN.fullmatch(text) else None


def _back(name: str, done: str) -> Response:
    return RedirectResponse(render.url("inbox", name, done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/inbox", "read", list_),
    Page("/inbox/{decision_id}", "read", show),
    Page("/inbox/{decision_id}/assign", "label", assign, "POST"),
    Page("/inbox/{decision_id}/resolve", "label", resolve, "POST"),
    Page("/inbox/{decision_id}/reopen", "label", reopen, "POST"),
)
