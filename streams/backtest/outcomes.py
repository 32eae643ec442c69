"""What people said became of the decisions: a fold over `labels`, once, up to where the topic stood at the start.

Takes about 150 bytes a labelled decision, and about 1 kB each while the topic is read.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from memory_service.fold import DecisionLabels, apply_event, standing
from schemas.canonical import decode_trusted
from schemas.label import LabelEvent, Meaning, is_last_word
from streams.label_history import bare
from streams.log import Log
from streams.reading import messages
from streams.topics import LABELS


class Outcome(NamedTuple):
    """What stands of a decision: whether allowing was wrong (`harmful`), right (`fine`) or unknown, and its label."""

    meaning: Meaning | None
    label: str | None


UNLABELLED = Outcome(None, None)


class Outcomes:
    """Labelled decisions by id, and which memory version was in force when."""

    def __init__(self, known: Mapping[str, Outcome] | None = None, times: Iterable[int] = ()) -> None:
        """`times`: the log's times of the label events, in version order."""
        self._known = dict(known or {})
        self._times = array("q", times)

    def __len__(self) -> int:
        return len(self._known)

    def of(self, decision_id: str) -> Outcome:
        """A decision's outcome; `UNLABELLED` when nobody said anything."""
        return self._known.get(decision_id, UNLABELLED)

    @property
    def version(self) -> int:
        """The memory version after the last event."""
        return len(self._times)

    def version_at(self, time_ms: int) -> int:
        """The memory version that a decision of this time would have been made at."""
        return bisect_left(self._times, time_ms)


def read_outcomes(log: Log, tenant: str | None, end: int) -> Outcomes:
    """The outcomes of a tenant's decisions (None: of all), by the events before an offset.

    Raises `StorageUnavailable`.
    """
    said: dict[str, DecisionLabels] = {}
    last: dict[str, str | None] = {}
    times = array("q")
    for message in messages(log, LABELS, 0):
        if message.offset >= end:
            break
        event: LabelEvent = decode_trusted(message.value)
        times.append(message.time_ms)
        decision = event["decision"]
        if decision is None or (tenant is not None and event["tenant"] != tenant):
            continue
        name = event["decision_id"]
        labels = said.get(name)
        if labels is None:
            labels = said[name] = bare(decision["verdict"])
        apply_event(labels, event)
        if is_last_word(event):
            last[name] = _last_word(event)
    known: dict[str, Outcome] = {}
    alike: dict[Outcome, Outcome] = {}
    while said:
        name, labels = said.popitem()
        stands = standing(labels)
        outcome = Outcome(stands.meaning if stands is not None else None, last.get(name))
        known[name] = alike.setdefault(outcome, outcome)
    return Outcomes(known, times)


def _last_word(event: LabelEvent) -> str | None:
    if event["type"] != "restore":
        return event["label"]
    restored = event.get("restored")
    return restored["said"][-1]["label"] if restored and restored["said"] else None
