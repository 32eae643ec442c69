"""An incident as it stands: a fold over its events, which are only ever added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

SEVERITIES: Final = ("sev1", "sev2", "sev3", "sev4")
STATUSES: Final = ("open", "contained", "monitoring", "closed")
ACTION_STATES: Final = ("open", "doing", "done", "dropped")
GONE: Final = "[redacted]"
"""Stands where a text was that was redacted (`redaction.py`)."""


@dataclass(frozen=True, slots=True)
class Event:
    """What was said of an incident, when (log-independent wall clock, ms since 1970) and by whom; `seq` counts from 1.

    `digest` covers all of it and the digest of the event before (`chain.py`). `redacted`: its text was taken out since.
    """

    seq: int
    at_ms: int
    actor: str
    kind: str
    data: Mapping[str, Any]
    digest: str
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """Something that belongs to the incident. `detail` is what was seen of it when it was linked."""

    kind: str
    ref: str
    note: str
    detail: Mapping[str, Any]
    at_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Note:
    """A line of the timeline; `when_ms` is when it happened, `at_ms` when it was written down."""

    text: str
    when_ms: int
    at_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Section:
    """What somebody wrote for a part of the postmortem; the last one counts."""

    name: str
    text: str
    at_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Action:
    """What is to be done. `target`: where it is about a rate, `{text, was, bound, below}`; `watch` checks it."""

    id: str
    text: str
    owner: str
    state: str
    due: str | None
    target: Mapping[str, Any] | None
    watch: str | None
    query: str | None
    ticket: str | None
    at_ms: int
    actor: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a runbook that was gone through: what became of it, its output, and what later steps need of it."""

    run: str
    runbook: str
    step: str
    state: str
    text: str
    output: str
    kept: Mapping[str, str]
    at_ms: int
    actor: str

    @property
    def told(self) -> str:
        """Its state, and once it is over what it did: the answer, the command, or what a wait measured."""
        return self.state if self.state == "begun" or not self.text else f"{self.state}: {self.text}"


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident. Times are milliseconds since 1970; `start_ms`, `end_ms` are its window, where one is known."""

    tenant: str
    number: int
    title: str
    severity: str
    summary: str
    status: str
    opened_ms: int
    opened_by: str
    closed_ms: int | None = None
    start_ms: int | None = None
    end_ms: int | None = None
    query: str | None = None
    links: tuple[Link, ...] = ()
    notes: tuple[Note, ...] = ()
    sections: Mapping[str, Section] = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    steps: tuple[Step, ...] = ()
    events: tuple[Event, ...] = ()

    @property
    def id(self) -> str:
        """The name that people use: `INC-7`."""
        return f"INC-{self.number}"

    def refs(self, kind: str) -> list[str]:
        """What is linked of a kind, in the order of linking."""
        return [link.ref for link in self.links if link.kind == kind]

    @property
    def decisions(self) -> list[str]:
        """The ids of the linked decisions. What `query` finds belongs to the incident, too (`evidence.py`)."""
        return self.refs("decision")

    @property
    def unfinished(self) -> list[Action]:
        """The action items that are still to be done; closing the incident does not end them."""
        return [action for action in self.actions if action.state in ("open", "doing")]

    @property
    def asked(self) -> str | None:
        """The query that can be asked: None where there is none, or where it was redacted."""
        return None if self.query == GONE else self.query

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        out = asdict(self)
        out["sections"] = {name: asdict(section) for name, section in self.sections.items()}
        return {"id": self.id, **out}

    def text(self) -> str:
        """All that people wrote of it: what a search goes through."""
        written = [
            self.title,
            self.summary,
            self.query or "",
            *(note.text for note in self.notes),
            *(section.text for section in self.sections.values()),
            *(action.text for action in self.actions),
            *(f"{link.kind} {link.ref} {link.note}" for link in self.links),
        ]
        return "\n".join(part for part in written if part)


def fold(tenant: str, number: int, events: Sequence[Event]) -> Incident:
    """The incident that events make, in their order. An event of a kind not known here changes nothing."""
    first = events[0]
    data = first.data
    incident = Incident(
        tenant=tenant, number=number, title=data["title"], severity=data["severity"], summary=data.get("summary", ""),
        status="open", opened_ms=first.at_ms, opened_by=first.actor, start_ms=data.get("start_ms"),
        end_ms=data.get("end_ms"), query=data.get("query"), events=tuple(events),
    )  # fmt: skip
    for event in events[1:]:
        incident = _applied(incident, event)
    return incident


def _applied(incident: Incident, event: Event) -> Incident:
    data, at, actor = event.data, event.at_ms, event.actor
    match event.kind:
        case "changed":
            known = ("title", "severity", "summary", "start_ms", "end_ms", "query")
            return replace(incident, **{name: data[name] for name in known if name in data})
        case "added":
            others = tuple(k for k in incident.links if (k.kind, k.ref) != (data["kind"], data["ref"]))
            link = Link(data["kind"], data["ref"], data.get("note", ""), data.get("detail", {}), at, actor)
            return replace(incident, links=(*others, link))
        case "removed":
            kept = tuple(k for k in incident.links if (k.kind, k.ref) != (data["kind"], data["ref"]))
            return replace(incident, links=kept)
        case "noted":
            return replace(incident, notes=(*incident.notes, Note(data["text"], data.get("when_ms", at), at, actor)))
        case "written":
            section = Section(data["section"], data["text"], at, actor)
            return replace(incident, sections={**incident.sections, section.name: section})
        case "action":
            return replace(incident, actions=_with_action(incident.actions, event))
        case "step":
            step = Step(
                data["run"], data["runbook"], data["step"], data["state"], data.get("text", ""),
                data.get("output", ""), data.get("kept", {}), at, actor,
            )  # fmt: skip
            return replace(incident, steps=(*incident.steps, step))
        case "status":
            return replace(incident, status=data["status"])
        case "closed":
            return replace(incident, status="closed", closed_ms=at)
        case "reopened":
            return replace(incident, status="open", closed_ms=None)
        case _:
            return incident


def _with_action(actions: tuple[Action, ...], event: Event) -> tuple[Action, ...]:
    data = event.data
    named = {action.id: action for action in actions}
    before = named.get(data["id"])
    if before is None:
        before = Action(
            data["id"], "", "", "open", None, None, None, None, None, event.at_ms, event.actor
        )  # fmt: skip
    said = {name: data[name] for name in _OF_ACTION if name in data}
    named[before.id] = replace(before, **said)
    return tuple(named.values())


_OF_ACTION = ("text", "owner", "state", "due", "target", "watch", "query", "ticket")
