"""Memory beside a log: catches the store up on the `labels` topic before it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from memory_service.recall import Asked, Recall, unavailable
from schemas.canonical import decode_trusted
from schemas.errors import LumynError
from streams.log import Log
from streams.topics import LABELS

if TYPE_CHECKING:  # a policy without memory never loads numpy
    from memory_service.recaller import Recaller
    from memory_service.store import MemoryStore

_BATCH = 2000


class Memory(Protocol):
    """What the decide agent asks."""

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        """One recall a request, in order; `unavailable` ones when memory can't answer. Never raises."""
        ...


def catch_up(log: Log, store: MemoryStore, progress: Callable[[int], None] | None = None) -> int:
    """Apply all label events that the store has not seen; returns its version. Raises `MemoryUnavailable`."""
    version = store.watermark().version
    while True:
        messages = log.read(LABELS, 0, version, _BATCH)
        if not messages:
            return version
        version = store.apply([decode_trusted(m.value) for m in messages]).version
        if progress:
            progress(len(messages))


class SyncedMemory:
    """Opens its store at the first question (a policy without `memory` never opens it) and keeps it caught up."""

    def __init__(self, log: Log, open_store: Callable[[], tuple[MemoryStore, Recaller]]) -> None:
        self._log = log
        self._open = open_store
        self._opened: tuple[MemoryStore, Recaller] | None = None
        self._version = -1

    def store(self) -> MemoryStore:
        """The store, opened and caught up. Raises `LumynError`."""
        if self._opened is None:
            self._opened = self._open()
            self._version = -1
        if self._log.end(LABELS, 0) != self._version:
            self._version = catch_up(self._log, self._opened[0])
        return self._opened[0]

    def recaller(self) -> Recaller:
        """The recaller over the caught-up store. Raises `LumynError`."""
        self.store()
        assert self._opened is not None
        return self._opened[1]

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        try:
            return self.recaller().recall(asked)
        except LumynError:
            self.forget()
            return [unavailable()] * len(asked)

    def forget(self) -> None:
        """Close the store, so that the next question opens it anew: trouble may have passed."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    close = forget
