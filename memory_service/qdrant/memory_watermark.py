"""The watermark as a store goes by it: read, checked against all that was seen before, and against the points.

Nothing is ever answered on a watermark that is missing, foreign or older than one seen, or whose points are not there:
such a memory was emptied, put back from an old copy, or belongs to something else.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from memory_service.qdrant.engine import NoCollection, QdrantEngine
from memory_service.qdrant.memory_points import LAYOUT, WATERMARK, in_force, not_beyond, watermark_of, watermark_point
from memory_service.store import Watermark
from memory_service.vectoriser import Vectoriser
from schemas.errors import MemoryUnavailable

HELP = "run `lumyn memory rebuild` to make it again from the labels"


class WatermarkKeeper:
    """Reads and writes the watermark of one collection, and remembers the newest one seen."""

    def __init__(self, engine: QdrantEngine, collection: str, epoch: str, vectoriser: Vectoriser) -> None:
        self._engine, self._collection = engine, collection
        self._vectoriser_id, self._dimensions = vectoriser.id, vectoriser.dimensions
        self.epoch = epoch
        self.seen: Watermark | None = None
        self._trusted = False
        self._lock = threading.Lock()

    @property
    def trusted(self) -> bool:
        """Whether the points were counted since the store was opened, and no trouble was met since."""
        return self._trusted

    def forget(self) -> None:
        """Begin anew, after the store was emptied on purpose."""
        with self._lock:
            self.seen, self._trusted = None, False

    def distrust(self) -> None:
        """Have the points counted again before anything is answered."""
        self._trusted = False

    def read(self) -> Watermark:
        """The watermark as it stands now; at first, and after any trouble, with its points counted."""
        mark = self._read()
        return mark if self._trusted else self._counted(mark)

    def read_and_count(self) -> Watermark:
        """The watermark as it stands now, with its points counted: a pass over their index."""
        return self._counted(self._read())

    def _read(self) -> Watermark:
        before = self.seen
        try:
            found = self._engine.retrieve(self._collection, [WATERMARK])
        except NoCollection as error:
            raise self._refused(error.message) from error
        return self.check(found[0].payload if found else None, before)

    def check(self, payload: Mapping[str, Any] | None, before: Watermark | None) -> Watermark:
        """A watermark as found, if it is one to go by.

        `before` is what had been seen when it was asked for: another thread's later question may be answered first.
        """
        if not payload:
            raise self._refused("memory has no watermark: it was emptied, or never filled")
        try:
            stored = watermark_of(payload)
        except (KeyError, TypeError, ValueError):
            raise self._refused(f"memory has no readable watermark, but {dict(payload)}") from None
        mark = stored.mark
        for name, has, want in (
            ("layout", stored.layout, LAYOUT),
            ("epoch", mark.epoch, self.epoch),
            ("vectoriser_id", mark.vectoriser_id, self._vectoriser_id),
        ):
            if has != want:
                raise self._refused(f"memory is of {name} `{has}`, not `{want}`")
        if before is not None and mark.version < before.version:
            raise self._refused(
                f"memory stands at version {mark.version} after {before.version}: an older copy was put back"
            )
        with self._lock:
            forgotten = before is not None and self.seen is None
            if not forgotten and (self.seen is None or self.seen.version <= mark.version):
                self.seen = mark
        return mark

    def _counted(self, mark: Watermark) -> Watermark:
        count = self._engine.count(self._collection, in_force(mark.version))
        if count != mark.count:
            raise self._refused(f"memory holds {count} points in force, its watermark says {mark.count}")
        self._trusted = True
        return mark

    def put(self, mark: Watermark) -> None:
        """Write a watermark, unless a newer one stands."""
        self._engine.upsert(self._collection, [watermark_point(mark, self._dimensions)], not_beyond(mark.version))

    def _refused(self, message: str) -> MemoryUnavailable:
        self._trusted = False
        return MemoryUnavailable(message, where=self._engine.where, help=HELP)
