"""Forgetting a subject's memories in Qdrant, so that a writer that dies anywhere leaves nothing half done for ever.

First a note of it is written and the open points are closed; the watermark, which counts points in force, follows; only
then are the points deleted, of every version, with what was said of them, and last the note. Whoever opens the store to
write goes on from a note that it finds.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from memory_service.point import OPEN
from memory_service.qdrant.engine import EnginePoint, Filter, IsEmpty, Match, MatchAny, PointId, QdrantEngine
from memory_service.qdrant.memory_points import in_force

_NAMESPACE = uuid.UUID("5f6e7a52-3d0c-5f0f-9a59-77c1f1a4c0de")
_NOTES: Final = Filter(must_not=(IsEmpty("forgetting"),))
_PAGE = 500


class Forgetter:
    """Takes subjects out of the points and the documents of one memory."""

    def __init__(self, engine: QdrantEngine, memory: str, labels: str) -> None:
        self._engine, self._memory, self._labels = engine, memory, labels

    def begin(self, subjects: Sequence[str], standing: int, version: int) -> int:
        """Note it, and close what is open as of `version`; returns how many points in force at `standing` that ends."""
        ended = 0
        for subject in dict.fromkeys(subjects):
            note = EnginePoint(_note_id(subject), {"forgetting": subject, "version": version})
            self._engine.upsert(self._labels, [note])
            for names in self._decisions(subject):
                theirs = MatchAny("memory_id", names)
                ended += self._engine.count(self._memory, Filter(must=(theirs, in_force(standing))))
                still_open = Filter(must=(theirs, Match("to_version", OPEN)))
                self._engine.set_payload(self._memory, [(still_open, {"to_version": version})])
        return ended

    def finish(self, standing: int) -> None:
        """Delete what was noted, as far as the watermark says that it is closed."""
        for note in self._all(_NOTES):
            if note.payload["version"] > standing:
                continue
            subject = note.payload["forgetting"]
            for names in self._decisions(subject):
                self._engine.delete(self._memory, Filter(must=(MatchAny("memory_id", names),)))
                self._engine.delete(self._labels, Filter(must=(MatchAny("decision_id", names),)))
            self._engine.delete(self._labels, [note.id])

    def _decisions(self, subject: str) -> Iterator[tuple[str, ...]]:
        names = [point.payload["decision_id"] for point in self._all(Filter(must=(Match("subject", subject),)))]
        for start in range(0, len(names), _PAGE):
            yield tuple(names[start : start + _PAGE])

    def _all(self, which: Filter) -> list[EnginePoint]:
        found: list[EnginePoint] = []
        offset: PointId | None = None
        while True:
            page = self._engine.scroll(self._labels, which, limit=_PAGE, offset=offset, with_payload=True)
            found += page.points
            offset = page.next_offset
            if offset is None:
                return found


def _note_id(subject: str) -> PointId:
    return str(uuid.uuid5(_NAMESPACE, f"forgetting/{subject}"))
