"""The rule graph: what a policy says, frozen and normalised, independent of how its file is laid out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from schemas.policy import MemorySettings
from schemas.verdict import Verdict
from streams.policy.facts import Fact

ENGINE: Final = "lumyn-policy/1"
"""Version of what rules mean. It stands beside `ir_hash`, not in it: another engine is no tampering."""

Stage = Literal["REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "ALLOW_PATHS"]
OnMissing = Literal["deny", "abstain", "escalate", "no_match"]

STAGES: Final[tuple[Stage, ...]] = ("REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "ALLOW_PATHS")
VERDICT_OF_STAGE: Final[Mapping[Stage, Verdict]] = MappingProxyType(
    {"REQUIREMENTS": "ABSTAIN", "HARD_BLOCKS": "DENY", "ESCALATIONS": "ESCALATE", "ALLOW_PATHS": "ALLOW"}
)
STAGE_OF_VERDICT: Final[Mapping[Verdict, Stage]] = MappingProxyType(
    {verdict: stage for stage, verdict in VERDICT_OF_STAGE.items()}
)
ON_MISSING_OF_STAGE: Final[Mapping[Stage, OnMissing]] = MappingProxyType(
    {
        "REQUIREMENTS": "abstain",
        "HARD_BLOCKS": "abstain",
        "ESCALATIONS": "escalate",
        "ALLOW_PATHS": "no_match",
    }
)
EFFECT_OF_ON_MISSING: Final[Mapping[OnMissing, Verdict | None]] = MappingProxyType(
    {"deny": "DENY", "abstain": "ABSTAIN", "escalate": "ESCALATE", "no_match": None}
)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One fact compared by one operator; `want` is a scalar, or a tuple of scalars."""

    fact: Fact
    op: str
    want: Any


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one holds; without any, always true."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one holds."""

    items: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The condition doesn't hold."""

    item: Condition


Condition: TypeAlias = Leaf | AllOf | AnyOf | Not
ALWAYS: Final = AllOf(())


def leaves(condition: Condition) -> Iterator[Leaf]:
    """The comparisons of a condition, in order."""
    if isinstance(condition, Leaf):
        yield condition
    elif isinstance(condition, Not):
        yield from leaves(condition.item)
    else:
        for item in condition.items:
            yield from leaves(item)


def condition_ir(condition: Condition) -> list[Any]:
    """`[fact, op, want]`, `["all", ...]`, `["any", ...]` or `["not", ...]`."""
    if isinstance(condition, Leaf):
        want = list(condition.want) if condition.want.__class__ is tuple else condition.want
        return [condition.fact.name, condition.op, want]
    if isinstance(condition, Not):
        return ["not", condition_ir(condition.item)]
    return ["all" if isinstance(condition, AllOf) else "any", *map(condition_ir, condition.items)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `line`, `column` are its place in the file. Obligations and queries are JSON: read only."""

    id: str
    stage: Stage
    verdict: Verdict
    reason_codes: tuple[str, ...]
    obligations: tuple[Any, ...]
    queries: tuple[Any, ...]
    immune: bool
    on_missing: OnMissing
    condition: Condition
    line: int
    column: int

    @property
    def missing_effect(self) -> Verdict | None:
        """The verdict it asks for when it is indeterminate; None: it has no influence."""
        return EFFECT_OF_ON_MISSING[self.on_missing]

    def ir(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "stage": self.stage,
            "verdict": self.verdict,
            "reason_codes": list(self.reason_codes),
            "obligations": list(self.obligations),
            "queries": list(self.queries),
            "immune": self.immune,
            "on_missing": self.on_missing,
            "if": condition_ir(self.condition),
        }


@dataclass(frozen=True, slots=True)
class PolicyGraph:
    """A whole policy as the checker understood it."""

    name: str
    version: str
    fx: Mapping[str, float]
    rules: tuple[Rule, ...]
    default_verdict: Verdict
    default_reason_codes: tuple[str, ...]
    memory: MemorySettings | None

    def ir(self) -> dict[str, Any]:
        """What `ir_hash` is over: everything that decides, nothing that only names or lays out."""
        return {
            "fx": dict(self.fx),
            "rules": [rule.ir() for rule in self.rules],
            "default": {"verdict": self.default_verdict, "reason_codes": list(self.default_reason_codes)},
            "memory": self.memory.as_dict() if self.memory else None,
        }
