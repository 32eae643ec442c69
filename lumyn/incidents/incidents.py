"""Opening, adding to, finding and closing the incidents of a home; each tenant sees its own alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from lumyn.home import Home
from lumyn.incidents import links
from lumyn.incidents.model import ACTION_STATES, SEVERITIES, STATUSES, Incident
from lumyn.incidents.named import incident_named, not_there, number_of
from lumyn.incidents.store import IncidentStore
from lumyn.incidents.target import parse_target
from lumyn.lookup import shown
from lumyn.wiring import home_as
from schemas.errors import BadInput, LumynError, NotFound, UsageError
from schemas.limits import MAX_TEXT
from schemas.query import describe, parse_query
from streams.local_log import wall_clock_ms

MAX_TITLE = 200
MAX_SECTION = 64 * 1024
MAX_LINKED = 10_000
_SECTION = re.compile(r"[a-z][a-z0-9-]{0,40}", re.ASCII)
_ACTION = re.compile(r"A[1-9][0-9]{0,3}", re.IGNORECASE | re.ASCII)
Said = list[tuple[str, Mapping[str, Any]]]


class Changed(LumynError):
    """What is to be changed was changed by somebody else since it was looked at."""

    code = "changed"


class Incidents:
    """The incidents of one tenant of a home. `tenant`, `actor`: others than the configured ones (an API key's).

    Errors are `LumynError`s: `NotFound` for what this tenant does not have, `UsageError` and `BadInput` for what can't
    be taken, `IntegrityError` where events are not as they were said, `StorageUnavailable`.
    """

    def __init__(self, home: Home, *, tenant: str | None = None, actor: str | None = None) -> None:
        if tenant is not None or actor is not None:
            home = home_as(home, tenant or home.settings.tenant, actor or home.settings.actor)
        self.home = home
        self.tenant, self.actor = home.settings.tenant, home.settings.actor
        self.store = IncidentStore(home.path)

    def open(
        self,
        title: str,
        *,
        severity: str = "sev3",
        summary: str = "",
        query: str | None = None,
        decisions: Sequence[str] = (),
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Incident:
        """Open an incident. Decisions are linked; what `query` finds belongs to it, too, as it stands when asked.

        A query's times are kept in full, so that "14:25" stays the day that it was said of. Raises `BadQuery`.
        """
        if start_ms is not None and end_ms is not None and start_ms >= end_ms:
            raise UsageError("the incident's window ends before it begins")
        data: dict[str, Any] = {
            "title": _title(title), "severity": _severity(severity), "summary": _text(summary, "summary", empty=True),
            "query": self._query(query), "start_ms": start_ms, "end_ms": end_ms,
        }  # fmt: skip
        said: Said = [("opened", data), *self._links([("decision", ref, "") for ref in decisions])]
        opened = self.store.append(self.tenant, None, lambda _: said, actor=self.actor, at_ms=wall_clock_ms())
        assert opened is not None
        return opened

    def show(self, name: str) -> Incident:
        """One incident, by `INC-7` or `7`."""
        return incident_named(self.store, self.tenant, name)

    def list(self, *, status: str | None = None, limit: int | None = None) -> list[Incident]:
        """The incidents, newest first; of a status, or `unclosed`."""
        if status not in (None, "unclosed", *STATUSES):
            raise UsageError(f"unknown status `{shown(str(status))}`", help=f"unclosed, {', '.join(STATUSES)}")
        found: list[Incident] = []
        for number in self.store.numbers(self.tenant):
            if limit is not None and len(found) >= limit:
                break
            incident = self.store.read(self.tenant, number)
            assert incident is not None
            if status in (None, incident.status) or (status == "unclosed" and incident.status != "closed"):
                found.append(incident)
        return found

    def change(self, name: str, **said: Any) -> Incident:
        """Set title, severity, summary, query, start_ms or end_ms anew; what was said before stays among the events."""
        checks: dict[str, Callable[[Any], Any]] = {
            "title": _title, "severity": _severity, "summary": lambda text: _text(text, "summary", empty=True),
            "query": self._query, "start_ms": int, "end_ms": int,
        }  # fmt: skip
        data = {field: checks[field](value) for field, value in said.items() if value is not None}
        if not data:
            raise UsageError("nothing is to be changed")
        return self._say(name, lambda _: [("changed", data)])

    def add(self, name: str, given: Sequence[tuple[str, str, str]]) -> Incident:
        """Link (kind, reference, note) each, all or none; what is linked already is linked anew, with the new note."""
        said = self._links(given)
        return self._say(name, lambda _: said)

    def remove(self, name: str, kind: str, ref: str, why: str) -> Incident:
        """Take a link off, with a reason; that it was there stays among the events."""

        def removed(incident: Incident) -> Said:
            found = [link for link in incident.links if link.kind == kind and link.ref.startswith(ref)]
            if len(found) != 1:
                raise NotFound(f"{incident.id} has no one link `{shown(kind)} {shown(ref)}`")
            return [("removed", {"kind": kind, "ref": found[0].ref, "why": _text(why, "reason")})]

        return self._say(name, removed)

    def note(self, name: str, text: str, *, when_ms: int | None = None) -> Incident:
        """Add a line to the timeline; `when_ms`: when it happened, if not now."""
        data: dict[str, Any] = {"text": _text(text, "note")}
        if when_ms is not None:
            data["when_ms"] = when_ms
        return self._say(name, lambda _: [("noted", data)])

    def write(self, name: str, section: str, text: str) -> Incident:
        """Write a part of the postmortem (`why1`, `recur`, ...); the last text counts, the ones before are kept."""
        if not _SECTION.fullmatch(section):
            raise UsageError(f"`{shown(section)}` is no section's name", help="small letters, digits and `-`: why1")
        if "<!-- lumyn:" in text:
            raise BadInput("a section can't hold a marker of a postmortem (`<!-- lumyn:`)")
        data = {"section": section, "text": _text(text, "section", most=MAX_SECTION, empty=True)}

        def written(incident: Incident) -> Said:
            known = incident.sections.get(section)
            return [] if known is not None and known.text == data["text"] else [("written", data)]

        return self._say(name, written)

    def action(self, name: str, action: str | None = None, *, seen: int | None = None, **said: Any) -> Incident:
        """Add an action item (`action` None), or change one: text, owner, state, due, target, watch, query, ticket.

        Empty text takes a due date, target, watch, query or ticket off again. `seen`: the number of the last event that
        the change was made in sight of; raises `Changed` where a later one was about this item.
        """
        data = self._action(said)
        if action is not None and not _ACTION.fullmatch(action):
            raise UsageError(f"`{shown(action)}` is no action", help="such as A1; `lumyn incident show ID` has them")

        def acted(incident: Incident) -> Said:
            if action is None:
                if not data.get("text"):
                    raise UsageError("an action item needs a text")
                return [("action", {"id": f"A{len(incident.actions) + 1}", "state": "open", **data})]
            known = next((one for one in incident.actions if one.id == action.upper()), None)
            if known is None:
                raise NotFound(f"{incident.id} has no action item `{action}`")
            if not data:
                raise UsageError("nothing is to be changed")
            later = [one for one in incident.events if one.kind == "action" and one.data["id"] == known.id]
            if seen is not None and later[-1].seq > seen:
                raise Changed(f"{known.id} was changed by {later[-1].actor} meanwhile", help="look at it again")
            return [("action", {"id": known.id, **data})]

        return self._say(name, acted)

    def _action(self, said: Mapping[str, Any]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for field, value in said.items():
            if value is None:
                continue
            if field == "state":
                if value not in ACTION_STATES:
                    raise UsageError(f"unknown state `{shown(str(value))}`", help=f"one of {', '.join(ACTION_STATES)}")
                data[field] = value
            elif field == "due":
                data[field] = _day(value) if value else None
            elif field == "target":
                data[field] = parse_target(value) if value else None
            elif field == "query":
                data[field] = self._query(value) if value else None
            elif field == "ticket":
                data[field] = links.ticket(self.home, value)[0] if value else None
            else:
                data[field] = _text(value, field, empty=field != "text") or None
        if "owner" in data:
            data["owner"] = data["owner"] or ""
        return data

    def step(
        self,
        name: str,
        *,
        run: str,
        runbook: str,
        step: str,
        state: str,
        text: str = "",
        output: str = "",
        kept: Mapping[str, str] | None = None,
    ) -> Incident:
        """Record a step of a runbook: what became of it, what it printed, and what later steps need of it."""
        said: Said = [
            (
                "step",
                {
                    "run": run, "runbook": runbook, "step": step, "state": state, "text": text[:MAX_TEXT],
                    "output": output[:MAX_TEXT], "kept": dict(kept or {}),
                },
            )
        ]  # fmt: skip
        return self._say(name, lambda _: said)

    def status(self, name: str, status: str, why: str = "") -> Incident:
        """Say where it stands: open, contained, monitoring. `close` and `reopen` are the other two."""
        if status not in STATUSES or status == "closed":
            raise UsageError(f"unknown status `{shown(status)}`", help="open, contained, monitoring; `close` closes it")

        def said(incident: Incident) -> Said:
            _must_be_open(incident)
            return [("status", {"status": status, "why": _text(why, "reason", empty=True)})]

        return self._say(name, said)

    def close(self, name: str, why: str) -> Incident:
        """Close it, with what was learnt. Open action items stay open, and are found by `list`."""

        def closed(incident: Incident) -> Said:
            _must_be_open(incident)
            return [("closed", {"why": _text(why, "reason")})]

        return self._say(name, closed)

    def reopen(self, name: str, why: str) -> Incident:
        """Open a closed incident again."""

        def opened(incident: Incident) -> Said:
            if incident.status != "closed":
                raise UsageError(f"{incident.id} is not closed")
            return [("reopened", {"why": _text(why, "reason")})]

        return self._say(name, opened)

    def _say(self, name: str, said: Callable[[Incident], Said]) -> Incident:
        def on(incident: Incident | None) -> Said:
            assert incident is not None
            return said(incident)

        after = self.store.append(self.tenant, number_of(name), on, actor=self.actor, at_ms=wall_clock_ms())
        if after is None:
            raise not_there(name)
        return after

    def _links(self, given: Sequence[tuple[str, str, str]]) -> Said:
        if len(given) > MAX_LINKED:
            raise UsageError(f"{len(given)} things to link are too many", help="give the query that finds them")
        said: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
        for kind, ref, note in given:
            whole, seen = links.checked(self.home, kind, ref)
            data = {"kind": kind, "ref": whole, "note": _text(note, "note", empty=True), "detail": seen}
            said[kind, whole] = ("added", data)
        return list(said.values())

    def _query(self, query: str | None) -> str | None:
        return describe(parse_query(query, now_ms=wall_clock_ms())) if query is not None else None


def _must_be_open(incident: Incident) -> None:
    if incident.status == "closed":
        raise UsageError(f"{incident.id} is closed", help=f"`lumyn incident reopen {incident.id} --why ...`")


def _title(text: str) -> str:
    told = " ".join(text.split())
    if not told or len(told) > MAX_TITLE:
        raise BadInput(f"a title has 1 to {MAX_TITLE} characters, not {len(told)}")
    return told


def _severity(text: str) -> str:
    low = text.lower()
    low = f"sev{low}" if low.isdigit() else low
    if low not in SEVERITIES:
        raise UsageError(f"unknown severity `{shown(text)}`", help=f"one of {', '.join(SEVERITIES)}; 1 is the worst")
    return low


def _text(text: str, what: str, *, most: int = MAX_TEXT, empty: bool = False) -> str:
    told = text.strip()
    if len(told) > most:
        raise BadInput(f"the {what} has {len(told)} characters, more than {most}")
    if not told and not empty:
        raise BadInput(f"the {what} is empty")
    return told


def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"`{shown(text)}` is no day", help="such as 2025-01-31") from None
