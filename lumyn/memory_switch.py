"""Switching a home's memory to another embedder: filled beside the one in use, then chosen by a control event."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lumyn.stores import chosen, make_vectoriser
from lumyn.wiring import Home
from memory_service.recall import MemoryChoice
from schemas.errors import UsageError
from streams.control import control_append


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


def switch_memory(home: Home, embedder: str, why: str, tick: Callable[[int], None]) -> Switched:
    """Fill the memory of an embedder up to the labels, then choose it. Decisions go on with the old one meanwhile.

    Raises `BadConfig` when the embedder can't be had here, `MemoryUnavailable`, `StorageUnavailable`.
    """
    if not why.strip():
        raise UsageError("say why: `--why TEXT`")
    after = _choice(home, _settled(embedder))
    control = home.agent.control()
    before = control.memory or _choice(home, chosen(home.settings, None).embedder)
    if before != after:
        home.fill_memory(after, tick, anew=False)
        memory = {"embedder": after.embedder, "vectoriser_id": after.vectoriser_id}
        was = {"embedder": before.embedder, "vectoriser_id": before.vectoriser_id}
        event = {"type": "memory_switched", "actor": home.settings.actor, "why": why, "memory": memory, "was": was}
        home.log.append([control_append(event)])
    mark = home.memories.of(after).store().watermark()
    return Switched(before, after, mark.version, mark.count)


def _choice(home: Home, embedder: str) -> MemoryChoice:
    return MemoryChoice(embedder, make_vectoriser(replace(home.settings, embedder=embedder)).id)


def _settled(embedder: str) -> str:
    """An embedder's name as every process understands it: a folder by its whole path."""
    kind, _, name = embedder.partition(":")
    return f"{kind}:{Path(name).absolute()}" if name and Path(name).is_dir() else embedder
