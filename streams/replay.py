"""Replay: decide a recorded request again, under the same or a candidate policy, then say what differs and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memory_service.recall import OFF, Asked, Recall, recorded
from schemas.errors import UsageError
from schemas.ids import time_ms_of
from schemas.record import ENGINE
from streams.decide import decide
from streams.integrity import position_of, recorded_control, recorded_request
from streams.policy import CompiledPolicy
from streams.sealing import require_open

MemoryMode = Literal["current", "recorded", "as-of"]
Recalls = Callable[[Asked], Recall]
_ASKED_WITH = ("weights", "top_k", "neighbours", "amount_within", "half_life_days")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that came out otherwise."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found: the record as decided now, the differences, and which factors made them."""

    original: Mapping[str, Any]
    record: Mapping[str, Any]
    memory: MemoryMode
    differences: tuple[Difference, ...]
    causes: tuple[str, ...]
    engine_changed: bool

    @property
    def matches(self) -> bool:
        """Whether verdict and reason codes are the original's."""
        return not any(d.field in ("verdict", "reason_codes") for d in self.differences)


def replay(
    original: Mapping[str, Any],
    recorded_policy: CompiledPolicy,
    *,
    candidate: CompiledPolicy | None = None,
    memory: MemoryMode = "recorded",
    recalls: Recalls | None = None,
    version: int = 0,
) -> Replay:
    """Decide again. `recalls` answers for `current` (as of `version`) and `as-of` (the record's own version).

    Raises `UsageError` when recorded memory can't answer what the candidate policy asks; `Erased`, `KeyMissing` when
    what was asked can't be read.
    """
    require_open(original)
    policy = candidate or recorded_policy
    now = _decide(original, policy, recall_for(original, policy, memory, recalls, version))
    differences = tuple(
        Difference(field, original[field], now[field])
        for field in ("verdict", "reason_codes", "matched_rules", "obligations", "queries", "risk_signals")
        if original[field] != now[field]
    )
    changed = [d for d in differences if d.field in ("verdict", "reason_codes")]
    causes: list[str] = []
    if changed:
        alone = _decide(original, recorded_policy, recall_for(original, recorded_policy, memory, recalls, version))
        swapped = _decide_recorded(original, policy)
        base: Mapping[str, Any] = original
        if original["engine"] != ENGINE:  # what this engine makes of the same inputs is neither policy's nor memory's
            base = _decide_recorded(original, recorded_policy) or original
        causes = [
            name
            for name, other in (("policy", swapped), ("memory", alone))
            if other is not None and _face(other) != _face(base)
        ]
        if original["engine"] != ENGINE and _face(base) != _face(original):
            causes.append("engine")
        if not causes:
            causes = ["policy and memory together"]
    return Replay(original, now, memory, differences, tuple(causes), original["engine"] != ENGINE)


def _face(record: Mapping[str, Any]) -> tuple[Any, Any]:
    return record["verdict"], record["reason_codes"]


def _decide(original: Mapping[str, Any], policy: CompiledPolicy, recall: Recall) -> dict[str, Any]:
    return decide(
        recorded_request(original),
        position_of(original),
        policy,
        recorded_control(original),
        recall,
    ).record


def _decide_recorded(original: Mapping[str, Any], policy: CompiledPolicy) -> dict[str, Any] | None:
    """The candidate on recorded memory, where recorded memory can answer it."""
    try:
        return _decide(original, policy, recall_for(original, policy, "recorded", None, 0))
    except UsageError:
        return None


def recall_for(
    original: Mapping[str, Any], policy: CompiledPolicy, memory: MemoryMode, recalls: Recalls | None, version: int
) -> Recall:
    """The recall to decide with."""
    settings = policy.memory
    if settings is None:
        return OFF
    if memory == "recorded" or recalls is None:
        check_recorded_memory(original, policy)
        return recorded(original)
    if memory == "as-of":
        at = original["memory"]["version"]
        version = 0 if at is None else at
    return recalls(Asked(original["request"], settings, version, at_ms=time_ms_of(original["created_at"])))


def check_recorded_memory(original: Mapping[str, Any], policy: CompiledPolicy) -> None:
    """Refuse to answer a candidate from a recall that was asked otherwise. Raises `UsageError`."""
    settings = original["memory"]["settings"]
    if policy.memory is None:
        return
    wanted = policy.memory.as_dict()
    if settings is None:
        raise UsageError(
            "the decision was made with memory off, so its record can't say what memory would have said",
            help="use `--memory as-of` or `--memory current` where the store is",
        )
    for name in _ASKED_WITH:
        was, now = settings.get(name), wanted.get(name)
        if was != now:
            raise UsageError(
                f"memory.{name} was {was} when this was decided and is {now} in the candidate, so "
                "recorded memory can't answer it",
                help="use `--memory as-of` where the store is",
            )
