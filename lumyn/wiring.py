"""The one place that builds real parts from configuration."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lumyn.config import LumynConfig, Settings, file_stamp, read_policy_file, resolve
from schemas.errors import BadConfig, NotFound, StorageUnavailable
from streams.decide_agent import DecideAgent
from streams.label_agent import LabelAgent
from streams.local_log import LocalLog
from streams.memory_sync import SyncedMemory
from streams.policy import CompiledPolicy, load_policy

if TYPE_CHECKING:
    from memory_service.recaller import Recaller
    from memory_service.sqlite_record_index import SqliteRecordIndex
    from memory_service.sqlite_store import SqliteMemoryStore
    from memory_service.vectoriser import Vectoriser
    from streams.signing import SigningKey

LOG_FILE = "lumyn.db"
MEMORY_FILE = "memory.db"
INDEX_FILE = "index.db"
KEY_FILE = "keys/signing.pem"
TRUSTED_FOLDER = "keys/trusted"


class Home:
    """A LUMYN_HOME with its parts; each is opened when it is first used."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = settings.home.absolute()
        self.log_file = str(self.path / LOG_FILE)
        self.log = _open_log(settings)
        self.memory = SyncedMemory(self.log, self.open_memory)
        self.labels = LabelAgent(self.log)
        fallback = load_policy_file(settings.policy_path) if settings.policy_path else None
        self.given_policy = fallback if settings.policy_given else None
        self.agent = DecideAgent(self.log, self.memory, fallback, sticky=os.getpid())
        self._index: SqliteRecordIndex | None = None

    def open_memory(self) -> tuple[SqliteMemoryStore, Recaller]:
        """The memory store and its recaller. Raises `MemoryUnavailable`."""
        from memory_service.recaller import Recaller
        from memory_service.sqlite_store import SqliteMemoryStore

        vectoriser = self.vectoriser()
        store = SqliteMemoryStore(self.path / MEMORY_FILE, vectoriser, self.log.epoch)
        return store, Recaller(store, vectoriser, self.log.epoch)

    def vectoriser(self) -> Vectoriser:
        """The vectoriser of the configured embedder."""
        from memory_service.embedders.cache import CachedEmbedder
        from memory_service.embedders.static import StaticEmbedder
        from memory_service.vectoriser import Vectoriser

        if self.settings.embedder != "static":
            raise BadConfig(f"unknown embedder `{self.settings.embedder}`", help="this version has `static`")
        return Vectoriser(CachedEmbedder(StaticEmbedder()))

    def index(self) -> SqliteRecordIndex:
        """The record index, caught up."""
        from memory_service.sqlite_record_index import SqliteRecordIndex
        from streams.index_sync import catch_up

        if self._index is None:
            self._index = SqliteRecordIndex(self.path / INDEX_FILE, self.log.epoch)
        catch_up(self.log, self._index)
        return self._index

    def signing_key(self) -> SigningKey:
        """The home's own key, made at first use."""
        from streams.signing import SigningKey

        return SigningKey.load_or_create(self.path / KEY_FILE)

    def close(self) -> None:
        """Let go of files."""
        self.memory.close()
        if self._index is not None:
            self._index.close()
        self.log.close()


def _open_log(settings: Settings) -> LocalLog:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(
            f"the home can't be made: {error.strerror or error}", where=str(settings.home)
        ) from None
    return LocalLog(settings.home / LOG_FILE, prefix=settings.prefix, durable=settings.durable)


_policies: dict[Path, tuple[tuple[int, int] | None, CompiledPolicy]] = {}


def load_policy_file(path: Path) -> CompiledPolicy:
    """The compiled policy of a file, kept until the file changes. Raises `PolicyInvalid`, `NotFound`."""
    stamp = file_stamp(str(path))
    known = _policies.get(path)
    if known is None or known[0] != stamp:
        known = _policies[path] = (stamp, load_policy(read_policy_file(path), name=str(path)))
    return known[1]


_homes: dict[tuple[object, ...], Home] = {}
_homes_lock = threading.Lock()


def open_home(config: LumynConfig | None = None) -> Home:
    """The home of a configuration; opened once a process and kept, so that a second decision is fast."""
    return _open(resolve(config))


def _open(settings: Settings) -> Home:
    stamp = None
    if settings.policy_path is not None:
        stamp = load_policy_file(settings.policy_path).policy_hash
    key = (os.getpid(), os.getcwd(), settings, stamp)
    home = _homes.get(key)
    if home is not None and file_stamp(home.log_file) is not None:
        return home
    with _homes_lock:
        home = _homes.get(key)
        if home is None or file_stamp(home.log_file) is None:
            home = _homes[key] = Home(settings)
        return home


def existing_home(config: LumynConfig | None = None) -> Home:
    """Like `open_home`, for commands that only look: a home that is not there is an error. Raises `NotFound`."""
    settings = resolve(config)
    if file_stamp(_log_file(settings)) is None:
        raise NotFound(
            "there are no decisions here yet",
            where=str(settings.home / LOG_FILE),
            help="`lumyn decide REQUEST.json --policy FILE` makes the first; LUMYN_HOME names another home",
        )
    return _open(_of_operator(settings))


def operator_home(config: LumynConfig | None = None) -> Home:
    """A home that decides nothing: looking, labelling and stopping must not fail for a policy file that is broken."""
    return _open(_of_operator(resolve(config)))


@lru_cache(maxsize=64)
def _of_operator(settings: Settings) -> Settings:
    return replace(settings, policy_path=None, policy_given=False)


@lru_cache(maxsize=64)
def _log_file(settings: Settings) -> str:
    return str(settings.home / LOG_FILE)


def close_homes() -> None:
    """Close every open home of this process."""
    with _homes_lock:
        for home in _homes.values():
            home.close()
        _homes.clear()
