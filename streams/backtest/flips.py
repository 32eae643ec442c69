"""A flip as the report shows it: what it was about, and both traces."""

from __future__ import annotations

from typing import Any

from memory_service.recall import Recall
from streams.backtest.candidate import Result
from streams.backtest.case import Case
from streams.decide import trace_of
from streams.policy import CompiledPolicy
from streams.policy.facts import currency_of
from streams.policy.trace import shown

_NEIGHBOURS = 5


def matters(case: Case, new: str) -> tuple[Any, ...]:
    """The order of flips, the first matters most: what was right and gets wrong, then amount x (1 + uncertainty)."""
    meaning, amount = case.outcome.meaning, case.amount or 0
    wrong = (meaning == "harmful" and new == "ALLOW") or (meaning == "fine" and case.old.verdict == "ALLOW")
    uncertainty = case.seen.uncertainty
    return not wrong, -abs(amount) * (1 + uncertainty), -uncertainty, case.seen.decision_id


def flip_of(
    case: Case, policy: CompiledPolicy, new: Result, cause: str, recall: Recall, order: tuple[Any, ...]
) -> dict[str, Any]:
    """A flip with what both policies saw: rules with their facts, and the neighbours that counted."""
    record = case.record
    request = record["request"]
    evaluation = policy.evaluate(request, time_ms=case.time_ms, memory=recall.memory_facts())
    return {
        "order": list(order),
        "decision_id": record["decision_id"],
        "created_at": record["created_at"],
        "old": case.old.verdict,
        "new": new.verdict,
        "old_reasons": list(case.old.reason_codes),
        "new_reasons": list(new.reason_codes),
        "cause": cause,
        "meaning": case.outcome.meaning,
        "amount": case.amount,
        "currency": currency_of(request["action"]),
        "uncertainty": record["risk_signals"]["uncertainty_score"],
        "action_type": shown(request["action"].get("type")),
        "intent": shown(request["action"].get("intent")),
        "subject": shown(f"{request['subject']['type']}/{request['subject']['id']}"),
        "old_policy": f"{record['policy']['name']}@{record['policy']['version']}",
        "new_policy": f"{policy.name}@{policy.version}",
        "old_trace": record["matched_rules"],
        "new_trace": [trace_of(hit) for hit in evaluation.hits],
        "old_memory": _neighbours(record["memory"]["counted"]),
        "new_memory": _neighbours(recall.as_record()["counted"]),
    }


def _neighbours(counted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = ("role", "memory_id", "meaning", "score")
    return [{name: one[name] for name in kept} for one in counted[:_NEIGHBOURS]]
