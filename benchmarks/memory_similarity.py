"""Similarity: what must never stand for what, tried at random over the exact store."""

from __future__ import annotations

import random
from typing import Any

from lumyn.stores import make_vectoriser
from memory_service.profile import remembered_part
from memory_service.recall import Asked, Recall
from memory_service.recaller import Recaller
from memory_service.supposed import SupposedMemory
from schemas.policy import MemorySettings
from streams.arbitration import arbitrate
from streams.policy import load_policy

_TRIALS = 200
_POLICY = b"""
policy: refunds
version: 1.0.0
rules:
  - id: R_ANY
    if: {amount_usd: {gt: 0}}
    then: {verdict: ALLOW, reason_codes: [OK]}
memory: {}
"""


def _request(amount: float, facts: dict[str, Any], tenant: str = "ours", action: str = "refund") -> dict[str, Any]:
    return {
        "tenant": tenant, "subject": {"type": "user", "id": "u"},
        "action": {"type": action, "amount": {"value": amount, "currency": "USD"}, "intent": "refund a late parcel"},
        "evidence": facts, "context": {"mode": "inline", "inline": {}},
    }  # fmt: skip


def _event(version: int, request: dict[str, Any], label: str) -> Any:
    return {
        "version": version, "event_id": f"e{version}", "decision_id": f"{version:026d}", "tenant": request["tenant"],
        "type": "label", "label": label, "should": None, "summary": "", "actor": "ann", "at": "2026-01-01T00:00:00.000Z",
        "job": None,
        "decision": {"action_type": request["action"]["type"], "verdict": "ALLOW", "rules": ["R_ANY"], "amount": None,
                     "facts": remembered_part(request)},
    }  # fmt: skip


class _Trial:
    def __init__(self, settings: Any) -> None:
        self._vectoriser = make_vectoriser(settings)
        self._policy = load_policy(_POLICY, name="refunds.yml")

    def recall(self, labelled: list[tuple[dict[str, Any], str]], asked: dict[str, Any]) -> Recall:
        events = [_event(number, request, label) for number, (request, label) in enumerate(labelled, start=1)]
        memory = SupposedMemory(events, self._vectoriser, "bench", len(events), {})
        return Recaller(memory, self._vectoriser, "bench").recall([Asked(asked, MemorySettings(), len(events))])[0]

    def verdict(self, recall: Recall, asked: dict[str, Any]) -> str:
        evaluation = self._policy.evaluate(asked, time_ms=0, memory=recall.memory_facts())
        return arbitrate(self._policy, evaluation, recall).verdict


def measure(settings: Any) -> list[dict[str, Any]]:
    """Each claim with how many trials it was tried in and in how many it did not hold."""
    pick, trial = random.Random(3), _Trial(settings)
    tally: dict[str, list[bool]] = {}

    def held(claim: str, yes: bool) -> None:
        tally.setdefault(claim, []).append(yes)

    for number in range(_TRIALS):
        facts = {f"fact_{n}": pick.choice(["a", "b", True, 7, 0.5]) for n in range(number % 11)}
        small, large = pick.uniform(5, 40), pick.uniform(5_000, 40_000)
        asked = _request(large, facts)
        fine = trial.recall([(_request(small, facts), "success")], asked)
        held("a small success never supports a large amount (0 to 10 other equal facts)", fine.nearest("fine") is None)
        harm = trial.recall([(_request(large, facts), "failure")], _request(small, facts))
        held("a large failure never blocks a small amount", trial.verdict(harm, _request(small, facts)) == "ALLOW")
        for word in ("failure", "success"):
            told = [(_request(small, facts, tenant="theirs"), word), (_request(small, facts, action="credit"), word)]
            other = trial.recall(told, _request(small, facts))
            held("another tenant's or action type's never counts", not other.counted and not other.memory_facts()["nearby"]["n_effective"])  # type: ignore[index]
        near = [(_request(small * (1 + n / 1000), facts), "failure") for n in range(1, 13)]
        freed = trial.recall([*near, (_request(small, facts), "success")], _request(small, facts))
        held("one fine neighbour never frees what twelve harmful hold", trial.verdict(freed, _request(small, facts)) != "ALLOW")
    return [{"claim": claim, "trials": len(all_), "broken": all_.count(False)} for claim, all_ in tally.items()]
