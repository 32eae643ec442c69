"""A home whose log is Kafka: the workers decide, sequence labels and keep the shared stores; this process asks."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from lumyn.config import Settings
from lumyn.home import KEY_FILE, HomeMemory
from lumyn.kafka_log import kafka_log
from lumyn.policy_file import load_policy_file
from lumyn.stores import open_index, open_memory, remove_left_memories, remove_memory, uses_server
from memory_service.record_index import RecordIndex
from schemas.canonical import decode_trusted
from schemas.errors import BadConfig, LumynError
from schemas.ids import decision_time_ms, is_decision_id
from schemas.label import LabelEvent
from streams.chosen_memory import ChosenMemory
from streams.find_records import is_current
from streams.index_sync import SMALL_BATCH, CaughtUp, Seen, catch_up
from streams.kafka.gateway import KafkaGateway, KafkaLabels, find_record
from streams.log import Message
from streams.memory_sync import SyncedMemory
from streams.memory_sync import catch_up as catch_up_memory
from streams.observe import Observer
from streams.sealing import shown_event
from streams.served_memory import ServedMemory
from streams.topics import LABELS

if TYPE_CHECKING:
    from memory_service.recall import MemoryChoice
    from memory_service.recaller import Recaller
    from memory_service.store import MemoryStore
    from streams.signing import SigningKey

_INDEX_WAIT_S = 3.0


class KafkaHome:
    """A home over Kafka. What is derived and local (index, memory, when no server keeps them) is under its folder."""

    def __init__(self, settings: Settings) -> None:
        if settings.qdrant is not None and not uses_server(settings):
            raise BadConfig(
                "LUMYN_QDRANT=edge:... is for one process, and over Kafka there are several",
                help="use a Qdrant server, or unset it: each process then keeps an exact memory of its own",
            )
        self.settings = settings
        self.path = settings.home.absolute()
        self.derived = self.path / f"kafka-{settings.prefix}"
        self.log = kafka_log(settings)
        self.agent = KafkaGateway(
            self.log, timeout_s=settings.timeout_s, sticky=os.getpid(), seal=settings.encrypt_subjects
        )
        self.labels = KafkaLabels(self.log, timeout_s=settings.timeout_s)
        self.memories: ChosenMemory[HomeMemory] = ChosenMemory(self._memory)
        self.given_policy = (
            load_policy_file(settings.policy_path) if settings.policy_path and settings.policy_given else None
        )
        self._index: RecordIndex | None = None
        self._opening = threading.Lock()
        self._seen = Seen()

    @property
    def memory(self) -> HomeMemory:
        """The memory that decisions are made with now."""
        return self.memories.of(self.agent.control().memory)

    def _memory(self, choice: MemoryChoice | None) -> HomeMemory:
        if uses_server(self.settings):
            staleness = self.settings.runtime_setting("memory_max_staleness_s", 60.0)
            return ServedMemory(lambda: self.open_memory(choice), Observer(), max_staleness_s=staleness)
        return SyncedMemory(self.log, lambda: self.open_memory(choice))

    def open_memory(self, choice: MemoryChoice | None) -> tuple[MemoryStore, Recaller]:
        """The memory store of a choice, and its recaller. Raises `MemoryUnavailable`."""
        create = not uses_server(self.settings)
        return open_memory(self.settings, self.derived, self.log.epoch, choice, create=create)

    def index(self) -> RecordIndex:
        """The record index: kept by the index worker on a server, which is waited for a little; else by ourselves."""
        index = self._opened_index()
        if not uses_server(self.settings):
            catch_up(self.log, index, seen=self._seen)
            return index
        deadline = time.monotonic() + _INDEX_WAIT_S
        while not is_current(self.log, index) and time.monotonic() < deadline:
            time.sleep(0.1)
        return index

    def bring_index_on(self, progress: Callable[[int], None]) -> None:
        if not uses_server(self.settings):
            catch_up(self.log, self._opened_index(), progress, self._seen, SMALL_BATCH)

    def _opened_index(self) -> RecordIndex:
        with self._opening:
            if self._index is None:
                self._index = open_index(self.settings, self.derived, self.log.epoch)
            return self._index

    def rebuild_index(self, progress: Callable[[int], None]) -> CaughtUp:
        """Empty the index and fill it again. With a server the index worker may go on: both do the same."""
        index = open_index(self.settings, self.derived, self.log.epoch)
        try:
            index.reset()
            return catch_up(self.log, index, progress)
        finally:
            index.close()

    def fill_memory(self, choice: MemoryChoice | None, progress: Callable[[int], None], *, anew: bool) -> int:
        """Bring a memory up to the labels. One that the label worker fills is its alone: stop it first."""
        self.memories.of(choice).close()
        if anew:
            remove_memory(self.settings, self.derived, self.log.epoch, choice)
        store, _ = open_memory(self.settings, self.derived, self.log.epoch, choice, create=True)
        try:
            version = catch_up_memory(self.log, store, progress)
            beat = getattr(store, "beat", None)
            if beat is not None:
                beat(int(time.time() * 1000))
            return version
        finally:
            store.close()

    def records(self, prefix: str, limit: int) -> list[Message]:
        if is_decision_id(prefix):
            found = find_record(self.log, prefix)
            return [found] if found is not None else []
        index, out = self.index(), []
        for name in index.by_prefix(prefix, None, limit):
            message = find_record(self.log, name)
            if message is not None:
                out.append(message)
        return out

    def events(self, decision_id: str) -> list[LabelEvent]:
        """Read from the decision's own time on: no label comes before its decision."""
        out: list[LabelEvent] = []
        offset = self.log.at_time(LABELS, 0, decision_time_ms(decision_id))
        while messages := self.log.read(LABELS, 0, offset, 2000):
            told = [decode_trusted(m.value) for m in messages if m.key == decision_id.encode()]
            out += [shown_event(self.log.keys, event) for event in told]
            offset = messages[-1].offset + 1
        return out

    def remembers(self, version: int, within_s: float) -> bool:
        """A memory of one's own is caught up before it is asked; a server's is filled by the label worker meanwhile."""
        if not uses_server(self.settings):
            return True
        memory = self.memory
        return not isinstance(memory, ServedMemory) or memory.reaches(version, within_s)

    def forget_memories(self) -> None:
        """A memory of this process's own is brought up to the labels, where there is one; those left are, too.

        Of a server the label worker fills the one in use, and nobody those that were left.
        """
        control = self.agent.control()
        if uses_server(self.settings):
            for choice in {*control.memories.values()} - {control.memory}:
                self.fill_memory(choice, lambda count: None, anew=False)
        elif any(self.derived.glob("memory*.db")):
            self.memories.close()
            remove_left_memories(self.derived, self.settings, control.memory)
            self.memory.store()

    def signing_key(self) -> SigningKey:
        """The home's own key, made at first use."""
        from streams.signing import SigningKey

        return SigningKey.load_or_create(self.path / KEY_FILE)

    def close(self) -> None:
        """Let go of files and connections."""
        with suppress(LumynError):
            self.memories.close()
        if self._index is not None:
            self._index.close()
        self.agent.close()
        self.log.keys.close()
        self.log.close()
