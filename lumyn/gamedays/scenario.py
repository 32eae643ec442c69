"""A game day's scenario: which requests, whose policy and memory, what goes wrong when, and what must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas.query import Query
from streams.backtest.bars import Bar
from streams.policy.findings import Mark

FAULTS: Final = (
    "qdrant_down", "slow_memory", "memory_poisoned", "stale_control", "traffic", "duplicate_delivery", "clock_jump",
)  # fmt: skip
STEPS: Final = ("kill_switch_on", "kill_switch_off", "policy", "label")


@dataclass(frozen=True, slots=True)
class During:
    """Requests by their numbers in the game day, from 1, both ends included; `last` None: to the end."""

    first: int = 1
    last: int | None = None

    def holds(self, number: int) -> bool:
        """Whether a request is among them."""
        return number >= self.first and (self.last is None or number <= self.last)

    def text(self) -> str:
        """In words."""
        if self.last == self.first:
            return f"request {self.first}"
        return f"requests {self.first} to {self.last if self.last is not None else 'the last'}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """Which requests: of the home's log, of packs, or of a file of records or requests."""

    start: str | None = None
    end: str | None = None
    query: str | None = None
    limit: int | None = None
    packs: tuple[str, ...] = ()
    file: str | None = None
    mark: Mark = field(default=Mark(1, 1))


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and during which requests. `options` are of its kind (docs/gamedays.md)."""

    kind: str
    name: str
    during: During
    options: Mapping[str, Any]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Step:
    """What is done before request `at` is delivered. `options` are of its kind."""

    kind: str
    name: str
    at: int
    options: Mapping[str, Any]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Expected:
    """What must hold, of the decisions `during` some requests.

    One of: `bar` over the decisions that `query` finds; `request` (a number, a request_id or a decision's id) with
    `verdicts` and `reasons`; `contained`, a kill switch by its step's name, with at most `let_through` decisions after
    it, and the last of them within `within_s`.
    """

    text: str
    mark: Mark
    during: During = During()
    why: str = ""
    bar: Bar | None = None
    query: Query | None = None
    request: int | str | None = None
    verdicts: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    contained: str | None = None
    let_through: int = 0
    within_s: float | None = None


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario as it was read. Paths in it count from its own folder."""

    path: Path
    digest: str
    name: str
    why: str
    incident: str | None
    replay: Replayed
    policy: str | None
    memory: str
    """`now`, `then`, `none`, or a file of label events."""
    clock: str | None
    faults: tuple[Fault, ...] = ()
    steps: tuple[Step, ...] = ()
    expected: tuple[Expected, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def beside(self, name: str) -> Path:
        """A path that the scenario names."""
        return self.path.parent / name
