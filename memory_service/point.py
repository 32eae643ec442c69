"""A memory point: one labelled decision, valid from one memory version up to another."""

from __future__ import annotations

from dataclasses import dataclass

from memory_service.blocks import Array
from schemas.label import FULL_TRUST, Meaning
from schemas.verdict import Verdict

OPEN = 2**62
"""`to_version` of a point that is still in force."""


@dataclass(frozen=True, slots=True)
class Point:
    """What recall needs to know of a labelled decision. A change closes the point and opens a new one."""

    memory_id: str
    tenant: str
    action_type: str
    meaning: Meaning
    label: str
    verdict: Verdict
    rules: tuple[str, ...]
    amount: float | int | None
    contested: bool
    labeller: str
    summary: str
    from_version: int
    to_version: int
    vector: Array
    comparable: bool = True
    """False: the decision has an amount that can't be compared; not the same as having none."""
    trust: int = FULL_TRUST
    """In the labeller whose word it is worth, in hundredths; never 0: what is held is no point."""
    at_ms: int = 0
    """When that word was said, in log time."""

    @property
    def is_open(self) -> bool:
        """Whether the point is still in force."""
        return self.to_version == OPEN


@dataclass(frozen=True, slots=True)
class Hit:
    """A point that a search found; `dot` and `dots` are exact fixed-point integers (unit 2048^2).

    Its `vector` may be empty: an index keeps vectors once, in its rows.
    """

    point: Point
    dot: int
    dots: tuple[int, int, int]
