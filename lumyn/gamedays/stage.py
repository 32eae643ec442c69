"""Where a game day is played: a home of its own, with its own log and stores, that shares nothing with the live one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from lumyn.config import Settings
from lumyn.embedded_home import EmbeddedHome
from lumyn.gamedays.faults import BorrowedKeys, Faults, FaultyStore, following
from lumyn.home import Home
from lumyn.stores import open_memory
from lumyn.subject_keys import subject_keys
from memory_service.recall import MemoryChoice
from memory_service.recaller import Recaller
from memory_service.store import MemoryStore
from schemas.errors import LumynError
from schemas.request import Request
from streams.deciding import Answer
from streams.subject_keys import SubjectKeys


class Stage(Protocol):
    """A place to play on."""

    @property
    def home(self) -> Home:
        """The home of this game day alone."""
        ...

    @property
    def name(self) -> str:
        """What it is, for the report."""
        ...

    def begin(self) -> None:
        """It is set: who decides may start."""
        ...

    def set_time(self, time_ms: int) -> None:
        """What the log's clock shows from now on, where the stage has one."""
        ...

    def set_faults(self, faults: Faults) -> None:
        """What goes wrong from now on; it does when this returns."""
        ...

    def deliver(self, requests: Sequence[Request]) -> list[Answer | LumynError]:
        """Have requests decided, by the path that decides live ones."""
        ...

    def close(self) -> None:
        """Take the stage down."""
        ...


class IsolatedHome(EmbeddedHome):
    """An embedded home whose memory can fail, with the clock and the control that a game day gives it."""

    def __init__(
        self, settings: Settings, clock: Callable[[], int], faults: Callable[[], Faults], keys: SubjectKeys
    ) -> None:
        self._faults = faults
        super().__init__(settings, clock=clock, follow=following(faults), keys=keys)

    def open_memory(self, choice: MemoryChoice | None) -> tuple[MemoryStore, Recaller]:
        """The memory store of a choice with the faults before it."""
        return open_memory(
            self.settings, self.path, self.log.epoch, choice, wrap=lambda inner: FaultyStore(inner, self._faults)
        )


class EmbeddedStage:
    """A stage in a folder, without servers."""

    name = "embedded"

    def __init__(self, folder: Path, settings: Settings, home_keys: SubjectKeys, *, seal: bool) -> None:
        """`settings` are the live ones: embedder and tenant are taken from them, no address, no path and no key."""
        self._now_ms = 0
        self._faults = Faults()
        own = replace(
            settings, home=folder, kafka=None, qdrant=None, policy_path=None, policy_given=False, durable=False,
            prefix="gameday", encrypt_subjects=seal, subject_keys=None, master_key=None, master_key_file=None,
        )  # fmt: skip
        keys = BorrowedKeys(subject_keys(own), home_keys)
        self.home = IsolatedHome(own, lambda: self._now_ms, lambda: self._faults, keys)

    def begin(self) -> None:
        """The caller's process decides."""

    def set_time(self, time_ms: int) -> None:
        self._now_ms = time_ms

    def set_faults(self, faults: Faults) -> None:
        self._faults = faults

    def deliver(self, requests: Sequence[Request]) -> list[Answer | LumynError]:
        return self.home.agent.decide(requests)

    def close(self) -> None:
        with suppress(LumynError):
            self.home.close()
