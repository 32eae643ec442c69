"""What happened when: decisions, labels, changes of control, jobs, runbooks and notes on one line of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lumyn.figures import recorded
from lumyn.home import Home
from lumyn.incidents.chain import REDACTED
from lumyn.incidents.evidence import DAY_MS, Decisions
from lumyn.incidents.model import Incident
from lumyn.rate_files import load
from schemas.errors import LumynError
from schemas.ids import time_ms_of
from streams.control_history import ControlChange, control_history

_MOST_DECISIONS = 30
_MOST_LABELLED = 200
_MOST_LABELS = 60


@dataclass(frozen=True, slots=True)
class Moment:
    """A line: when (ms), what kind of thing, what happened, who did it, and the command that shows it."""

    at_ms: int
    kind: str
    what: str
    who: str
    command: str


def timeline(home: Home, incident: Incident, found: Decisions) -> tuple[list[Moment], list[str]]:
    """The moments in order, and what was left out, in words."""
    left_out: list[str] = []
    moments = [
        *_decisions(incident, found, left_out),
        *_labels(home, found, left_out),
        *(change for one in changes_around(home, incident, found) if (change := _change(one)) is not None),
        *_linked(home, incident),
        *_said(incident),
    ]
    return sorted(moments, key=lambda one: one.at_ms), left_out


def _decisions(incident: Incident, found: Decisions, left_out: list[str]) -> Iterator[Moment]:
    """All, or of many the first and the last, those that were linked or labelled, and then the first ones."""
    linked = set(incident.decisions)
    rows = tuple(sorted(found.rows, key=lambda row: (row.created_ms, row.partition, row.offset)))  # as in the log

    def is_less(at: int) -> bool:
        return not (at in (0, len(rows) - 1) or rows[at].decision_id in linked or rows[at].label is not None)

    chosen = sorted(range(len(rows)), key=is_less)[:_MOST_DECISIONS]
    if gone := len(rows) - len(chosen):
        is_all = all(map(is_less, set(range(len(rows))) - set(chosen)))
        also = "" if is_all else ", linked or labelled ones among them"
        left_out.append(f"{gone} of {len(rows)} decisions{also}")
    for row in (rows[at] for at in sorted(chosen)):
        amount = f" {recorded(row.amount)} {row.currency or ''}".rstrip()
        what = f"{row.action_type}{amount}: {row.verdict} ({', '.join(row.reason_codes)})"
        yield Moment(row.created_ms, "decision", what, f"{row.policy}@{row.version}", f"lumyn show {row.decision_id}")


def _labels(home: Home, found: Decisions, left_out: list[str]) -> Iterator[Moment]:
    labelled = [row for row in found.rows if row.label is not None]
    if len(labelled) > _MOST_LABELLED:
        left_out.append(f"the labels of {len(labelled) - _MOST_LABELLED} decisions")
    told = [event for row in labelled[:_MOST_LABELLED] for event in home.events(row.decision_id)]
    if len(told) > _MOST_LABELS:
        left_out.append(f"{len(told) - _MOST_LABELS} of {len(told)} labels")
    for event in told[:_MOST_LABELS]:
        should = f", should have been {event['should']}" if event["should"] else ""
        job = f", by {event['job']}" if event["job"] else ""
        what = f"{event['label'] or event['type']}{should}: {event['summary']}{job}"
        command = f"lumyn show {event['decision_id']}"
        yield Moment(time_ms_of(event["at"]), event["type"], what, event["actor"], command)


def span_of(incident: Incident, found: Decisions) -> tuple[int, int]:
    """The incident's window; where none was given, from its first decision to its last; else when it was opened."""
    rows = found.rows
    start = incident.start_ms if incident.start_ms is not None else rows[0].created_ms if rows else incident.opened_ms
    end = incident.end_ms if incident.end_ms is not None else rows[-1].created_ms + 1 if rows else start + 1
    return start, max(end, start + 1)


