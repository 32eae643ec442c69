"""What was said of each labelled decision, kept beside the points so that the fold goes on after a restart.

A document holds a decision's state as of a watermark, `base`, and the events after it. So it answers for every
watermark from `base` on, also for one that a writer that died never came to write.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from memory_service.fold import DecisionLabels, set_trust
from memory_service.qdrant.engine import EnginePoint, Filter, IndexKind, Match, PointId
from memory_service.timeline import Timeline
from schemas.canonical import decode_trusted, encode
from schemas.label import FULL_TRUST, LabelEvent, key_of, labeller_key, labellers_of, speaks_of_labeller, trust_of

_NAMESPACE = uuid.UUID("0b8e0c5e-3c86-5d55-8d2c-6a3f5d1c9b42")
HEAD: Final[PointId] = str(uuid.uuid5(_NAMESPACE, "head"))
"""The point that says how far the documents go; written before any that goes there."""

LABELLERS: Final = "labellers"
"""The payload key of a document that says who spoke of the decision, as `labeller_key`s."""
INDEXES: Final[Mapping[str, IndexKind]] = {LABELLERS: "keyword"}
_KEPT = ("version", "type", "label", "should", "summary", "actor", "restored", "at", "labeller", "trust")


def document_id(decision_id: str) -> PointId:
    """The id of a decision's document."""
    return str(uuid.uuid5(_NAMESPACE, f"decision/{decision_id}"))


def trust_id(labeller: str) -> PointId:
    """The id of the point that says how much a labeller, by his key, was trusted since when."""
    return str(uuid.uuid5(_NAMESPACE, labeller))


def spoken_of_by(labeller: str) -> Filter:
    """The documents of the decisions that a labeller, by his key, spoke of."""
    return Filter(must=(Match(LABELLERS, labeller),))


def head_point(epoch: str, version: int) -> EnginePoint:
    """Says that the documents may hold events up to a version."""
    return EnginePoint(HEAD, {"epoch": epoch, "version": version})


@dataclass(frozen=True, slots=True)
class Trust:
    """How much a labeller was trusted, and since which version: all of it, so that it answers for every watermark."""

    labeller: str
    since: tuple[tuple[int, int], ...] = ()

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Trust:
        """A stored one. Raises KeyError, TypeError or ValueError when it is none."""
        return cls(payload["labeller"], tuple((version, trust) for version, trust in decode_trusted(payload["body"])))

    def at(self, version: int) -> int:
        """In hundredths, as of a version."""
        return next((trust for since, trust in reversed(self.since) if since <= version), FULL_TRUST)

    def told(self, event: LabelEvent) -> Trust:
        """The same with the event after all that it knows up to there."""
        before = tuple(one for one in self.since if one[0] < event["version"])
        return Trust(key_of(event), (*before, (event["version"], trust_of(event))))

    def point(self) -> EnginePoint:
        """As it is stored; `version` is that of its last event."""
        body = encode([list(one) for one in self.since]).decode()
        return EnginePoint(
            trust_id(self.labeller), {"labeller": self.labeller, "version": self.since[-1][0], "body": body}
        )


@dataclass(slots=True)
class Document:
    """A decision's labels as of `base`, and its events after that."""

    decision_id: str
    labels: Mapping[str, Any]
    since: int
    base: int
    labellers: frozenset[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def first(cls, event: LabelEvent, base: int) -> Document:
        """Of a decision that nothing was said of before."""
        assert event["decision"] is not None
        labels = DecisionLabels(event["tenant"], event["decision"]).as_dict()
        return cls(event["decision_id"], labels, 0, base, frozenset())

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Document:
        """A stored document. Raises KeyError, TypeError or ValueError when it is none."""
        value = decode_trusted(payload["body"])
        events = [dict(zip(_KEPT, event, strict=False)) for event in value["events"]]  # the last is newer than the rest
        labellers = frozenset(payload[LABELLERS])
        return cls(payload["decision_id"], value["labels"], value["since"], payload["base"], labellers, events)

    def at(self, version: int) -> Timeline:
        """The decision's labels as of a version, `base` or later."""
        timeline = Timeline(DecisionLabels.from_dict(self.labels), self.since)
        for event in self.events:
            if event["version"] <= version:
                timeline.take(event)
        return timeline

    def newly_spoken(self, events: Iterable[LabelEvent]) -> set[str]:
        """Those who speak in some events, by their keys, and did not before."""
        names = set[str]().union(*(labellers_of(event) for event in events if not speaks_of_labeller(event)))
        return {labeller_key(self.labels["tenant"], name) for name in names} - self.labellers

    def trusting(self, version: int, trusts: Mapping[str, Trust], labellers: Collection[str]) -> Document:
        """The same as of a later base, with the trust then in force in those who are to speak."""
        timeline, prefix = self.at(version), len(labeller_key(self.labels["tenant"], ""))
        for name in labellers:
            if name in trusts:
                set_trust(timeline.labels, name[prefix:], trusts[name].at(version))
        labels = timeline.labels.as_dict()
        return Document(self.decision_id, labels, timeline.since, version, self.labellers | set(labellers))

    def extended(self, version: int, events: Iterable[LabelEvent]) -> Document:
        """The same as of a later base, with the events after it."""
        timeline = self.at(version)
        kept = [{name: event.get(name) for name in _KEPT} for event in events]
        labels = timeline.labels.as_dict()
        return Document(self.decision_id, labels, timeline.since, version, self.labellers, kept)

    def point(self) -> EnginePoint:
        """The document as it is stored; `version` is that of its last event."""
        body = {
            "labels": self.labels,
            "since": self.since,
            "events": [[event.get(name) for name in _KEPT] for event in self.events],
        }
        payload = {
            "decision_id": self.decision_id,
            "version": max((event["version"] for event in self.events), default=self.base),
            "base": self.base,
            LABELLERS: sorted(self.labellers),
            "body": encode(body, finite=True).decode(),
        }
        subject = self.labels["decision"].get("subject")
        if subject is not None:
            payload["subject"] = subject
        return EnginePoint(document_id(self.decision_id), payload)
