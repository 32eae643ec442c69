"""A policy asked about many past requests: results are kept by which rules hit, so that each is worked out once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from memory_service.recall import Recall
from schemas.verdict import Verdict
from streams.arbitration import arbitrate
from streams.backtest.glance import Glance
from streams.policy import CompiledPolicy, Evaluation, Fired, RuleHit

MOST_KEPT: Final = 50_000
"""Results that are kept to be found again; there are seldom more than a few dozen."""

RuleSeen = tuple[str, str, str | None]
"""A rule that hit: its id, `matched` or `indeterminate`, and the verdict it asks for (None: no influence)."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What came out for a request, without its trace. One object for all alike, so it is compared by identity."""

    verdict: Verdict
    reason_codes: tuple[str, ...]
    rules: tuple[RuleSeen, ...]

    @property
    def by_default(self) -> bool:
        """Whether no rule asked for anything, so that the policy's default spoke."""
        return not any(effect for _, _, effect in self.rules)


class Results:
    """Keeps one `Result` for all that are alike."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Result] = {}
        self._recorded: dict[tuple[Any, ...], Result] = {}

    def __len__(self) -> int:
        return len(self._known) + len(self._recorded)

    def of(self, verdict: Verdict, codes: tuple[str, ...], rules: tuple[RuleSeen, ...]) -> Result:
        """The one result with these parts."""
        key = (verdict, codes, rules)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Result(verdict, codes, rules)
        return known

    def recorded(self, seen: Glance) -> Result:
        """What a record says came out."""
        key = (seen.verdict, seen.reason_codes, seen.matched_rules)
        known = self._recorded.get(key)
        if known is None:
            rules = tuple([(rule.id, rule.outcome, rule.effect) for rule in seen.matched_rules])
            known = self._recorded[key] = self.of(seen.verdict, seen.reason_codes, rules)
        return known


class Candidate:
    """A compiled policy; gives the verdict and reason codes that `decide` gives, several times faster."""

    def __init__(self, policy: CompiledPolicy) -> None:
        self.policy = policy
        self._results = Results()
        self._evaluations: dict[Fired, Evaluation] = {}
        self._plain: dict[tuple[Fired, bool], Result] = {}

    def forget(self) -> None:
        """Let go of all results that are kept."""
        self._results = Results()
        self._evaluations.clear()
        self._plain.clear()

    def decide(self, request: dict[str, Any], time_ms: int, recall: Recall) -> Result:
        """The outcome for a recorded request, at its time, with what memory answers. Pure."""
        return self.given(self.policy.fired(request, time_ms=time_ms, memory=recall.memory_facts()), recall)

    def given(self, fired: Fired, recall: Recall) -> Result:
        """The outcome where these rules hit."""
        if recall.counted and self.policy.memory is not None:
            return self._arbitrated(fired, recall)
        key = (fired, recall.available)  # without neighbours nothing else of the recall counts
        known = self._plain.get(key)
        if known is None:
            known = self._plain[key] = self._arbitrated(fired, recall)
        return known

    def _arbitrated(self, fired: Fired, recall: Recall) -> Result:
        evaluation = self._evaluations.get(fired)
        if evaluation is None:
            evaluation = self._evaluations[fired] = self.policy.evaluation_of(fired)
        outcome = arbitrate(self.policy, evaluation, recall)
        return self._results.of(outcome.verdict, outcome.reason_codes, _seen(evaluation.hits))

    def fixed(
        self, request: dict[str, Any], time_ms: int, recall: Recall, verdict: Verdict, codes: tuple[str, ...]
    ) -> Result:
        """The result where a kill switch or stale control decided before any rule; rules are traced all the same."""
        fired = self.policy.fired(request, time_ms=time_ms, memory=recall.memory_facts())
        return self._results.of(verdict, codes, _seen(self.policy.evaluation_of(fired).hits))


def _seen(hits: tuple[RuleHit, ...]) -> tuple[RuleSeen, ...]:
    return tuple([(hit.id, hit.outcome, hit.effect) for hit in hits])
