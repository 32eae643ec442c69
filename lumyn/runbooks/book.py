"""A runbook: what is said, asked, run and waited for, step by step."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

Effect = Literal["reads", "changes", "applies"]
"""What a command does: it looks, it changes something, or it changes something when it is given `--apply`."""

ALLOWED: Final[Mapping[tuple[str, ...], Effect]] = {
    ("list",): "reads",
    ("show",): "reads",
    ("explain",): "reads",
    ("verify",): "reads",
    ("diff",): "reads",
    ("doctor",): "reads",
    ("backtest",): "reads",
    ("kill-switch", "status"): "reads",
    ("kill-switch", "on"): "changes",
    ("kill-switch", "off"): "changes",
    ("policy", "list"): "reads",
    ("policy", "show"): "reads",
    ("policy", "check"): "reads",
    ("policy", "publish"): "changes",
    ("policy", "activate"): "changes",
    ("policy", "rollback"): "changes",
    ("relabel",): "applies",
    ("label",): "changes",
    ("memory", "stats"): "reads",
    ("memory", "suspects"): "reads",
    ("memory", "verify"): "reads",
    ("memory", "quarantine"): "applies",
    ("memory", "release"): "applies",
    ("memory", "rollback"): "applies",
    ("memory", "rebuild"): "changes",
    ("rate", "changes"): "reads",
    ("rate", "show"): "reads",
    ("watch", "check"): "changes",
    ("watch", "list"): "reads",
    ("redrive",): "changes",
    ("dead-letters", "list"): "reads",
    ("checkpoint",): "changes",
    ("incident", "show"): "reads",
    ("incident", "search"): "reads",
    ("incident", "note"): "changes",
    ("incident", "status"): "changes",
    ("incident", "add"): "changes",
}
"""The commands that a runbook may run: no shell, no agent, no key, nothing that is forgotten for good."""

NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,40}", re.ASCII)
PLACEHOLDER: Final = re.compile(r"\{([a-z][a-z0-9_-]{0,40})\}", re.ASCII)
GIVEN: Final = ("incident", "actor", "tenant")
"""What is known without asking; `incident` only where there is one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """What is waited for: a switch or an activation that took hold, or a query that finds at most so many decisions."""

    measure: Literal["kill-switch", "policy", "query"]
    of: str
    at_most: int
    within_s: float


@dataclass(frozen=True, slots=True)
class Step:
    """One step. Exactly one of `ask`, `confirm`, `command`, `wait` is set, or none: then it only says something."""

    id: str
    say: str = ""
    ask: str | None = None
    choices: tuple[str, ...] = ()
    default: str | None = None
    confirm: str | None = None
    command: tuple[str, ...] = ()
    wait: Wait | None = None
    expect: tuple[int, ...] = (0,)
    keep: Mapping[str, str] = field(default_factory=dict)
    link: Mapping[str, str] = field(default_factory=dict)
    when: Mapping[str, str] = field(default_factory=dict)
    unless: Mapping[str, str] = field(default_factory=dict)
    with_incident: bool = False

    @property
    def changes(self) -> bool:
        """Whether its command changes anything."""
        effect = effect_of(self.command) if self.command else "reads"
        later = any(word in ("--apply", "--undo", "--resume") for word in self.command)
        return effect == "changes" or (effect == "applies" and later)


@dataclass(frozen=True, slots=True)
class Runbook:
    """A runbook, with where it came from."""

    name: str
    title: str
    steps: tuple[Step, ...]
    where: str


def passes_over(step: Step, known: Mapping[str, str]) -> bool:
    """Whether what is known leaves a step out: `when` all of it must be so, `unless` none of it may be."""
    if any(known.get(name) != value for name, value in step.when.items()):
        return True
    return any(known.get(name) == value for name, value in step.unless.items())


def effect_of(command: tuple[str, ...]) -> Effect | None:
    """What a command does by its first words; None: it is not one that a runbook may run."""
    return ALLOWED.get(command[:2]) or ALLOWED.get(command[:1])


def filled(text: str, known: Mapping[str, str]) -> str:
    """A text with its placeholders filled in; within a query's quotes, quotes of the answer are doubled."""

    def put(found: re.Match[str]) -> str:
        value = known.get(found[1], f"<{found[1]}>")
        before, after = text[: found.start()], text[found.end() :]
        return value.replace("'", "''") if before.endswith("'") and after.startswith("'") else value

    return PLACEHOLDER.sub(put, text)
