"""A flip as the report shows it: what it was about, and both traces."""

from __future__ import annotations

from typing import Any

from memory_service.recall import Recall
from streams.backtest.candidate import Result
from streams.backtest.case import Case
from streams.decide import trace_of
from streams.policy import CompiledPolicy
from streams.policy.facts import amount_of, amount_usd_of, currency_of
from streams.policy.trace import shown

_NEIGHBOURS = 5


def flip_of(case: Case, policy: CompiledPolicy, new: Result, cause: str) -> dict[str, Any]:
    """The flip without its traces: all that it is ordered by."""
    record, action = case.record, case.record["request"]["action"]
    return {
        "decision_id": record["decision_id"],
        "created_at": record["created_at"],
        "old": case.old.verdict,
        "new": new.verdict,
        "old_reasons": list(case.old.reason_codes),
        "new_reasons": list(new.reason_codes),
        "cause": cause,
        "meaning": case.outcome.meaning,
        "amount": amount_of(action),
        "currency": currency_of(action),
        "amount_usd": amount_usd_of(action, policy.fx) or amount_of(action),
        "uncertainty": record["risk_signals"]["uncertainty_score"],
    }


def traced(flip: dict[str, Any], case: Case, policy: CompiledPolicy, recall: Recall) -> dict[str, Any]:
    """The flip with what both policies saw: rules with their facts, and the neighbours that counted."""
    record = case.record
    request = record["request"]
    evaluation = policy.evaluate(request, time_ms=case.time_ms, memory=recall.memory_facts())
    return flip | {
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
