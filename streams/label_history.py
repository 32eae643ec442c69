"""What was said of each decision, event by event, and what would be said if a job, or all after a version, were not.

Events are never taken out: what is undone is passed over, and a `restore` event then says what is left; of the trust in
a labeller a `trust` event says it. Undoing an undo is the same thing: its own events are passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from memory_service.fold import DecisionLabels, Said, Standing, apply_event, standing
from memory_service.timeline import by_labeller
from schemas.canonical import decode_trusted
from schemas.label import (
    FULL_TRUST,
    LabelEvent,
    LabelledDecision,
    Restored,
    Undoes,
    labeller_key,
    labellers_of,
    trust_of,
)
from schemas.verdict import Verdict
from streams.log import Log
from streams.reading import is_embedded, messages
from streams.sealing import event_in
from streams.subject_keys import keys_of
from streams.topics import LABELS


class Trusts(dict[str, list[LabelEvent]]):
    """The events that set the trust in a tenant's labellers, in order, by labeller."""

    def now(self) -> dict[str, int]:
        """In hundredths; of those whom we do not trust in full."""
        found = {name: trust_of(events[-1]) for name, events in self.items()}
        return {name: trust for name, trust in found.items() if trust != FULL_TRUST}

    def without(self, labeller: str, undone: Undoes) -> int:
        """How much he would be trusted without the events that this undoes."""
        return trust_left(self[labeller], [undone])

    def had_not_been(self, labeller: str, undone: Undoes) -> list[LabelEvent]:
        """A labeller's events as they would have been, had those that this undoes never been."""
        return _had_not_been(self[labeller], undone, _with_trust_left)

    def before_held(self, labeller: str) -> int:
        """How much he was trusted before he was held."""
        counting = [trust_of(event) for event in _left(self.get(labeller, ()), [])]
        return next((trust for trust in reversed(counting) if trust), FULL_TRUST)


@dataclass(slots=True)
class History:
    """One decision's events that the memory goes by, in version order; notes are not among them."""

    decision_id: str
    verdict: Verdict
    events: list[LabelEvent] = field(default_factory=list)
    trusts: Trusts = field(default_factory=Trusts)

    @property
    def last(self) -> int:
        """The version of the last event."""
        return self.events[-1]["version"] if self.events else 0

    def labels(self) -> DecisionLabels:
        """What is said of the decision, with the trust in who said it."""
        return _folded(self.verdict, self.events, self.trusts.now())

    def words(self) -> list[Said]:
        """The words that count, in order."""
        return self.labels().words()

    def standing(self) -> Standing | None:
        """What it stands for now; None: not in the memory."""
        return standing(self.labels())

    def speakers(self) -> set[str]:
        """All who ever said anything of it."""
        return set[str]().union(*(labellers_of(event) for event in self.events))

    def counting(self) -> list[LabelEvent]:
        """The events that count: those that nothing undoes."""
        return _left(self.events, [])

    def without(self, undone: Undoes) -> Restored:
        """What would be said of it without the events that this undoes."""
        return folded(self.verdict, _left(self.events, [undone]), self.trusts.now())

    def had_not_been(self, undone: Undoes) -> list[LabelEvent]:
        """The events as they would have been, had those that this undoes never been; other undos among them."""
        return _had_not_been(self.events, undone, partial(_with_restored_left, self.verdict))

    def had_been_said(self, said: LabelEvent) -> list[LabelEvent]:
        """The events, had this been said at first and nothing else; in and out of quarantine as it was."""
        first = self.events[0]
        kept = [cast(LabelEvent, {**first, **said, "version": first["version"]})]
        word = {name: kept[0][name] for name in ("actor", "label", "should", "summary", "at")}
        for event in self.events:
            if restored := event.get("restored"):
                kept.append(cast(LabelEvent, {**event, "restored": {**restored, "said": [word]}}))
            elif event["type"] in ("quarantine", "release"):
                kept.append(event)
        return kept

    def had_not_been_quarantined(self) -> list[LabelEvent]:
        """The events without any quarantine."""
        kept = [event for event in self.events if event["type"] not in ("quarantine", "release")]
        return [
            cast(LabelEvent, {**event, "restored": {"said": restored["said"], "quarantined": False}})
            if (restored := event.get("restored"))
            else event
            for event in kept
        ]

    def touched_by(self, undone: Undoes) -> bool:
        """Whether this undoes any event that is not undone already, an undo among them."""
        return touches(self.events, undone)


class Histories(dict[str, History]):
    """A tenant's labelled decisions by id, and the trust in their labellers."""

    def __init__(self, trusts: Trusts) -> None:
        super().__init__()
        self.trusts = trusts


def histories(log: Log, tenant: str) -> Histories:
    """Every labelled decision of a tenant, by id, without those of forgotten subjects. Reads all of `labels`.

    Raises `StorageUnavailable`.
    """
    return histories_of((event_in(keys_of(log), message.value) for message in messages(log, LABELS, 0)), tenant)


