"""What was said of each decision, event by event, and what would be said if a job, or all after a version, were not.

Events are never taken out: what is undone is passed over, and a `restore` event then says what is left. Undoing an undo
is the same thing: its own events are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from memory_service.fold import DecisionLabels, Standing, apply_event, standing
from schemas.label import LabelEvent, Restored, Undoes
from schemas.verdict import Verdict
from streams.log import Log
from streams.reading import messages
from streams.sealing import event_in
from streams.subject_keys import keys_of
from streams.topics import LABELS


@dataclass(slots=True)
class History:
    """One decision's events that the memory goes by, in version order; notes are not among them."""

    decision_id: str
    verdict: Verdict
    events: list[LabelEvent] = field(default_factory=list)

    @property
    def last(self) -> int:
        """The version of the last event."""
        return self.events[-1]["version"] if self.events else 0

    def now(self) -> Restored:
        """What is said of the decision."""
        return folded(self.verdict, self.events)

    def standing(self) -> Standing | None:
        """What it stands for now; None: not in the memory."""
        return standing_of(self.verdict, self.now())

    def counting(self) -> list[LabelEvent]:
        """The events that count: those that nothing undoes."""
        return _left(self.events, [])

    def without(self, undone: Undoes) -> Restored:
        """What would be said of it without the events that this undoes."""
        return folded(self.verdict, _left(self.events, [undone]))

    def had_not_been(self, undone: Undoes) -> list[LabelEvent]:
        """The events as they would have been, had those that this undoes never been; other undos among them."""
        kept: list[LabelEvent] = []
        for event in self.events:
            if _is_undone(event, undone):
                continue
            if event["type"] == "restore":
                event = cast(LabelEvent, {**event, "restored": folded(self.verdict, [*kept, event])})
            kept.append(event)
        return kept

    def had_been_said(self, said: LabelEvent) -> list[LabelEvent]:
        """The events, had this been said at first and nothing else; in and out of quarantine as it was."""
        first = self.events[0]
        kept = [cast(LabelEvent, {**first, **said, "version": first["version"]})]
        return kept + [event for event in map(_quarantine_alone, self.events) if event is not None]

    def had_not_been_quarantined(self) -> list[LabelEvent]:
        """The events without any quarantine."""
        kept = [event for event in self.events if event["type"] not in ("quarantine", "release")]
        return [
            cast(LabelEvent, {**event, "restored": {**restored, "quarantined": False}})
            if (restored := event.get("restored"))
            else event
            for event in kept
        ]

    def touched_by(self, undone: Undoes) -> bool:
        """Whether this undoes any event that is not undone already, an undo among them."""
        return any(_is_undone(event, undone) for event in _in_force(self.events, []))


def histories(log: Log, tenant: str) -> dict[str, History]:
    """Every labelled decision of a tenant, by id, without those of forgotten subjects. Reads all of `labels`.

    Raises `StorageUnavailable`.
    """
    return histories_of((event_in(keys_of(log), message.value) for message in messages(log, LABELS, 0)), tenant)


def histories_of(events: Iterable[LabelEvent], tenant: str) -> dict[str, History]:
    """The same from events in version order."""
    found: dict[str, History] = {}
    for event in events:
        decision = event["decision"]
        if event["tenant"] != tenant or event["type"] == "note" or decision is None:
            continue
        name = event["decision_id"]
        history = found.get(name)
        if history is None:
            history = found[name] = History(name, decision["verdict"])
        history.events.append(event)
    return found


def _quarantine_alone(event: LabelEvent) -> LabelEvent | None:
    """What an event says of the quarantine; None: nothing."""
    restored = event.get("restored")
    if restored:
        kind = "quarantine" if restored["quarantined"] else "release"
        return cast(LabelEvent, {**event, "type": kind, "restored": None})
    return event if event["type"] in ("quarantine", "release") else None


def _is_undone(event: LabelEvent, undone: Mapping[str, object]) -> bool:
    if "job" in undone:
        return event["job"] is not None and event["job"] == undone["job"]
    return event["version"] > undone["after"]  # type: ignore[operator]


def _left(events: Sequence[LabelEvent], undone: list[Undoes]) -> list[LabelEvent]:
    """The events that count: those in force, without the undos among them."""
    return [event for event in _in_force(events, undone) if event["type"] != "restore"]


def _in_force(events: Sequence[LabelEvent], undone: list[Undoes]) -> list[LabelEvent]:
    """What is not undone: from the last to the first, as whether an undo counts is decided by what came after it."""
    passed_over, found = list(undone), []
    for event in reversed(events):
        if any(_is_undone(event, one) for one in passed_over):
            continue
        found.append(event)
        if event["type"] == "restore" and (undoes := event.get("undoes")):
            passed_over.append(undoes)
    return found[::-1]


def bare(verdict: Verdict) -> DecisionLabels:
    """A decision of which nothing is said yet, by what meanings depend on alone."""
    return DecisionLabels("", {"action_type": "", "verdict": verdict, "rules": [], "amount": None, "facts": {}})


def standing_of(verdict: Verdict, said: Restored) -> Standing | None:
    """What a decision stands for of which this is said."""
    labels = bare(verdict)
    apply_event(labels, cast(LabelEvent, {"type": "restore", "restored": said}))
    return standing(labels)


def folded(verdict: Verdict, events: Sequence[LabelEvent]) -> Restored:
    """What events, in order, leave said of a decision; of a `restore` it counts what it undoes."""
    labels = bare(verdict)
    for event in _left(events, []):
        apply_event(labels, event)
    return {
        "said": [
            {"actor": actor, "label": label, "should": should, "summary": summary}  # type: ignore[typeddict-item]
            for actor, (label, should, summary) in labels.said.items()
        ],
        "quarantined": labels.quarantined,
    }
