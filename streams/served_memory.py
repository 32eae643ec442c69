"""Memory behind a server: asked as of its watermark, with a deadline, a freshness bound and a circuit breaker."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from memory_service.recall import Asked, Recall, unavailable
from schemas.errors import LumynError, MemoryUnavailable
from streams.memory_sync import Memory
from streams.observe import Observer

if TYPE_CHECKING:
    from memory_service.recaller import Recaller
    from memory_service.store import MemoryStore

_LOOK_S = 0.02


class ServedMemory:
    """A store that another process (the label agent) fills. What its watermark says is the version that is asked."""

    def __init__(
        self,
        open_store: Callable[[], tuple[MemoryStore, Recaller]],
        observer: Observer,
        *,
        max_staleness_s: float = 60.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_staleness_s`: a watermark older than that means that nobody fills the store: memory unavailable."""
        self._open = open_store
        self._observer = observer
        self._max_staleness_s = max_staleness_s
        self._clock = clock
        self._opened: tuple[MemoryStore, Recaller] | None = None
        self._newest = 0

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        try:
            version = self.version()
            return self.recaller().recall([a if a.version is not None else replace(a, version=version) for a in asked])
        except LumynError as error:
            self._observer.trouble("memory_unavailable", error)
            self.close()
            return [unavailable()] * len(asked)

    def store(self) -> MemoryStore:
        """The store. Raises `LumynError`."""
        return self._parts()[0]

    def recaller(self) -> Recaller:
        """The recaller over the store. Raises `LumynError`."""
        return self._parts()[1]

    def version(self) -> int:
        """The version that questions of now are asked at. Raises `MemoryUnavailable` when nobody vouches for it."""
        newest = self._newest  # before the store is asked: another thread may learn of a later one meanwhile
        watermark = self.store().watermark()
        self._check_age(watermark.at_ms)
        if watermark.version < newest:  # the store knows what it has seen itself, not what one before it has
            raise MemoryUnavailable(
                f"memory stands at version {watermark.version}, after {newest}: an older copy was put back",
                help="the label worker brings it up to date; is `lumyn worker labels` running?",
            )
        self._newest = max(self._newest, watermark.version)
        return watermark.version

    def reaches(self, version: int, within_s: float) -> bool:
        """Whether questions are asked at that version or a later one, waited for. Never raises."""
        deadline = time.monotonic() + within_s
        try:
            while self.version() < version:
                if time.monotonic() > deadline:
                    return False
                time.sleep(_LOOK_S)
        except LumynError as error:
            self._observer.trouble("memory_unavailable", error)
            return False
        return True

    def _parts(self) -> tuple[MemoryStore, Recaller]:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _check_age(self, at_ms: int | None) -> None:
        age = None if at_ms is None else self._clock() - at_ms / 1000
        if age is None or age > self._max_staleness_s:
            said = "never" if age is None else f"{age:.0f} s ago"
            raise MemoryUnavailable(
                f"the memory's watermark was last written {said}, and may be {self._max_staleness_s:.0f} s old",
                help="is `lumyn worker labels` running?",
            )

    def close(self) -> None:
        """Let go of the connection; the next question opens it anew."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None


class GuardedMemory:
    """Measures a memory and stops asking one that keeps failing: after `failures` in a row for `rest_s` seconds.

    Then one question is let through; its answer closes the breaker or opens it again.
    """

    def __init__(
        self,
        inner: Memory,
        observer: Observer,
        *,
        failures: int = 3,
        rest_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inner = inner
        self._observer = observer
        self._most = failures
        self._rest_s = rest_s
        self._clock = clock
        self._failed = 0
        self._open_until = 0.0
        observer.breaker("closed")

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        begun = self._clock()
        if self._failed >= self._most:
            if begun < self._open_until:
                return [unavailable()] * len(asked)
            self._observer.breaker("half-open")
        recalls = self._inner.recall(asked)
        available = all(recall.available for recall in recalls)
        self._observer.recalled(self._clock() - begun, available, len(asked))
        version = recalls[-1].version if recalls else None
        if version is not None:
            self._observer.memory_version(version)
        if available:
            if self._failed >= self._most:
                self._observer.breaker("closed")
            self._failed = 0
        else:
            self._failed += 1
            if self._failed >= self._most:
                self._open_until = self._clock() + self._rest_s
                self._observer.breaker("open")
        return recalls
