"""Memory beside a log: catches the store up on the `labels` topic before it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from memory_service.recall import Asked, Recall, unavailable
from schemas.errors import LumynError
from streams.log import Log
from streams.sealing import event_in
from streams.subject_keys import keys_of
from streams.topics import LABELS
from streams.versions import offset_after

if TYPE_CHECKING:  # a policy without memory never loads numpy
    from memory_service.recaller import Recaller
    from memory_service.store import MemoryStore

_BATCH = 2000


class Memory(Protocol):
    """What the decide agent asks."""

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        """One recall a request, in order, as of now where no version is asked for.

        `unavailable` ones when memory can't answer. Never raises.
        """
        ...


def catch_up(log: Log, store: MemoryStore, progress: Callable[[int], None] | None = None) -> int:
    """Apply all label events that the store has not seen; returns its version.

    Raises `MemoryUnavailable`, `StorageUnavailable`.
    """
    return _catch_up(log, store, store.watermark().version, None, progress)[0]


def _catch_up(
    log: Log, store: MemoryStore, version: int, offset: int | None, progress: Callable[[int], None] | None = None
) -> tuple[int, int]:
    """From a version, whose next event is at `offset` if that is known; returns where it stands then."""
    if offset is None:
        offset = offset_after(log, LABELS, version)
    while messages := log.read(LABELS, 0, offset, _BATCH):
        events = [event_in(keys_of(log), m.value) for m in messages]
        version = store.apply(events).version
        for event in events:
            if event["type"] == "forget":  # a key store that was put back from a backup may still have the key
                keys_of(log).finish(str(event.get("subject")))
        offset = messages[-1].offset + 1
        if progress:
            progress(len(messages))
    return version, offset


class SyncedMemory:
    """Opens its store at the first question (a policy without `memory` never opens it) and keeps it caught up."""

    def __init__(self, log: Log, open_store: Callable[[], tuple[MemoryStore, Recaller]]) -> None:
        self._log = log
        self._open = open_store
        self._opened: tuple[MemoryStore, Recaller] | None = None
        self._version = 0
        self._offset: int | None = None
        self._end = -1

    def store(self) -> MemoryStore:
        """The store, opened and caught up. Raises `LumynError`."""
        if self._opened is None:
            self._opened = self._open()
            self._version, self._offset, self._end = self._opened[0].watermark().version, None, -1
        end = self._log.end(LABELS, 0)
        if end != self._end:
            self._version, self._offset = _catch_up(self._log, self._opened[0], self._version, self._offset)
            self._end = end
        return self._opened[0]

    def version(self) -> int:
        """The caught-up store's version. Raises `LumynError`."""
        self.store()
        return self._version

    def recaller(self) -> Recaller:
        """The recaller over the caught-up store. Raises `LumynError`."""
        self.store()
        assert self._opened is not None
        return self._opened[1]

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        try:
            version = self.version()
            return self.recaller().recall([replace(a, version=version) if a.version is None else a for a in asked])
        except LumynError:
            self.forget()
            return [unavailable()] * len(asked)

    def forget(self) -> None:
        """Close the store, so that the next question opens it anew: trouble may have passed."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    close = forget
