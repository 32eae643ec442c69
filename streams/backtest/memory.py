"""Which memory answers candidates: the recorded one, the one of then asked again, the present one, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal, get_args

from memory_service.recall import OFF, Asked, Recall
from schemas.errors import BadJson, MemoryUnavailable, UsageError
from schemas.policy import MemorySettings
from streams.backtest.candidate import Candidate, Result
from streams.backtest.case import Case
from streams.backtest.outcomes import Outcomes
from streams.policy import CompiledPolicy
from streams.replay import check_recorded_memory

Mode = Literal["recorded", "as-of", "current", "none"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)
Recalls = Callable[[Sequence[Asked]], list[Recall]]
_AT_ONCE = 256
_Key = tuple[str, str, int, str]
"""(decision, vectoriser, memory version, what is asked with)"""


@dataclass(frozen=True, slots=True)
class Answering:
    """A memory that can be asked, up to a version that is fixed at the start."""

    recalls: Recalls
    version: int


@dataclass(frozen=True, slots=True)
class Asking:
    """The memories of a home: each vectoriser's own, as vectors of two never meet."""

    epoch: str
    now: str
    """The vectoriser of the present memory."""
    memory_of: Callable[[str], Answering | None]
    """A vectoriser's memory; None: not kept here. Raises `MemoryUnavailable`."""


@dataclass(slots=True)
class Recaller:
    """Gives each case its recalls for a policy. What must be asked is collected, then asked at once (`ask`)."""

    mode: Mode
    asking: Asking | None
    outcomes: Outcomes
    _found: dict[_Key, Recall] = field(default_factory=dict)
    _wanted: dict[_Key, Asked] = field(default_factory=dict)
    _memories: dict[str, Answering | None] = field(default_factory=dict)

    def want(self, case: Case, policy: CompiledPolicy, mode: Mode) -> None:
        """Note that `recall` will be asked for this; what can't be asked is told there."""
        if mode not in ("as-of", "current") or policy.memory is None or case.fixed is not None or self.asking is None:
            return
        with suppress(BadJson):
            key, asked = self._asked(case, policy.memory, mode)
            if key not in self._found:
                self._wanted[key] = asked

    def ask(self) -> None:
        """Ask what is wanted. Raises `MemoryUnavailable`."""
        if not self._wanted:
            return
        by_memory: dict[str, list[_Key]] = {}
        for key in self._wanted:
            by_memory.setdefault(key[1], []).append(key)
        for vectoriser, keys in by_memory.items():
            recalls = self._memory(vectoriser).recalls
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                for key, recall in zip(some, recalls([self._wanted[k] for k in some]), strict=True):
                    if not recall.available:
                        raise MemoryUnavailable("the memory stopped answering", help="`lumyn doctor` checks it")
                    self._found[key] = recall
        self._wanted.clear()

    def forget(self) -> None:
        """Let go of what was found: the next cases are others."""
        self._found.clear()

    def recall(self, case: Case, policy: CompiledPolicy, mode: Mode) -> Recall:
        """What memory answers. Raises `UsageError` when recorded memory can't answer what this policy asks."""
        if policy.memory is None or mode == "none":
            return OFF
        if mode == "recorded":
            check_recorded_memory(case.seen.recalled or case.record, policy)
            return case.recalled
        if self.asking is None:
            raise UsageError("there is no memory to ask")
        return self._found[self._asked(case, policy.memory, mode)[0]]

    def answers(self, case: Case, policy: CompiledPolicy) -> bool:
        """Whether recorded memory can answer a policy."""
        try:
            self.recall(case, policy, "recorded")
        except UsageError:
            return False
        return True

    def result(self, case: Case, candidate: Candidate, mode: Mode) -> Result:
        """What a candidate says of a case. Raises `LumynError` when the memory can't answer it."""
        if case.fixed is not None:
            return candidate.fixed(case.seen.request, case.time_ms, case.recalled, *case.fixed)
        recall = self.recall(case, candidate.policy, mode)
        return candidate.decide(case.seen.request, case.time_ms, recall)

    def _asked(self, case: Case, settings: MemorySettings, mode: Mode) -> tuple[_Key, Asked]:
        vectoriser, version = self._version(case, mode)
        request, name = case.seen.request, case.seen.decision_id
        # Only what was labelled is in a memory: leaving a decision out costs a walk over all points.
        own = name if self.outcomes.is_labelled(name) else None
        asked = Asked(request, settings, version, own, at_ms=case.time_ms)
        return (name, vectoriser, version, asked_with(settings)), asked

    def _version(self, case: Case, mode: Mode) -> tuple[str, int]:
        """Which memory is asked, as of which version. Raises `BadJson` for one that can't be.

        A decision that was made with memory off is asked by its time, of the present memory.
        """
        assert self.asking is not None
        now = self.asking.now
        if mode == "current":
            return now, self._memory(now).version
        memory = (case.seen.recalled or case.record)["memory"]
        if memory["version"] is None:
            return now, min(self.outcomes.version_at(case.time_ms), self._memory(now).version)
        if memory["epoch"] != self.asking.epoch:
            raise BadJson(f"recalled from another memory (epoch {memory['epoch']}), which can't be asked as of then")
        found = self._memory(memory["vectoriser_id"])
        if memory["version"] > found.version:
            raise BadJson(f"made at memory version {memory['version']}, which the memory lacks")
        return memory["vectoriser_id"], memory["version"]

    def _memory(self, vectoriser_id: str) -> Answering:
        assert self.asking is not None
        if vectoriser_id not in self._memories:
            self._memories[vectoriser_id] = self.asking.memory_of(vectoriser_id)
        found = self._memories[vectoriser_id]
        if found is None:
            raise BadJson(f"recalled with vectoriser `{vectoriser_id}`, whose memory is not kept here")
        return found


def asked_with(settings: MemorySettings) -> str:
    """What the answer depends on: policies that differ in thresholds only share it."""
    weights, within = sorted(settings.weights.items()), float(settings.amount_within)
    return repr((weights, settings.top_k, settings.neighbours, within, settings.half_life_days))


def without_memory(policy: CompiledPolicy) -> CompiledPolicy:
    """The policy as if it had no `memory`."""
    return replace(policy, memory=None)


def mode_named(mode: str) -> Mode:
    """The mode by its name. Raises `UsageError`."""
    for known in MODES:
        if mode == known:
            return known
    raise UsageError(f"unknown memory `{mode}`", help=f"one of {', '.join(MODES)}")