def histories_of(events: Iterable[LabelEvent], tenant: str) -> Histories:
    """The same from events in version order."""
    own = [event for event in events if event["tenant"] == tenant and event["type"] != "note"]
    found = Histories(Trusts({labeller: told for (_, labeller), told in by_labeller(own).items()}))
    for event in own:
        decision, name = event["decision"], event["decision_id"]
        if decision is None:
            continue
        history = found.get(name)
        if history is None:
            history = found[name] = History(name, decision["verdict"], trusts=found.trusts)
        history.events.append(event)
    return found


def trust_events(log: Log, tenant: str, labellers: Iterable[str]) -> dict[tuple[str, str], list[LabelEvent]]:
    """The events that set the trust in some labellers. Raises `StorageUnavailable`."""
    wanted = {(tenant, name) for name in labellers}
    if is_embedded(log):
        keys = [labeller_key(*of).encode() for of in wanted]
        found = by_labeller(decode_trusted(message.value) for key in keys for message in log.with_key(LABELS, key))
    else:
        found = by_labeller(decode_trusted(message.value) for message in messages(log, LABELS, 0))
    return {of: events for of, events in found.items() if of in wanted}


def touches(events: Sequence[LabelEvent], undone: Undoes) -> bool:
    """Whether this undoes any event of one decision or labeller that is not undone already, an undo among them."""
    return any(_is_undone(event, undone) for event in _in_force(events, []))


def _had_not_been(events: Sequence[LabelEvent], undone: Undoes, left: Any) -> list[LabelEvent]:
    """Events without what this undoes; an undo that stays says what would then have been left."""
    kept: list[LabelEvent] = []
    for event in events:
        if not _is_undone(event, undone):
            kept.append(left(kept, event) if event.get("undoes") else event)
    return kept


def _with_restored_left(verdict: Verdict, before: Sequence[LabelEvent], event: LabelEvent) -> LabelEvent:
    return cast(LabelEvent, {**event, "restored": folded(verdict, [*before, event], {})})


def _with_trust_left(before: Sequence[LabelEvent], event: LabelEvent) -> LabelEvent:
    return cast(LabelEvent, {**event, "trust": trust_left([*before, event], []) / FULL_TRUST})


def trust_left(events: Sequence[LabelEvent], undone: list[Undoes]) -> int:
    """The trust in a labeller, in hundredths, by the events that count."""
    return next((trust_of(event) for event in reversed(_left(events, undone))), FULL_TRUST)


def _is_undone(event: LabelEvent, undone: Mapping[str, object]) -> bool:
    if "job" in undone:
        return event["job"] is not None and event["job"] == undone["job"]
    return event["version"] > undone["after"]  # type: ignore[operator]


def _left(events: Sequence[LabelEvent], undone: list[Undoes]) -> list[LabelEvent]:
    """The events that count: those in force, without the undos among them."""
    return [event for event in _in_force(events, undone) if not event.get("undoes")]


def _in_force(events: Sequence[LabelEvent], undone: list[Undoes]) -> list[LabelEvent]:
    """What is not undone: from the last to the first, as whether an undo counts is decided by what came after it."""
    passed_over, found = list(undone), []
    for event in reversed(events):
        if any(_is_undone(event, one) for one in passed_over):
            continue
        found.append(event)
        if undoes := event.get("undoes"):
            passed_over.append(undoes)
    return found[::-1]


def bare(verdict: Verdict, tenant: str = "", trust: Mapping[str, int] | None = None) -> DecisionLabels:
    """A decision of which nothing is said yet, by what meanings depend on alone."""
    decision: LabelledDecision = {"action_type": "", "verdict": verdict, "rules": [], "amount": None, "facts": {}}
    return DecisionLabels(tenant, decision, trust=dict(trust or {}))


def _folded(verdict: Verdict, events: Sequence[LabelEvent], trust: Mapping[str, int]) -> DecisionLabels:
    """What events leave said, by what meanings depend on alone; of a `restore` it counts what it undoes."""
    labels = bare(verdict, trust=trust)
    for event in _left(events, []):
        apply_event(labels, event)
    return labels


def folded(verdict: Verdict, events: Sequence[LabelEvent], trust: Mapping[str, int]) -> Restored:
    """What events, in order, leave said of a decision; of a `restore` it counts what it undoes."""
    return _folded(verdict, events, trust).restored()


def standing_of(verdict: Verdict, said: Restored, trust: Mapping[str, int]) -> Standing | None:
    """What a decision stands for of which this is said."""
    labels = _folded(verdict, (), trust)
    apply_event(labels, cast(LabelEvent, {"type": "restore", "restored": said, "at": ""}))
    return standing(labels)
