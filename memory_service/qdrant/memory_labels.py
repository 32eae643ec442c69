"""What was said of each labelled decision, kept beside the points so that the fold goes on after a restart.

A document holds a decision's state as of a watermark, `base`, and the events after it. So it answers for every
watermark from `base` on, also for one that a writer that died never came to write.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from memory_service.fold import DecisionLabels
from memory_service.qdrant.engine import EnginePoint, PointId
from memory_service.timeline import Timeline
from schemas.canonical import decode_trusted, encode
from schemas.label import LabelEvent

_NAMESPACE = uuid.UUID("0b8e0c5e-3c86-5d55-8d2c-6a3f5d1c9b42")
HEAD: Final[PointId] = str(uuid.uuid5(_NAMESPACE, "head"))
"""The point that says how far the documents go; written before any that goes there."""

_KEPT = ("version", "type", "label", "should", "summary", "actor", "restored")


def document_id(decision_id: str) -> PointId:
    """The id of a decision's document."""
    return str(uuid.uuid5(_NAMESPACE, f"decision/{decision_id}"))


def head_point(epoch: str, version: int) -> EnginePoint:
    """Says that the documents may hold events up to a version."""
    return EnginePoint(HEAD, {"epoch": epoch, "version": version})


@dataclass(slots=True)
class Document:
    """A decision's labels as of `base`, and its events after that."""

    decision_id: str
    labels: Mapping[str, Any]
    since: int
    base: int
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def first(cls, event: LabelEvent, base: int) -> Document:
        """Of a decision that nothing was said of before."""
        assert event["decision"] is not None
        labels = DecisionLabels(event["tenant"], event["decision"]).as_dict()
        return cls(event["decision_id"], labels, 0, base)

    @classmethod
    def read(cls, payload: Mapping[str, Any]) -> Document:
        """A stored document. Raises KeyError, TypeError or ValueError when it is none."""
        value = decode_trusted(payload["body"])
        events = [dict(zip(_KEPT, event, strict=False)) for event in value["events"]]  # the last is newer than the rest
        return cls(payload["decision_id"], value["labels"], value["since"], payload["base"], events)

    def at(self, version: int) -> Timeline:
        """The decision's labels as of a version, `base` or later."""
        timeline = Timeline(DecisionLabels.from_dict(self.labels), self.since)
        for event in self.events:
            if event["version"] <= version:
                timeline.take(event)
        return timeline

    def extended(self, version: int, events: Iterable[LabelEvent]) -> Document:
        """The same as of a later base, with the events after it."""
        timeline = self.at(version)
        kept = [{name: event.get(name) for name in _KEPT} for event in events]
        return Document(self.decision_id, timeline.labels.as_dict(), timeline.since, version, kept)

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
            "body": encode(body, finite=True).decode(),
        }
        subject = self.labels["decision"].get("subject")
        if subject is not None:
            payload["subject"] = subject
        return EnginePoint(document_id(self.decision_id), payload)
