"""Incidents: what went wrong, what is linked to it, what was written of it; notes and links from the console."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import RedirectResponse, Response

from lumyn.console import render
from lumyn.console.app import Page
from lumyn.console.reports import sandboxed
from lumyn.console.visit import Visit
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import SEVERITIES
from lumyn.incidents.postmortem import gather
from lumyn.incidents.render import as_html, as_markdown
from lumyn.incidents.search import by_words
from lumyn.incidents.sections import SECTIONS, section_named
from schemas.errors import BadInput, UsageError

_SHOWN: Final = 100
_DONE: Final = {
    "opened": "It is open.", "noted": "The note is in its timeline.", "linked": "The decision is linked.",
    "written": "It is written down.",
}  # fmt: skip
_STATES: Final = ("", "unclosed", "closed")


def list_(visit: Visit, status: int = 200, error: Any = None) -> Response:
    """Incidents, the newest first, or those that hold words."""
    incidents = Incidents(visit.home)
    words, state = visit.query.get("q", "").strip(), visit.query.get("status", "")
    if words and error is None:
        found = [one.incident for one in by_words(incidents, words, limit=_SHOWN)[0]]
    else:
        found = incidents.list(status=state if state in _STATES and state else None, limit=_SHOWN)
    return render.html(
        "incidents", status, visit=visit, here="incidents", found=found, words=words, state=state, most=_SHOWN,
        severities=SEVERITIES, typed=visit.form, error=error,
    )  # fmt: skip


def show(visit: Visit) -> Response:
    """One incident."""
    incident = Incidents(visit.home).show(visit.request.path_params["name"])
    return render.html(
        "incident", visit=visit, here="incidents", incident=incident, done=_DONE.get(visit.query.get("done", "")),
        sections=SECTIONS,
    )  # fmt: skip


def postmortem(visit: Visit) -> Response:
    """Its postmortem, made anew from the evidence; a page of its own, in which nothing runs."""
    incidents = Incidents(visit.home)
    incident = incidents.show(visit.request.path_params["name"])
    return sandboxed(as_html(as_markdown(gather(incidents, incident), incident), f"{incident.id}: {incident.title}"))


def open_(visit: Visit) -> Response:
    """Open one."""
    form = visit.form
    try:
        opened = Incidents(visit.home).open(
            form.get("title", ""), severity=form.get("severity", ""), summary=form.get("summary", ""),
            query=form.get("query", "").strip() or None, decisions=form.get("decision", "").split(),
        )  # fmt: skip
    except (BadInput, UsageError) as error:
        return list_(visit, 422, error)
    return _back(opened.id, "opened")


def note(visit: Visit) -> Response:
    """Write a line of its timeline."""
    incident = Incidents(visit.home).note(visit.request.path_params["name"], visit.form.get("text", ""))
    return _back(incident.id, "noted")


def write(visit: Visit) -> Response:
    """Write a part of its postmortem; what was written before is kept among its events."""
    part = section_named(visit.form.get("section", ""))
    name = visit.request.path_params["name"]
    incident = Incidents(visit.home).write(name, part.name, visit.form.get("text", ""))
    return _back(incident.id, "written")


def link(visit: Visit) -> Response:
    """Link a decision to it."""
    given = [("decision", visit.form.get("decision", ""), visit.form.get("note", ""))]
    incident = Incidents(visit.home).add(visit.form.get("incident", ""), given)
    return _back(incident.id, "linked")


def _back(name: str, done: str) -> Response:
    return RedirectResponse(render.url("incidents", name, done=done), 303, headers=dict(render.HEADERS))


PAGES: Final = (
    Page("/incidents", "read", list_),
    Page("/incidents/open", "label", open_, "POST"),
    Page("/incidents/link", "label", link, "POST"),
    Page("/incidents/{name}", "read", show),
    Page("/incidents/{name}/postmortem", "read", postmortem),
    Page("/incidents/{name}/note", "label", note, "POST"),
    Page("/incidents/{name}/write", "label", write, "POST"),
)
