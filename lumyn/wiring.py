"""The one place that builds real parts from configuration."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, cast

from lumyn.config import LumynConfig, Settings, file_stamp, read_policy_file, resolve
from lumyn.subject_keys import subject_keys
from memory_service.wal import COPY_IT, may_be_written, wal_of
from schemas.errors import LumynError, NotFound, StorageUnavailable
from schemas.ids import is_decision_id
from schemas.label import LabelEvent, LabelRequest
from schemas.request import Request
from streams.chosen_memory import ChosenMemory
from streams.control import ControlState, read_control
from streams.decide_agent import DecideAgent
from streams.deciding import Answer
from streams.label_agent import LabelAgent, events_of
from streams.local_log import LocalLog, wall_clock_ms
from streams.log import Log, Message
from streams.memory_sync import Memory, SyncedMemory, catch_up
from streams.policy import CompiledPolicy, load_policy
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

LOG_FILE = "lumyn.db"
INDEX_FILE = "index.db"
KEY_FILE = "keys/signing.pem"
TRUSTED_FOLDER = "keys/trusted"


class Gate(Protocol):
    """Who decides: the embedded agent here, or the workers behind Kafka."""

    def decide(self, requests: Sequence[Request], policy: CompiledPolicy | None = None) -> list[Answer | LumynError]:
        """Append and decide, in order; an error in its place."""
        ...

    def submit(self, requests: Sequence[Request]) -> Sequence[Message | LumynError]:
        """Append without waiting."""
        ...

    def drain(self, limit: int = 1024) -> int:
        """Decide what waits, where that is this process's business; returns how many there were."""
        ...

    def control(self) -> ControlState:
        """The control state, read to its end."""
        ...


class Labels(Protocol):
    """Who takes labels."""

    def label(self, requests: Sequence[LabelRequest]) -> list[LabelEvent | LumynError]:
        """Accept labels, in order; a refused one is an error in its place."""
        ...


class HomeMemory(Memory, Protocol):
    """The memory as a home's commands use it. All raise `LumynError`."""

    def store(self) -> MemoryStore:
        """The store."""
        ...

    def recaller(self) -> Recaller:
        """The recaller over the store."""
        ...

    def version(self) -> int:
        """The version that questions of now are asked at."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Home(Protocol):
    """A LUMYN_HOME with its parts; each is opened when it is first used."""

    settings: Settings
    path: Path
    given_policy: CompiledPolicy | None

    @property
    def log(self) -> Log:
        """The log."""
        ...

    @property
    def agent(self) -> Gate:
        """Who decides."""
        ...

    @property
    def labels(self) -> Labels:
        """Who takes labels."""
        ...

    @property
    def memory(self) -> HomeMemory:
        """The memory that decisions are made with now."""
        ...

    @property
    def memories(self) -> ChosenMemory[Any]:
        """The memories of all choices."""
        ...

    def index(self) -> RecordIndex:
        """The record index, caught up."""
        ...

    def bring_index_on(self, progress: Callable[[int], None]) -> None:
        """Catch the record index up in small batches, each told to `progress`; nothing where a worker does."""
        ...

    def rebuild_index(self, progress: Callable[[int], None]) -> CaughtUp:
        """Make the record index again from the log."""
        ...

    def fill_memory(self, choice: MemoryChoice | None, progress: Callable[[int], None], *, anew: bool) -> int:
        """Bring the memory of a choice up to the labels, made `anew` or from where it stands; returns its version."""
        ...

    def records(self, prefix: str, limit: int) -> list[Message]:
        """The newest record of each id that starts with a prefix, in order, at most `limit`; of every tenant."""
        ...

    def events(self, decision_id: str) -> list[LabelEvent]:
        """All label events of a decision, in version order, as people may read them."""
        ...

    def remembers(self, version: int, within_s: float) -> bool:
        """Whether decisions from now on are made with the labels up to a version; waits for it. Never raises."""
        ...

    def forget_memories(self) -> None:
        """Bring what this process keeps of the memory up to the labels, so that what they take out is out."""
        ...

    def signing_key(self) -> SigningKey:
        """The home's own key, made at first use."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


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


