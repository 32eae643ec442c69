"""Evaluate a stretch of the range: each record is checked and decoded once, and every candidate is asked about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from schemas.errors import BadJson, IntegrityError, KeysUnavailable, LumynError
from schemas.seal import OpenRecord, kid_of
from streams.backtest.attribution import Attribution
from streams.backtest.candidate import MOST_KEPT, Candidate, Result, Results
from streams.backtest.case import HOUR_MS, Case, Reading
from streams.backtest.causes import alike
from streams.backtest.chosen import Chosen
from streams.backtest.flips import flip_of, matters
from streams.backtest.glance import Glances
from streams.backtest.memory import Mode, Recaller, without_memory
from streams.backtest.outcomes import Outcome, Outcomes
from streams.backtest.panel import Answers, Panel, panels
from streams.backtest.part import Counting, Part
from streams.backtest.raw import Raw
from streams.diff import MISSHAPEN, checked_record
from streams.policy import CompiledPolicy
from streams.sealing import opened_record, require_open
from streams.subject_keys import NO_KEYS, SubjectKeys

PolicyOf = Callable[[Mapping[str, Any]], CompiledPolicy | None]
"""The policy that a record names; None where its document isn't at hand. May raise `LumynError` for the same."""

Noted = Callable[[Case, Result, str], Any]
"""What is kept of a decision that gets another verdict, besides being counted: of the case, the result, the cause."""

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
        keys: SubjectKeys = NO_KEYS,
        note: Noted | None = None,
    ) -> None:
        """`keys` open what is sealed; a decision that nothing opens is counted as erased, or refused.

        `note` makes what a part keeps of each flip, in the order of the range.
        """
        self._mode: Mode = recaller.mode
        asked = [without_memory(one) for one in candidates] if self._mode == "none" else candidates
        self._candidates = [Candidate(policy) for policy in asked]
        self._recaller = recaller
        self._attribution = Attribution([Candidate(policy) for policy in candidates], recaller, policy_of)
        self._outcomes = outcomes
        self._chosen = chosen
        self._reading = reading
        self._keys = keys
        self._note = note
        self._recorded = Results()
        self._panels = panels(self._candidates)
        self._glances = Glances(memory=any(panel.policy.memory is not None for panel in self._panels))
        self._known_changes: dict[tuple[Result, Answers], tuple[int, ...]] = {}

    def evaluate(self, raws: Iterable[Raw]) -> Part:
        """Everything that is to say about these records. Raises `MemoryUnavailable`, `StorageUnavailable`."""
        self._trim()
        counting = Counting([panel.numbers for panel in self._panels])
        waiting = iter(raws)
        while some := list(islice(waiting, _AT_ONCE)):
            self._some(some, counting)
        return counting.finished(tuple(self._reading.dimensions), [c.policy.default_verdict for c in self._candidates])

    def cases(self, raws: Iterable[Raw]) -> tuple[list[Case], Part]:
        """The decisions as cases, without asking a candidate, and what was met on the way."""
        counting = Counting([])
        return self.taken(raws, counting), counting.finished((), [])

    def taken(self, raws: Iterable[Raw], counting: Counting) -> list[Case]:
        """The records that are taken, as cases; what is not, and why, is counted."""
        return [case for raw in raws if (case := self._case(raw, counting)) is not None]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names of what decisions are told apart by."""
        return tuple(self._reading.dimensions)

    def _trim(self) -> None:
        """Between stretches: memory stays flat however many different outcomes there are."""
        for panel in self._panels:
            panel.trim()
        if len(self._known_changes) + len(self._recorded) > MOST_KEPT:
            self._known_changes.clear()
            self._recorded = Results()

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
            seen = self._glances.at(raw.value) if self._chosen.query is None else None
            if seen is not None:
                place = seen.log
                if raw.key is not None:
                    _check_place(raw, seen.decision_id, place.partition)
                    counting.met(place.offset)
                outcome = self._outcomes.of(seen.decision_id, seen.verdict)
                if not self._chosen.takes_at(seen.tenant, place.partition, place.offset):
                    return None
                counting.take(seen.record_digest)
                taken = True
                case = self._reading.case(seen, raw, self._recorded.recorded(seen), outcome)
            else:
                record = checked_record(raw.value)
                if raw.key is not None:
                    _check_place(raw, record["decision_id"], record["log"]["partition"])
                    counting.met(record["log"]["offset"])
                outcome = self._outcomes.of(record["decision_id"], record["verdict"])
                if not self._chosen.takes(record, outcome.label):
                    return None
                counting.take(record["record_digest"])
                taken = True
                case = self._opened(record, raw, outcome)
            counting.took(case, outcome.meaning)
            return case
        except KeysUnavailable:
            raise  # later they may be there: nothing is to be said of the range now
        except LumynError as error:
            counting.refuse(raw, error, leaf=not taken)
            return None
        except MISSHAPEN as error:
            problem = BadJson(f"not a decision record: {type(error).__name__} at {error}")
            counting.refuse(raw, problem, leaf=not taken)
            return None

    def _opened(self, record: dict[str, Any], raw: Raw, outcome: Outcome) -> Case:
        """The case of a record that was read strictly. Raises `LumynError`, and what a misshapen record raises."""
        readable = require_open(opened_record(self._keys, record))
        if readable is not record:
            record = dict(readable)
        seen = self._glances.of(record)
        case = self._reading.case(seen, raw, self._recorded.recorded(seen), outcome, record)
        if isinstance(readable, OpenRecord):
            case.kid = kid_of(readable.stored["request"])
        return case

    def _ask(self, cases: Sequence[Case]) -> None:
        """One question to the memory for all that the candidates will want."""
        for case in cases:
            for panel in self._panels:
                self._recaller.want(case, panel.policy, self._mode)
        self._recaller.ask()

    def _decide(self, case: Case, counting: Counting) -> Iterator[tuple[int, Result]]:
        """Ask every candidate; gives those that answer otherwise than was recorded."""
        old, request = case.old, case.seen.request
        cell = counting.cell((old, case.outcome.meaning, case.time_ms // HOUR_MS, case.values))
        counting.mark(case)
        wanted = request.get("policy")
        for counts, panel in zip(cell, self._panels, strict=True):
            try:
                answers = self._answers(case, panel)
            except LumynError as error:
                kind = "memory" if self._mode == "recorded" else "other memory"
                self._fail(case, panel, error.message, kind, counting)
                continue
            except MISSHAPEN as error:
                self._fail(case, panel, f"not a decision record: {type(error).__name__}", "schema", counting)
                continue
            if wanted is not None:
                answers = panel.only(answers, wanted)
            counts[answers] = counts.get(answers, 0) + 1
            for place in self._changed(old, answers):
                k, new = panel.numbers[place], answers.results[place]
                if new is None:
                    counting.tallies[k].out_of_policy += 1
                    counting.leave_out(k, case)
                    continue
                if new.verdict != old.verdict:
                    counting.mark_flip(k, case, new.verdict)
                yield k, new

    def _answers(self, case: Case, panel: Panel) -> Answers:
        """Raises `LumynError` when the memory can't answer, and what a misshapen record raises."""
        request = case.seen.request
        if case.fixed is not None:
            fixed = [c.fixed(request, case.time_ms, case.recalled, *case.fixed) for c in panel.candidates]
            return panel.of(tuple(fixed))
        return panel.decide(request, case.time_ms, self._recaller.recall(case, panel.policy, self._mode))

    def _changed(self, old: Result, answers: Answers) -> tuple[int, ...]:
        """The places of answers that are not what was recorded, or are none; worked out once for all alike."""
        known = self._known_changes.get((old, answers))
        if known is None:
            known = self._known_changes[old, answers] = tuple(
                place for place, new in enumerate(answers.results) if new is None or not alike(new, old)
            )
        return known

    def _fail(self, case: Case, panel: Panel, message: str, kind: str, counting: Counting) -> None:
        for k in panel.numbers:
            counting.tallies[k].fail(kind, case.place, message)
            counting.leave_out(k, case)

    def _explain(self, case: Case, k: int, new: Result, counting: Counting) -> None:
        """Why it comes out otherwise, and whether it matters more than the flips kept so far."""
        tally = counting.tallies[k]
        cause = self._attribution.cause(case, k, new)
        tally.causes[cause, case.old.verdict, new.verdict] += 1
        if cause == "unexplained":
            tally.fail("unexplained", case.place, "the same policy, memory and engine decide otherwise than recorded")
        if new.verdict == case.old.verdict:
            return
        if self._note is not None:
            counting.notes.append(self._note(case, new, cause))
        order = matters(case, new.verdict)
        if tally.would_keep(order):
            policy = self._candidates[k].policy
            recall = self._recaller.recall(case, policy, self._mode)
            tally.keep([flip_of(case, policy, new, cause, recall, order)])


def _check_place(raw: Raw, decision_id: str, partition: int) -> None:
    """A record filed under another id, or in another partition, was put there by somebody. Raises `IntegrityError`."""
    if raw.key != decision_id.encode() or raw.partition != partition:
        raise IntegrityError(f"the record of decision {decision_id} is filed where it does not belong")
