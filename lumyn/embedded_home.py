"""A home with no servers: log, memory and index are files of its folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lumyn.config import Settings
from lumyn.home import INDEX_FILE, KEY_FILE, LOG_FILE
from lumyn.policy_file import load_policy_file
from lumyn.subject_keys import subject_keys
from memory_service.wal import COPY_IT
from schemas.errors import LumynError, StorageUnavailable
from schemas.ids import is_decision_id
from schemas.label import LabelEvent
from streams.chosen_memory import ChosenMemory
from streams.control import ControlState, read_control
from streams.decide_agent import DecideAgent
from streams.label_agent import LabelAgent, events_of
from streams.local_log import LocalLog, wall_clock_ms
from streams.log import Log, Message
from streams.memory_sync import SyncedMemory, catch_up
from streams.sealing import shown_event
from streams.topics import RECORDS

if TYPE_CHECKING:
    from memory_service.recall import MemoryChoice
    from memory_service.recaller import Recaller
    from memory_service.record_index import RecordIndex
    from memory_service.store import MemoryStore
    from streams.index_sync import CaughtUp
    from streams.signing import SigningKey
    from streams.subject_keys import SubjectKeys


class EmbeddedHome:
    """A home with no servers: everything in its folder."""

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], int] = wall_clock_ms,
        follow: Callable[[Log, ControlState], ControlState] = read_control,
        keys: SubjectKeys | None = None,
        read_only: bool = False,
    ) -> None:
        """Without more, as configured. A game day brings a clock, a way to follow control, and keys of its own.

        `read_only`: the folder may not be written. What is derived from the log is then made in one of its own.
        """
        self.settings = settings
        self.path = settings.home.absolute()
        self.log_file = str(self.path / LOG_FILE)
        self.log = _open_log(settings, clock, read_only)
        self.log.keys = subject_keys(settings, read_only=read_only) if keys is None else keys
        self._read_only = read_only
        self._aside: TemporaryDirectory[str] | None = None
        self.memories = ChosenMemory(self._memory)
        self.labels = LabelAgent(self.log)
        fallback = load_policy_file(settings.policy_path) if settings.policy_path else None
        self.given_policy = fallback if settings.policy_given else None
        seal = settings.encrypt_subjects
        self.agent = DecideAgent(self.log, self.memories, fallback, sticky=os.getpid(), seal=seal, follow=follow)
        self._index: RecordIndex | None = None
        self._opening = threading.Lock()

    @property
    def memory(self) -> SyncedMemory:
        """The memory that decisions are made with now."""
        return self.memories.of(self.agent.control().memory)

    def _memory(self, choice: MemoryChoice | None) -> SyncedMemory:
        return SyncedMemory(self.log, lambda: self.open_memory(choice))

    def open_memory(self, choice: MemoryChoice | None) -> tuple[MemoryStore, Recaller]:
        """The memory store of a choice, and its recaller. Raises `MemoryUnavailable`."""
        from lumyn.stores import open_memory

        return open_memory(self.settings, self._derived, self.log.epoch, choice)

    @property
    def _derived(self) -> Path:
        """Where memory and index are: with the log, or, where that may not be written, made anew for this process."""
        if not self._read_only:
            return self.path
        if self._aside is None:
            self._aside = TemporaryDirectory(prefix="lumyn-reading-")
        return Path(self._aside.name)

    def _require_writable(self) -> None:
        if self._read_only:
            raise StorageUnavailable("this home may not be written, only read", where=str(self.path), help=COPY_IT)

    def fill_memory(self, choice: MemoryChoice | None, progress: Callable[[int], None], *, anew: bool) -> int:
        from lumyn.stores import remove_memory

        self._require_writable()
        self.memories.of(choice).close()
        if anew:
            remove_memory(self.settings, self.path, self.log.epoch, choice)
        store, _ = self.open_memory(choice)
        try:
            return catch_up(self.log, store, progress)
        finally:
            store.close()

    def index(self) -> RecordIndex:
        """The record index, caught up."""
        from streams.index_sync import catch_up

        index = self._opened_index()
        catch_up(self.log, index)
        return index

    def bring_index_on(self, progress: Callable[[int], None]) -> None:
        from streams.index_sync import SMALL_BATCH, catch_up

        catch_up(self.log, self._opened_index(), progress, size=SMALL_BATCH)

    def _opened_index(self) -> RecordIndex:
        from lumyn.stores import open_index_file

        with self._opening:
            if self._index is None:
                self._index = open_index_file(self.settings, self._derived, self.log.epoch)
            return self._index

    def rebuild_index(self, progress: Callable[[int], None]) -> CaughtUp:
        from lumyn.stores import open_index_file
        from memory_service.sqlite_record_index import remove_index_file
        from streams.index_sync import catch_up as catch_up_index

        self._require_writable()
        path = self.path / INDEX_FILE
        if self._index is not None:
            self._index.close()
            self._index = None
        remove_index_file(path)
        index = open_index_file(self.settings, self.path, self.log.epoch)
        try:
            return catch_up_index(self.log, index, progress)
        finally:
            index.close()

    def records(self, prefix: str, limit: int) -> list[Message]:
        whole = is_decision_id(prefix)
        keys = [prefix.encode()] if whole else self.log.keys_from(RECORDS, prefix.encode(), limit)
        found = [self.log.latest(RECORDS, key) for key in keys]
        return [message for message in found if message is not None]

    def events(self, decision_id: str) -> list[LabelEvent]:
        return [shown_event(self.log.keys, event) for event in events_of(self.log, decision_id)]

    def remembers(self, version: int, within_s: float) -> bool:  # noqa: ARG002
        """Always: the memory is caught up before it is asked."""
        return True

    def forget_memories(self) -> None:
        """A memory that can't take it in is removed: it is derived, and would hold what is to be forgotten."""
        from lumyn.stores import remove_left_memories
        from memory_service.sqlite_store import rebuild_file

        self._require_writable()
        control = self.agent.control()
        if self.settings.qdrant is not None:
            for choice in {control.memory, *control.memories.values()}:
                self.memories.of(choice).store()
            return
        files = sorted(self.path.glob("memory*.db"))
        self.memories.close()
        try:
            if files:
                remove_left_memories(self.path, self.settings, control.memory)
                self.memory.store()
        except LumynError:
            self.memories.close()
            for path in files:
                rebuild_file(path)

    def signing_key(self) -> SigningKey:
        """The home's own key, made at first use."""
        from streams.signing import SigningKey

        return SigningKey.load_or_create(self.path / KEY_FILE)

    def close(self) -> None:
        """Let go of files."""
        self.memories.close()
        if self._index is not None:
            self._index.close()
        self.log.keys.close()
        self.log.close()
        if self._aside is not None:
            self._aside.cleanup()


def _open_log(settings: Settings, clock: Callable[[], int], read_only: bool) -> LocalLog:
    if read_only:
        return LocalLog(settings.home / LOG_FILE, prefix=settings.prefix, clock=clock, read_only=True)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"the home can't be made: {error.strerror or error}", where=str(settings.home)
        ) from None
    return LocalLog(settings.home / LOG_FILE, prefix=settings.prefix, durable=settings.durable, clock=clock)
