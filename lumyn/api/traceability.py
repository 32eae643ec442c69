"""A record's fields under the names that decision traceability APIs use, taken from the record alone.

`condition` is the policy, `outcome` whether one of its rules fired; threshold, strategy, direction and action are those
of what decided (`streams/explain_facts.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from streams.explain_facts import deciding, input_primitives, primitive_id


def traceability(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, to stand beside the record's own."""
    decided = deciding(record)
    fact = _result(record, decided["rule"])
    return {
        "condition_id": record["policy"]["name"],
        "condition_version": record["policy"]["version"],
        "entity_id": (record["request"].get("subject") or {}).get("id"),
        "evaluated_at": record["created_at"],
        "outcome": outcome(record),
        "rule_id": decided["rule"],
        "concept_result": {"value": fact.get("value"), "type": _type(fact.get("value"))} if fact else None,
        "input_primitives": input_primitives(record),
        "signal_errors": list(_errors(record)),
        "threshold_applied": decided["threshold_applied"],
        "strategy": decided["strategy"],
        "direction": decided["direction"],
        "action_id": decided["action_id"],
    }


def with_traceability(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with these fields beside its own."""
    return {**record, **traceability(record)}


def outcome(record: Mapping[str, Any]) -> str:
    """`triggered` where a rule fired."""
    return "triggered" if any(rule["outcome"] == "matched" for rule in record["matched_rules"]) else "not_triggered"


def _result(record: Mapping[str, Any], rule: str | None) -> Mapping[str, Any] | None:
    """The comparison that speaks for the deciding rule: its first by an order, else its first."""
    facts = [fact for one in record["matched_rules"] if one["id"] == rule for fact in one["facts"] if "op" in fact]
    ordered = [fact for fact in facts if fact["op"] in ("gt", "gte", "lt", "lte", "between")]
    return next(iter(ordered or facts), None)


def _errors(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What a rule asked for and could not compare."""
    for rule in record["matched_rules"]:
        for fact in rule["facts"]:
            wrong = "wrong_type" if fact.get("wrong_type") else "missing" if fact.get("missing") else None
            if wrong:
                yield {"primitive_id": primitive_id(fact["fact"]), "error": wrong, "rule_id": rule["id"]}


def _type(value: Any) -> str:
    """The type of a value as it stands in the record, where 4.0 is written `4` (RFC 8785)."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    if isinstance(value, int | float):
        return "integer" if isinstance(value, int) or value.is_integer() else "float"
    return "string" if isinstance(value, str) else "list"
