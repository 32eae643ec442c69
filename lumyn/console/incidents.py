"""Incidents: what went wrong, found by words; one with its links, actions, timeline and runbooks; its postmortem."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from starlette.responses import Response

from lumyn import reports
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.reports import sandboxed
from lumyn.console.runbooks import books_of
from lumyn.console.visit import Visit
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import ACTION_STATES, SEVERITIES, STATUSES, Incident, Step
from lumyn.incidents.postmortem import gather
from lumyn.incidents.render import as_html, as_markdown
from lumyn.incidents.search import by_words
from lumyn.incidents.sections import SECTIONS

_SHOWN: Final = 100
_DONE: Final = {
    "opened": "It is open.", "noted": "The note is in its timeline.", "linked": "The decision is linked.",
    "written": "It is written down.", "stands": "It stands there now.", "closed": "It is closed.",
    "reopened": "It is open again.", "added": "The action item is there.", "changed": "The action item is changed.",
}  # fmt: skip
_STATES: Final = ("", "unclosed", "closed")


@dataclass(frozen=True, slots=True)
class Run:
    """A runbook that was gone through: each step with what it came to last."""

    run: str
    runbook: str
    steps: tuple[Step, ...]


def list_(visit: Visit) -> Response:
    """Incidents, the newest first, or those that hold words."""
    incidents = Incidents(visit.home)
    words, state = visit.query.get("q", "").strip(), visit.query.get("status", "")
    if words:
        found = [one.incident for one in by_words(incidents, words, limit=_SHOWN)[0]]
    else:
        found = incidents.list(status=state if state in _STATES and state else None, limit=_SHOWN)
    return render.html(
        "incidents", visit=visit, here="incidents", found=found, words=words, state=state, most=_SHOWN
    )


def new(visit: Visit) -> Response:
    """The form to open one; a decision or a query that it is about may be given."""
    return new_page(visit, visit.query)


def new_page(visit: Visit, typed: Mapping[str, str], status: int = 200, error: Any = None) -> Response:
    """The form with what was typed."""
    return render.html(
        "incident_new", status, visit=visit, here="incidents", severities=SEVERITIES, typed=typed, error=error
    )


def show(visit: Visit) -> Response:
    """One incident."""
    return incident_page(visit, done=_DONE.get(visit.query.get("done", "")))


def incident_page(visit: Visit, status: int = 200, **more: Any) -> Response:
    """One incident; `error` and `typed` are of the form (`form`) that could not be taken."""
    incident = Incidents(visit.home).show(visit.request.path_params["name"])
    given: dict[str, Any] = {"done": None, "error": None, "form": "", "typed": {}, **more}
    visit.must_see(given["error"])
    if given["form"] not in _forms(incident):
        given["form"] = ""  # it is not on the page any more: what was wrong is told at its head
    closed = [event for event in incident.events if event.kind == "closed"]
    return render.html(
        "incident", status, visit=visit, here="incidents", incident=incident, sections=SECTIONS, runs=runs_of(incident),
        asks={one.name: one.asks for one in SECTIONS}, states=ACTION_STATES,
        statuses=[one for one in STATUSES if one != "closed"], books=list(books_of(visit)),
        why_closed=closed[-1].data.get("why", "") if closed and incident.status == "closed" else "",
        reports=_reports(visit, incident), seen=incident.events[-1].seq, todo=incident.unfinished,
        **given,
    )  # fmt: skip


def _reports(visit: Visit, incident: Incident) -> dict[str, str]:
    """The names of the linked backtests that are kept in the home, by where they lie."""
    home, tenant = visit.home.path, visit.principal.tenant
    linked = {one.ref: reports.name_of(home, tenant, Path(one.ref)) for one in incident.links if one.kind == "backtest"}
    return {ref: name for ref, name in linked.items() if name is not None}


def _forms(incident: Incident) -> set[str]:
    """The forms on an incident's page."""
    of_state = {"reopen"} if incident.status == "closed" else {"status", "close"}
    return of_state | {"note", "write", "action", *(f"action-{one.id}" for one in incident.actions)}


def runs_of(incident: Incident) -> list[Run]:
    """The runbooks' runs in their order."""
    runs: dict[str, dict[str, Step]] = {}
    for step in incident.steps:
        runs.setdefault(step.run, {})[step.step] = step
    return [Run(run, next(iter(steps.values())).runbook, tuple(steps.values())) for run, steps in runs.items()]


def postmortem(visit: Visit) -> Response:
    """Its postmortem, made anew from the evidence; a page of its own, in which nothing runs."""
    incidents = Incidents(visit.home)
    incident = incidents.show(visit.request.path_params["name"])
    page = as_html(as_markdown(gather(incidents, incident), incident), f"{incident.id}: {incident.title}")
    return sandboxed(page, render.url("incidents", incident.id), incident.id)


PAGES: Final = (
    Page("/incidents", "read", list_),
    Page("/incidents/new", "label", new),
    Page("/incidents/{name}", "read", show),
    Page("/incidents/{name}/postmortem", "read", postmortem),
)
