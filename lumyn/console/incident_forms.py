"""What people say of an incident: open, note, link, write, act, say where it stands, close and reopen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from starlette.responses import RedirectResponse, Response

from lumyn.console import render
from lumyn.console.incidents import incident_page, new_page
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.incidents.incidents import Changed, Incidents
from lumyn.incidents.model import Incident
from lumyn.incidents.monitors import follow_target, watch_for_target
from lumyn.incidents.sections import section_named
from schemas.errors import BadInput, LumynError, NotFound, UsageError
from schemas.query import parse_query
from streams.local_log import wall_clock_ms
from streams.span import parse_span

_FIELDS: Final = ("text", "owner", "state", "due", "target")
_SEEN: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
Said = Callable[[Incidents, str], Incident]


def open_(visit: Visit) -> Response:
    """Open one."""
    form = visit.form
    try:
        start, end = (form.get(name, "").strip() or None for name in ("from", "to"))
        span = parse_span(start, end, now_ms=wall_clock_ms())
        if span.partition is not None:
            raise UsageError("a window lies between two times", help="UTC: 2024-12-19 14:00, or 14:25 (today)")
        opened = Incidents(visit.home).open(
            form.get("title", ""), severity=form.get("severity", ""), summary=form.get("summary", ""),
            query=form.get("query", "").strip() or None, decisions=form.get("decision", "").split(),
            start_ms=span.start, end_ms=span.end,
        )  # fmt: skip
    except (BadInput, UsageError, NotFound) as error:
        return new_page(visit, form, _status(error), error)
    return _back(opened.id, "opened")


def link(visit: Visit) -> Response:
    """Link a decision to it."""
    given = [("decision", visit.form.get("decision", ""), visit.form.get("note", ""))]
    incident = Incidents(visit.home).add(visit.form.get("incident", ""), given)
    return _back(incident.id, "linked")


def note(visit: Visit) -> Response:
    """Write a line of its timeline."""
    text = visit.form.get("text", "")
    return _said(visit, "note", "noted", lambda incidents, name: incidents.note(name, text))


def write(visit: Visit) -> Response:
    """Write a part of its postmortem; what was written before is kept among its events."""
    part, text = section_named(visit.form.get("section", "")), visit.form.get("text", "")
    return _said(visit, "write", "written", lambda incidents, name: incidents.write(name, part.name, text))


def stands(visit: Visit) -> Response:
    """Say where it stands."""
    status, why = visit.form.get("status", ""), visit.form.get("why", "")
    return _said(visit, "status", "stands", lambda incidents, name: incidents.status(name, status, why))


def close(visit: Visit) -> Response:
    """Close it, with what was learnt."""
    why = visit.form.get("why", "")
    return _said(visit, "close", "closed", lambda incidents, name: incidents.close(name, why))


def reopen(visit: Visit) -> Response:
    """Open it again."""
    why = visit.form.get("why", "")
    return _said(visit, "reopen", "reopened", lambda incidents, name: incidents.reopen(name, why))


def action(visit: Visit) -> Response:
    """Add an action item, with the watch that checks its target, or change one."""
    form = visit.form
    item = form.get("action", "").strip() or None
    said = {field: form[field].strip() for field in _FIELDS if field in form}
    query, of = form.get("query", "").strip(), form.get("of", "").strip()
    seen = int(form["seen"]) if item and _SEEN.fullmatch(form.get("seen", "")) else None

    def act(incidents: Incidents, name: str) -> Incident:
        if (query and not said.get("target")) or (of and not query):
            raise UsageError("a query says what the rate of a target counts, and `among` of which decisions")
        for one in filter(None, (query, of)):
            parse_query(one, now_ms=wall_clock_ms())  # before anything is said of it
        after = incidents.action(name, item, seen=seen, **said)
        named = item.upper() if item else after.actions[-1].id
        if not query:
            follow_target(incidents, after, named)
        else:
            after = watch_for_target(incidents, after, named, query=query, of=of or None)
        return after

    return _said(visit, f"action-{item}" if item else "action", "changed" if item else "added", act)


def _said(visit: Visit, form: str, done: str, say: Said) -> Response:
    """Say it; what can't be taken is told beside its form, which keeps what was typed."""
    name = visit.request.path_params["name"]
    try:
        incident = say(Incidents(visit.home), name)
    except (BadInput, UsageError, Changed) as error:
        return incident_page(visit, _status(error), error=error, form=form, typed=visit.form)
    return _back(incident.id, done)


def _status(error: LumynError) -> int:
    return 409 if isinstance(error, Changed) else 404 if isinstance(error, NotFound) else 422


def _back(name: str, done: str) -> Response:
    return RedirectResponse(render.url("incidents", name, done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/incidents/open", "label", open_, "POST"),
    Page("/incidents/link", "label", link, "POST"),
    Page("/incidents/{name}/note", "label", note, "POST"),
    Page("/incidents/{name}/write", "label", write, "POST"),
    Page("/incidents/{name}/status", "label", stands, "POST"),
    Page("/incidents/{name}/close", "label", close, "POST"),
    Page("/incidents/{name}/reopen", "label", reopen, "POST"),
    Page("/incidents/{name}/action", "label", action, "POST"),
)
