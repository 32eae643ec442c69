"""Switching a home's memory to another embedder: filled beside the one in use, then chosen by a control event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lumyn.config import read_policy_file
from lumyn.home import Home
from lumyn.stores import make_vectoriser
from memory_service.profile import DEFAULT_PROFILE, MemoryProfile
from memory_service.recall import MemoryChoice
from schemas.canonical import decode_trusted, encode
from schemas.errors import UsageError
from streams.control import control_append
from streams.policy.check_profile import load_profile


@dataclass(frozen=True, slots=True)
class Switched:
    """Which memory was asked before, which is asked now, its version and how many points are in force."""

    before: MemoryChoice
    after: MemoryChoice
    version: int
    points: int

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**asdict(self), "switched": self.before != self.after}


def switch_memory(
    home: Home,
    embedder: str | None,
    why: str,
    tick: Callable[[int], None] = lambda count: None,
    profile: MemoryProfile | None = None,
) -> Switched:
    """Fill the memory of an embedder and a profile up to the labels, then choose it; decisions go on with the old one.

    What is not given stays as it is.

    Raises `BadConfig` when the embedder can't be had here, `MemoryUnavailable`, `StorageUnavailable`.
    """
    if not why.strip():
        raise UsageError("say why: `--why TEXT`")
    before = home.agent.control().memory or _choice(home, home.settings.embedder, None)
    wanted = before.profile if profile is None else encode(profile.as_dict()).decode()
    after = _choice(home, _settled(embedder or before.embedder), None if profile == DEFAULT_PROFILE else wanted)
    if before != after:
        home.fill_memory(after, tick, anew=False)
        memory, was = _as_event(after), _as_event(before)
        event = {"type": "memory_switched", "actor": home.settings.actor, "why": why, "memory": memory, "was": was}
        home.log.append([control_append(event)])
    mark = home.memories.of(after).store().watermark()
    return Switched(before, after, mark.version, mark.count)


def _choice(home: Home, embedder: str, profile: str | None) -> MemoryChoice:
    vectoriser = make_vectoriser(replace(home.settings, embedder=embedder), profile)
    return MemoryChoice(embedder, vectoriser.id, profile)


def _as_event(choice: MemoryChoice) -> dict[str, Any]:
    profile = {} if choice.profile is None else {"profile": decode_trusted(choice.profile.encode())}
    return {"embedder": choice.embedder, "vectoriser_id": choice.vectoriser_id, **profile}


def _settled(embedder: str) -> str:
    """An embedder's name as every process understands it: a folder by its whole path."""
    kind, _, name = embedder.partition(":")
    return f"{kind}:{Path(name).absolute()}" if name and Path(name).is_dir() else embedder


def read_profile(path: str) -> MemoryProfile:
    """The profile of a file; `default` is the default one. Raises `PolicyInvalid` with every problem, `NotFound`."""
    if path == DEFAULT_PROFILE.name:
        return DEFAULT_PROFILE
    return load_profile(read_policy_file(Path(path)), name=path)
