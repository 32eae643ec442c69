"""What goes wrong now, and the memory store and control that obey it; the parts below them are the real ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_service.point import Point
from memory_service.store import Found, MemoryStore, Search, Watermark
from schemas.errors import KeysUnavailable, MemoryUnavailable
from schemas.label import LabelEvent
from streams.control import ControlState, read_control
from streams.log import Log
from streams.subject_keys import Held, State, Subject, SubjectKey, SubjectKeys


@dataclass(slots=True)
class Faults:
    """The state of what can fail. `slow_ms`: how long each question to the memory takes longer."""

    memory_down: bool = False
    slow_ms: int = 0
    control_stale: bool = False


Now = Callable[[], Faults]


class FaultyStore:
    """A `MemoryStore` that can't be reached while `faults` say so, and is otherwise the one below it."""

    def __init__(self, inner: MemoryStore, faults: Now) -> None:
        self._inner = inner
        self._faults = faults

    def _reach(self) -> MemoryStore:
        """The store. Raises `MemoryUnavailable` while it is down."""
        now = self._faults()
        if now.slow_ms:
            time.sleep(now.slow_ms / 1000)
        if now.memory_down:
            raise MemoryUnavailable("the game day has taken the memory down")
        return self._inner

    def watermark(self) -> Watermark:
        return self._reach().watermark()

    def search(self, searches: Sequence[Search]) -> list[Found]:
        return self._reach().search(searches)

    def apply(self, events: Sequence[LabelEvent]) -> Watermark:
        return self._reach().apply(events)

    def points(self, tenant: str | None = None, version: int | None = None) -> Iterator[Point]:
        return self._reach().points(tenant, version)

    def is_remembered(self, memory_id: str) -> bool:
        return self._reach().is_remembered(memory_id)

    def reset(self, epoch: str) -> None:
        self._reach().reset(epoch)

    def close(self) -> None:
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        """What a backend can do besides, such as a server's heartbeat."""
        return getattr(self._reach(), name)


def following(faults: Now) -> Callable[[Log, ControlState], ControlState]:
    """Reads control to its end, and can't say so while `faults` say that it is stale: then nothing new is seen."""

    def follow(log: Log, state: ControlState) -> ControlState:
        if faults().control_stale:
            return replace(state, stale=True)
        return replace(read_control(log, state), stale=False)

    return follow


class BorrowedKeys:
    """Keys of a game day's own for what it seals; what came sealed is opened with the home's, which never change."""

    def __init__(self, own: SubjectKeys, home: SubjectKeys) -> None:
        self._own = own
        self._home = home

    def made(self, subjects: Sequence[Subject]) -> list[SubjectKey]:
        return self._own.made(subjects)

    def key(self, kid: str) -> bytes | None:
        return self._own.key(kid) or self._home.key(kid)

    def state(self, kid: str) -> State:
        own = self._own.state(kid)
        return own if own != "unknown" else self._home.state(kid)

    def find(self, subject: Subject) -> Held | None:
        return self._own.find(subject)

    def held(self, kid: str) -> str | None:
        return self._own.held(kid) or self._home.held(kid)

    def named(self, tenant: str, subject_id: str) -> list[str]:
        return self._own.named(tenant, subject_id)

    def hold(self, subject: Subject, why: str) -> Held:  # noqa: ARG002
        raise KeysUnavailable("a game day holds nobody")

    def release(self, subject: Subject) -> None:
        """A game day holds nobody."""

    def erase(self, kid: str) -> None:
        """A game day forgets nobody."""

    def finish(self, kid: str) -> None:
        """What labels say of forgotten subjects was done in the home."""

    def close(self) -> None:
        self._own.close()
