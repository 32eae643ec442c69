"""The one place that builds real parts from configuration."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from lumyn.config import LumynConfig, Settings, file_stamp, resolve
from lumyn.embedded_home import EmbeddedHome
from lumyn.home import LOG_FILE, Home
from lumyn.policy_file import load_policy_file
from memory_service.wal import may_be_written, wal_of
from schemas.errors import NotFound

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
