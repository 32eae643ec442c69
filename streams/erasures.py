"""What was forgotten of the memory: for which past versions its answers can't be what they were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.canonical import decode_trusted
from schemas.label import LabelEvent
from streams.log import Log
from streams.reading import messages
from streams.subject_keys import SubjectKeys, keys_of
from streams.topics import LABELS

FORGOTTEN = "erased: its subject was forgotten"
MET_FORGOTTEN = "erased: memories that it could meet were forgotten"
_NEVER = 2**62


@dataclass(slots=True)
class Erasures:
    """For a tenant's action type: from which version on a forgotten decision was remembered, and when it was forgotten.

    A recall as of a version in between may have met it. From the version of the forgetting on, nothing is missing.
    """

    spans: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)

    def touched(self, record: Mapping[str, Any]) -> bool:
        """Whether a decision can have met what was forgotten."""
        version = record["memory"]["version"]
        place = record["tenant"], record["request"]["action"]["type"]
        return any(first <= (version or 0) < forgotten for first, forgotten in self.spans.get(place, ()))


NOTHING_ERASED = Erasures()


def erasures(log: Log) -> Erasures:
    """Read from the whole `labels` topic. Raises `StorageUnavailable`."""
    return erasures_of((decode_trusted(message.value) for message in messages(log, LABELS, 0)), keys_of(log))


def erasures_of(events: Iterable[LabelEvent], keys: SubjectKeys) -> Erasures:
    """The same from all label events in version order; a key that is gone counts before the log says so."""
    first: dict[tuple[str, str, str], int] = {}
    forgotten: dict[str, int] = {}
    for event in events:
        decision, subject = event["decision"], event.get("subject")
        if event["type"] == "forget" and subject:
            forgotten.setdefault(subject, event["version"])
        elif decision is not None and "subject" in decision:
            first.setdefault((decision["subject"], event["tenant"], decision["action_type"]), event["version"])
    out = Erasures()
    for (kid, tenant, action_type), begun in first.items():
        until = forgotten.get(kid, _NEVER if keys.state(kid) in ("erasing", "erased") else 0)
        if until:
            out.spans.setdefault((tenant, action_type), []).append((begun, until))
    return out
