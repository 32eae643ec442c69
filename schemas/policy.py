"""The `memory` block of a policy: when memory blocks, escalates, supports or softens, and how it searches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

OnUnavailable = Literal["abstain", "escalate", "policy_only"]

DAY_MS: Final = 86_400_000
ON_UNAVAILABLE: Final[tuple[OnUnavailable, ...]] = ("abstain", "escalate", "policy_only")
DEFAULT_WEIGHTS: Final[Mapping[str, float]] = MappingProxyType({"text": 0.3, "categories": 0.4, "numbers": 0.3})


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """Thresholds are similarities in 0..1 (above 1: that step is off); `amount_within` is a factor.

    `weights` multiply the query's text, categories and numbers blocks. `top_k` neighbours are shown to
    people; `neighbours` (50 to 500) is how many `memory.nearby` is estimated from. `half_life_days` is the time in
    which a label's worth halves; None: labels do not age. The policy checker validates the values.
    """

    failure_block: float = 0.92
    failure_escalate: float = 0.82
    soften: float = 0.90
    success_support: float = 0.90
    amount_within: float = 3
    weights: Mapping[str, float] = field(default_factory=lambda: DEFAULT_WEIGHTS)
    top_k: int = 5
    neighbours: int = 64
    on_unavailable: OnUnavailable = "abstain"
    half_life_days: float | None = None

    @property
    def half_life_ms(self) -> int | None:
        """In whole milliseconds."""
        return None if self.half_life_days is None else max(1, round(self.half_life_days * DAY_MS))

    def as_dict(self) -> dict[str, Any]:
        """JSON form, keys as in the policy file; a half-life only where there is one."""
        aging = {} if self.half_life_days is None else {"half_life_days": self.half_life_days}
        return {
            **aging,
            "failure_block": self.failure_block,
            "failure_escalate": self.failure_escalate,
            "soften": self.soften,
            "success_support": self.success_support,
            "amount_within": self.amount_within,
            "weights": dict(self.weights),
            "top_k": self.top_k,
            "neighbours": self.neighbours,
            "on_unavailable": self.on_unavailable,
        }
