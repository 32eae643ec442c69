"""Candidates that are asked together: facts are read once, and conditions that they share are tested once.

Their rules' distinct conditions make one program. Which of these hold is looked up, and gives every candidate's result
at once: so many candidates cost little more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_service.recall import Recall
from schemas.canonical import encode
from streams.backtest.candidate import MOST_KEPT, Candidate, Result
from streams.backtest.memory import asked_with
from streams.policy import CompiledPolicy, Fired
from streams.policy.compile import compile_rules
from streams.policy.rules import PolicyGraph, Rule, condition_ir


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """The results of a panel's candidates, in order; None where one is not asked. One object for all alike."""

    results: tuple[Result | None, ...]


class Panel:
    """Candidates with the same exchange rates that ask the memory the same; `numbers` are their places among all."""

    def __init__(self, numbers: Sequence[int], candidates: Sequence[Candidate]) -> None:
        self.numbers = tuple(numbers)
        self.candidates = tuple(candidates)
        self.policy = candidates[0].policy
        """Any of them, to ask the memory with."""
        self._maps, graph = _joined([candidate.policy for candidate in candidates])
        self._program = compile_rules(graph)
        self._fired: dict[Fired, tuple[Fired, ...]] = {}
        self._plain: dict[tuple[Fired, bool], Answers] = {}
        self._answers: dict[tuple[Result | None, ...], Answers] = {}

    def decide(self, request: dict[str, Any], time_ms: int, recall: Recall) -> Answers:
        """What every candidate says. Pure; as each one's `decide`."""
        hits = self._program.find(request, time_ms, recall.memory_facts())
        fired = tuple([(index, matched) for index, matched, _ in hits])
        if recall.counted and self.policy.memory is not None:
            return self._given(fired, recall)
        known = self._plain.get((fired, recall.available))
        if known is None:
            known = self._plain[fired, recall.available] = self._given(fired, recall)
        return known

    def _given(self, fired: Fired, recall: Recall) -> Answers:
        each = self._fired.get(fired)
        if each is None:
            held = dict(fired)
            each = self._fired[fired] = tuple(
                tuple([(index, held[condition]) for index, condition in enumerate(map_) if condition in held])
                for map_ in self._maps
            )
        return self.of(tuple([c.given(mine, recall) for c, mine in zip(self.candidates, each, strict=True)]))

    def trim(self) -> None:
        """Let go of what is kept, once it is much: a policy of very many rules has very many outcomes."""
        if len(self._plain) + len(self._fired) + len(self._answers) > MOST_KEPT:
            for kept in (self._plain, self._fired, self._answers):
                kept.clear()
            for candidate in self.candidates:
                candidate.forget()

    def of(self, results: tuple[Result | None, ...]) -> Answers:
        """The one object with these results."""
        known = self._answers.get(results)
        if known is None:
            known = self._answers[results] = Answers(results)
        return known

    def only(self, answers: Answers, name: str) -> Answers:
        """The answers of those candidates alone that have a policy's name."""
        pairs = zip(self.candidates, answers.results, strict=True)
        return self.of(tuple([result if one.policy.name == name else None for one, result in pairs]))


def panels(candidates: Sequence[Candidate]) -> list[Panel]:
    """All candidates, in as few panels as can be."""
    groups: dict[Any, list[int]] = {}
    for number, candidate in enumerate(candidates):
        settings = candidate.policy.memory
        key = (tuple(sorted(candidate.policy.fx.items())), None if settings is None else asked_with(settings))
        groups.setdefault(key, []).append(number)
    return [Panel(numbers, [candidates[number] for number in numbers]) for numbers in groups.values()]


def _joined(policies: Sequence[CompiledPolicy]) -> tuple[list[list[int]], PolicyGraph]:
    """For each policy which of the joined conditions its rules have, in order; and a graph of these."""
    places: dict[bytes, int] = {}
    rules: list[Rule] = []
    maps = []
    for policy in policies:
        mine = []
        for rule in policy.rules:
            key = encode(condition_ir(rule.condition))
            if key not in places:
                places[key] = len(rules)
                rules.append(replace(rule, id=f"C{len(rules)}"))
            mine.append(places[key])
        maps.append(mine)
    first = policies[0]
    return maps, PolicyGraph("panel", "0", first.fx, tuple(rules), first.default_verdict, (), None)
