"""Evaluate a stretch of the range: each record is checked and decoded once, and every candidate is asked about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from schemas.errors import BadJson, IntegrityError, LumynError
from streams.backtest.attribution import Attribution
from streams.backtest.candidate import Candidate, Result, Results
from streams.backtest.case import HOUR_MS, Case, Reading
from streams.backtest.chosen import Chosen
from streams.backtest.flips import flip_of, matters
from streams.backtest.memory import Mode, Recaller, without_memory
from streams.backtest.outcomes import Outcomes
from streams.backtest.part import Counting, Part
from streams.backtest.raw import Raw
from streams.diff import MISSHAPEN, checked_record
from streams.policy import CompiledPolicy

PolicyOf = Callable[[Mapping[str, Any]], CompiledPolicy | None]
"""The policy that a record names; None where its document isn't at hand. May raise `LumynError` for the same."""

_AT_ONCE = 256
"""Cases that one question to the memory is about."""


class Evaluator:
    """Candidates, the memory and the outcomes that a whole backtest goes by."""

    def __init__(
        self,
        candidates: Sequence[CompiledPolicy],
        recaller: Recaller,
        outcomes: Outcomes,
        policy_of: PolicyOf,
        chosen: Chosen,
        reading: Reading,
    ) -> None:
        self._mode: Mode = recaller.mode
        asked = [without_memory(one) for one in candidates] if self._mode == "none" else candidates
        self._candidates = [Candidate(policy) for policy in asked]
        self._recaller = recaller
        self._attribution = Attribution([Candidate(policy) for policy in candidates], recaller, policy_of)
        self._outcomes = outcomes
        self._chosen = chosen
        self._reading = reading
        self._recorded = Results()

    def evaluate(self, raws: Iterable[Raw]) -> Part:
        """Everything that is to say about these records. Raises `MemoryUnavailable`, `StorageUnavailable`."""
        counting = Counting(len(self._candidates))
        waiting = iter(raws)
        while some := list(islice(waiting, _AT_ONCE)):
            self._some(some, counting)
        return counting.finished(tuple(self._reading.dimensions), [c.policy.default_verdict for c in self._candidates])

    def _some(self, raws: Sequence[Raw], counting: Counting) -> None:
        cases = [case for raw in raws if (case := self._case(raw, counting)) is not None]
        self._ask(cases)
        changed = [(case, k, new) for case in cases for k, new in self._decide(case, counting)]
        self._attribution.ask(changed)
        for case, k, new in changed:
            self._explain(case, k, new, counting)
        self._recaller.forget()

    def _case(self, raw: Raw, counting: Counting) -> Case | None:
        """The record as a case; None when it is not taken, or can't be (which is counted)."""
        counting.seen.read += 1
        if not self._chosen.by_id(raw):
            return None
        taken = False
        try:
            record = checked_record(raw.value)
            _check_place(raw, record)
            if raw.key is not None:
                counting.met(record["log"]["offset"])
            outcome = self._outcomes.of(record["decision_id"])
            if not self._chosen.takes(record, outcome.label):
                return None
            counting.take(record["record_digest"])
            taken = True
            place = f"{raw.place} ({record['decision_id']})"
            case = self._reading.case(record, place, self._recorded.recorded(record), outcome)
            counting.took(record, case.time_ms, outcome.meaning)
            return case
        except LumynError as error:
            counting.refuse(raw, error, leaf=not taken)
            return None
        except MISSHAPEN as error:
            problem = BadJson(f"not a decision record: {type(error).__name__} at {error}")
            counting.refuse(raw, problem, leaf=not taken)
            return None

    def _ask(self, cases: Sequence[Case]) -> None:
        """One question to the memory for all that the candidates will want."""
        for case in cases:
            for candidate in self._candidates:
                self._recaller.want(case, candidate.policy, self._mode)
        self._recaller.ask()

    def _decide(self, case: Case, counting: Counting) -> Iterator[tuple[int, Result]]:
        """Ask every candidate; gives those that answer otherwise than was recorded."""
        old, meaning, record = case.old, case.outcome.meaning, case.record
        cell = counting.cell((old, meaning, case.time_ms // HOUR_MS, case.values))
        counting.mark(case.group, old.verdict, meaning)
        wanted, mode, verdict, codes = record["request"].get("policy"), self._mode, old.verdict, old.reason_codes
        for k, candidate in enumerate(self._candidates):
            if wanted is not None and candidate.policy.name != wanted:
                counting.tallies[k].out_of_policy += 1
                counting.leave_out(k, case.group, verdict, meaning)
                continue
            try:
                new = self._recaller.result(case, candidate, mode)
            except LumynError as error:
                counting.tallies[k].fail("memory" if mode == "recorded" else "other memory", case.place, error.message)
                counting.leave_out(k, case.group, verdict, meaning)
                continue
            except MISSHAPEN as error:
                told = f"not a decision record: {type(error).__name__}"
                counting.tallies[k].fail("schema", case.place, told)
                counting.leave_out(k, case.group, verdict, meaning)
                continue
            counts = cell[k]
            counts[new] = counts.get(new, 0) + 1
            if new.verdict != verdict:
                counting.mark_flip(k, case.group, verdict, new.verdict, meaning)
                yield k, new
            elif new.reason_codes != codes:
                yield k, new

    def _explain(self, case: Case, k: int, new: Result, counting: Counting) -> None:
        """Why it comes out otherwise, and whether it matters more than the flips kept so far."""
        tally = counting.tallies[k]
        cause = self._attribution.cause(case, k, new)
        tally.causes[cause, case.old.verdict, new.verdict] += 1
        if cause == "unexplained":
            tally.fail("unexplained", case.place, "the same policy, memory and engine decide otherwise than recorded")
        if new.verdict == case.old.verdict:
            return
        order = matters(case, new.verdict)
        if tally.would_keep(order):
            policy = self._candidates[k].policy
            recall = self._recaller.recall(case, policy, self._mode)
            tally.keep([flip_of(case, policy, new, cause, recall, order)])


def _check_place(raw: Raw, record: Mapping[str, Any]) -> None:
    """A record filed under another id, or in another partition, was put there by somebody. Raises `IntegrityError`."""
    if raw.key is None:
        return
    if raw.key != record["decision_id"].encode() or raw.partition != record["log"]["partition"]:
        raise IntegrityError(f"the record of decision {record['decision_id']} is filed where it does not belong")
