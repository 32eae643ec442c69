"""What a labelled decision stood for, version by version, and the points that this makes in the memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory_service.blocks import Array
from memory_service.fold import DecisionLabels, Standing, apply_event, standing
from memory_service.point import OPEN, Point
from memory_service.profile import MemoryProfile, amount_of, has_comparable_amount
from schemas.ids import time_ms_of
from schemas.label import LabelEvent, labellers_of, speaks_of_labeller

Stand = tuple[Standing, int, int]
"""What a decision stands for from a version up to another."""


@dataclass(frozen=True, slots=True)
class Change:
    """A decision's standing from one version to the next: what ended (with the version it began at), what began."""

    version: int
    ended: tuple[Standing, int] | None
    began: Standing | None


@dataclass(slots=True)
class Timeline:
    """One decision's labels, and since which version it stands as it does; 0 while it does not stand."""

    labels: DecisionLabels
    since: int = 0

    def take(self, event: Mapping[str, Any]) -> Change | None:
        """Take the next event in; what it changed, if anything."""
        before = standing(self.labels)
        apply_event(self.labels, event)  # type: ignore[arg-type]
        after = standing(self.labels)
        if after == before:
            return None
        ended = None if before is None else (before, self.since)
        self.since = 0 if after is None else event["version"]
        return Change(event["version"], ended, after)


def stands(events: Sequence[LabelEvent]) -> Iterator[Stand]:
    """What one decision's events, in version order, made it stand for; notes are not among them.

    Those that set the trust in its labellers are.
    """
    first = next((event for event in events if event["decision"] is not None), None)
    if first is None or first["decision"] is None:
        return
    timeline = Timeline(DecisionLabels(first["tenant"], first["decision"]))
    for event in events:
        change = timeline.take(event)
        if change is not None and change.ended is not None:
            yield (*change.ended, change.version)
    now = standing(timeline.labels)
    if now is not None:
        yield now, timeline.since, OPEN


def point_of(event: LabelEvent, stand: Stand, vector: Array, profile: MemoryProfile) -> Point:
    """The point of a decision, of which an event speaks, and what it stands for."""
    what, since, until = stand
    decision = event["decision"]
    assert decision is not None
    return Point(
        memory_id=event["decision_id"],
        tenant=event["tenant"],
        action_type=decision["action_type"],
        meaning=what.meaning,
        label=what.label,
        verdict=decision["verdict"],
        rules=tuple(decision["rules"]),
        amount=amount_of(decision["facts"], profile),
        contested=what.contested,
        comparable=has_comparable_amount(decision["facts"], profile),
        labeller=what.labeller,
        summary=what.summary,
        from_version=since,
        to_version=until,
        vector=vector,
        trust=what.trust,
        at_ms=time_ms_of(what.at),
    )


def by_decision(events: Iterable[LabelEvent]) -> dict[str, list[LabelEvent]]:
    """Events that speak of a decision, in order, by decision."""
    out: dict[str, list[LabelEvent]] = {}
    for event in events:
        if event["decision"] is not None:
            out.setdefault(event["decision_id"], []).append(event)
    return out


def by_labeller(events: Iterable[LabelEvent]) -> dict[tuple[str, str], list[LabelEvent]]:
    """Events that set the trust in a labeller, in order, by tenant and labeller."""
    out: dict[tuple[str, str], list[LabelEvent]] = {}
    for event in events:
        if speaks_of_labeller(event):
            out.setdefault((event["tenant"], str(event.get("labeller"))), []).append(event)
    return out


def with_trust(
    told: Sequence[LabelEvent], trusts: Mapping[tuple[str, str], Sequence[LabelEvent]]
) -> Sequence[LabelEvent]:
    """One decision's events with those that set the trust in whoever speaks in them, in version order."""
    if not trusts or not told:
        return told
    names = set[str]().union(*(labellers_of(event) for event in told))
    more = [event for name in names for event in trusts.get((told[0]["tenant"], name), ())]
    return sorted([*told, *more], key=lambda event: event["version"]) if more else told