_policies: dict[Path, tuple[tuple[int, int] | None, CompiledPolicy]] = {}


def load_policy_file(path: Path) -> CompiledPolicy:
    """The compiled policy of a file, kept until the file changes. Raises `PolicyInvalid`, `NotFound`."""
    stamp = file_stamp(str(path))
    known = _policies.get(path)
    if known is None or known[0] != stamp:
        known = _policies[path] = (stamp, load_policy(read_policy_file(path), name=str(path)))
    return known[1]


_homes: dict[tuple[object, ...], Home] = {}


def _make(settings: Settings, *, read_only: bool = False) -> Home:
    if settings.kafka is None:
        return EmbeddedHome(settings, read_only=read_only)
    from lumyn.kafka_home import KafkaHome

    return KafkaHome(settings)


_homes_lock = threading.Lock()


def open_home(config: LumynConfig | None = None) -> Home:
    """The home of a configuration; opened once a process and kept, so that a second decision is fast."""
    return _open(resolve(config))


def _open(settings: Settings, shut: object = None) -> Home:
    stamp = None
    if settings.policy_path is not None:
        stamp = load_policy_file(settings.policy_path).policy_hash
    key = (os.getpid(), os.getcwd(), settings, stamp, shut)
    home = _homes.get(key)
    if home is not None and _is_there(home):
        return home
    with _homes_lock:
        home = _homes.get(key)
        if home is None or not _is_there(home):
            home = _homes[key] = _make(settings, read_only=shut is not None)
        return home


def _is_there(home: Home) -> bool:
    return not isinstance(home, EmbeddedHome) or file_stamp(home.log_file) is not None


def existing_home(config: LumynConfig | None = None) -> Home:
    """Like `open_home`, for commands that only look: a home that is not there is an error. Raises `NotFound`."""
    settings = resolve(config)
    if settings.kafka is None and file_stamp(_log_file(settings)) is None:
        raise NotFound(
            "there are no decisions here yet",
            where=str(settings.home / LOG_FILE),
            help="`lumyn decide REQUEST.json --policy FILE` makes the first; LUMYN_HOME names another home",
        )
    return _of_looking(settings)


def operator_home(config: LumynConfig | None = None) -> Home:
    """A home that decides nothing: looking, labelling and stopping must not fail for a policy file that is broken."""
    return _of_looking(resolve(config))


def _of_looking(settings: Settings) -> Home:
    """A home that may not be written is read as it is; what would change it says so when it is tried."""
    return _open(_of_operator(settings), _shut(settings))


def _shut(settings: Settings) -> object:
    """None, or, of a log that may not be written: which file it is. Without a write-ahead log it is read without locks,
    so that one which changed since is opened anew."""
    path = Path(_log_file(settings))
    if settings.kafka is not None or not path.exists() or may_be_written(path):
        return None
    return "locked" if wal_of(path).exists() else file_stamp(str(path)) or ""


@lru_cache(maxsize=64)
def _of_operator(settings: Settings) -> Settings:
    return replace(settings, policy_path=None, policy_given=False)


@lru_cache(maxsize=64)
def _log_file(settings: Settings) -> str:
    return str(settings.home / LOG_FILE)


class _HomeAs:
    """A home as somebody else's: the same parts, with his tenant and name in its settings."""

    def __init__(self, home: Home, settings: Settings) -> None:
        self._home = home
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        return getattr(self._home, name)


def home_as(home: Home, tenant: str, actor: str) -> Home:
    """A home for a request's sender: what asks for the home's tenant and actor finds his. Its parts are shared."""
    return cast("Home", _HomeAs(home, _settings_as(home.settings, tenant, actor)))


@lru_cache(maxsize=1024)
def _settings_as(settings: Settings, tenant: str, actor: str) -> Settings:
    return replace(settings, tenant=tenant, actor=actor)


def close_homes() -> None:
    """Close every open home of this process."""
    with _homes_lock:
        for home in _homes.values():
            home.close()
        _homes.clear()