def changes_around(home: Home, incident: Incident, found: Decisions) -> list[ControlChange]:
    """What was changed through control from a day before the window on, up to the incident's end where it is closed."""
    start, _ = span_of(incident, found)
    last = incident.closed_ms
    told = control_history(home.log, home.settings.tenant)
    return [one for one in told if one.at_ms >= start - DAY_MS and (last is None or one.at_ms <= last)]


def change_text(one: ControlChange) -> str | None:
    """A change in words; None for what decides nothing by itself."""
    said, why = one.said, f": {one.why}" if one.why else ""
    policy = f"{said.get('name')}@{said.get('policy_version')}"
    match one.kind:
        case "policy_activated":
            return f"policy {policy} activated{why}"
        case "policy_published" if said.get("origin") == "publish":
            return f"policy {policy} published"
        case "policy_published" if said.get("origin") == "file":
            return f"policy {policy} first used, from a file"
        case "kill_switch_on":
            scope = said.get("scope") or {}
            told = ", ".join(f"{name}={value}" for name, value in scope.items()) or "everything"
            return f"kill switch {said.get('switch_id')} on ({told}){why}"
        case "kill_switch_off":
            return f"kill switch {said.get('switch_id')} off{why}"
        case "memory_switched":
            return f"memory switched to {(said.get('memory') or {}).get('embedder')}{why}"
        case _:
            return None


def _change(one: ControlChange) -> Moment | None:
    text = change_text(one)
    if text is None:
        return None
    command = "lumyn kill-switch status" if one.kind.startswith("kill") else "lumyn policy list"
    return Moment(one.at_ms, "control", text, one.actor, command)


def _linked(home: Home, incident: Incident) -> Iterator[Moment]:
    for ref in incident.refs("rate"):
        try:
            header = load(home.settings, ref).header
        except LumynError:
            continue
        what = f"the agent was run again: {header['asked']['agent']}"
        yield Moment(time_ms_of(header["created_at"]), "rate", what, "", f"lumyn rate show {ref}")
    for link in incident.links:
        if link.kind == "job" and isinstance(link.detail.get("at"), str):
            what = f"{link.ref}: {labels(link.detail)}"
            actor = str(link.detail.get("actor", ""))
            yield Moment(time_ms_of(link.detail["at"]), "job", what, actor, f"lumyn incident show {incident.id}")
        elif link.kind == "gameday" and isinstance(link.detail.get("at"), str):
            ends = "holds" if link.detail.get("passed") else "fails"
            what = f"{link.detail.get('name')} {ends}"
            yield Moment(time_ms_of(link.detail["at"]), "gameday", what, "", f"lumyn gameday show {link.ref}")


def labels(detail: Mapping[str, object]) -> str:
    """How many labels a job set."""
    count = detail.get("labels", "")
    return f"{count} label{'' if count == 1 else 's'}"


def _said(incident: Incident) -> Iterator[Moment]:
    command = f"lumyn incident show {incident.id}"
    for note in incident.notes:
        yield Moment(note.when_ms, "note", note.text, note.actor, command)
    for step in incident.steps:
        yield Moment(step.at_ms, "runbook", f"{step.runbook}, {step.step}: {step.told}", step.actor, command)
    for event in incident.events:
        why = f": {event.data['why']}" if event.data.get("why") else ""
        if event.kind in ("opened", "closed", "reopened"):
            yield Moment(event.at_ms, "incident", f"{incident.id} {event.kind}{why}", event.actor, command)
        elif event.kind == REDACTED:
            which = ", ".join(str(one["seq"]) for one in event.data["events"])
            yield Moment(event.at_ms, "incident", f"texts of event {which} redacted{why}", event.actor, command)
        elif event.kind == "status":
            yield Moment(event.at_ms, "incident", f"{event.data['status']}{why}", event.actor, command)
        elif event.kind == "action" and event.data.get("state") == "done":
            yield Moment(event.at_ms, "action", f"{event.data['id']} done", event.actor, command)
