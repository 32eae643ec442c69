"""Attribution: asks what the 2x2 needs beside the candidate's own answer, and names the cause of each difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from schemas.errors import LumynError
from schemas.record import ENGINE
from streams.backtest.candidate import Candidate, Result
from streams.backtest.case import Case
from streams.backtest.causes import Cause, alike, cause_of
from streams.backtest.memory import Mode, Recaller, without_memory
from streams.policy import CompiledPolicy


class Attribution:
    """Knows the policies of then by their hashes, each compiled once."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        recaller: Recaller,
        policy_of: Callable[[Mapping[str, Any]], CompiledPolicy | None],
    ) -> None:
        """`candidates` are whole: with their memory, also where the backtest leaves memory out."""
        self._candidates = candidates
        self._recaller = recaller
        self._mode: Mode = recaller.mode
        self._policy_of = policy_of
        self._then: dict[str, tuple[Candidate, Candidate] | None] = {}

    def ask(self, changed: Sequence[tuple[Case, int, Result]]) -> None:
        """Ask the memory at once for what `cause` will need. Raises `MemoryUnavailable`."""
        if self._recaller.asking is None:
            return
        for case, k, _ in changed:
            then = self._of_then(case)
            if then is not None:
                self._recaller.want(case, then[1].policy, self._mode)
            if not self._recaller.answers(case, self._candidates[k].policy):
                self._recaller.want(case, self._candidates[k].policy, "as-of")
        self._recaller.ask()

    def cause(self, case: Case, k: int, new: Result) -> Cause:
        """Why the candidate's answer is not the recorded one."""
        candidate, same_engine = self._candidates[k], case.seen.engine == ENGINE
        then = self._of_then(case)
        if then is None:
            if self._mode != "recorded" or not same_engine:
                return "not separated"
            return "unexplained" if candidate.policy.policy_hash == case.seen.policy.hash else "policy"
        before = case.again
        if before is None:
            before = case.again = self._try(case, then[0], "recorded")
        if self._mode == "recorded":
            if same_engine and before is not None and alike(before, case.old):
                return "policy"
            return cause_of(case.old, before, new, before, new, same_engine=same_engine)
        mode: Mode = "recorded" if self._recaller.answers(case, candidate.policy) else "as-of"
        return cause_of(
            case.old,
            before,
            self._try(case, candidate, mode),
            self._try(case, then[1], self._mode),
            new,
            same_engine=same_engine,
        )

    def _try(self, case: Case, candidate: Candidate, mode: Mode) -> Result | None:
        try:
            return self._recaller.result(case, candidate, mode)
        except LumynError:
            return None

    def _of_then(self, case: Case) -> tuple[Candidate, Candidate] | None:
        """The policy that decided: whole, and as the backtest's memory has it."""
        hash_ = case.seen.policy.hash
        if hash_ not in self._then:
            try:
                policy = self._policy_of(case.record)
            except LumynError:
                policy = None
            self._then[hash_] = None
            if policy is not None:
                whole = Candidate(policy)
                self._then[hash_] = whole, Candidate(without_memory(policy)) if self._mode == "none" else whole
        return self._then[hash_]
