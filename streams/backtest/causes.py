"""Why a decision comes out otherwise: the 2x2 of {policy then, the candidate} x {memory then, the memory asked now}."""

from __future__ import annotations

from typing import Final, Literal

from streams.backtest.candidate import Result

Cause = Literal["policy", "memory", "interaction", "engine", "unexplained", "not separated"]
CAUSES: Final[tuple[Cause, ...]] = ("policy", "memory", "interaction", "engine", "unexplained", "not separated")


def cause_of(
    recorded: Result,
    then: Result | None,
    policy_alone: Result | None,
    memory_alone: Result | None,
    both: Result,
    *,
    same_engine: bool,
) -> Cause:
    """The factor behind a difference between `recorded` and `both`.

    `then`: the policy and the memory of then, on this engine; it must be `recorded` when the engine is the same.
    `policy_alone`: the candidate on the memory of then. `memory_alone`: the policy of then on the memory asked now.
    None: can't be had. `interaction`: what both together give neither gives alone, or each gives by itself.
    `unexplained`: the same engine, policy and memory give another answer than they gave: not deterministic.
    """
    if then is not None and not alike(then, recorded):
        if same_engine:
            return "unexplained"
        if alike(then, both):
            return "engine"
    if then is None or policy_alone is None or memory_alone is None:
        return "not separated"
    by_policy, by_memory = not alike(policy_alone, then), not alike(memory_alone, then)
    if by_policy and not by_memory:
        return "policy" if alike(policy_alone, both) else "interaction"
    if by_memory and not by_policy:
        return "memory" if alike(memory_alone, both) else "interaction"
    return "interaction"


def alike(one: Result, other: Result) -> bool:
    """Whether verdict and reason codes are the same."""
    return one.verdict == other.verdict and one.reason_codes == other.reason_codes
