"""A record's fields under the names that decision traceability APIs use, taken from the record alone.

`condition` is the policy, `outcome` whether one of its rules fired, the threshold that of the deciding rule: the first
one that fired with the verdict's effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

_STRATEGY: Final[Mapping[str, tuple[str, str | None]]] = {
    "gt": ("threshold", "above"),
    "gte": ("threshold", "above"),
    "lt": ("threshold", "below"),
    "lte": ("threshold", "below"),
    "between": ("range", "within"),
    "eq": ("equality", None),
    "ne": ("inequality", None),
    "in": ("membership", None),
    "not_in": ("membership", "outside"),
    "exists": ("presence", None),
}
_AGAINST: Final[Mapping[str | None, str | None]] = {"above": "below", "below": "above", "within": "outside"}


def traceability(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, to stand beside the record's own."""
    rule = deciding_rule(record)
    fact = deciding_fact(rule)
    strategy, direction = _STRATEGY.get(fact["op"], ("match", None)) if fact else (None, None)
    if fact and fact.get("not"):
        direction = _AGAINST.get(direction, direction)
    obligations = [o for o in record["obligations"] if isinstance(o, Mapping)] if rule else []
    named = next((o[key] for o in obligations for key in ("id", "type") if isinstance(o.get(key), str)), None)
    subject = record["request"].get("subject") or {}
    return {
        "condition_id": record["policy"]["name"],
        "condition_version": record["policy"]["version"],
        "entity_id": subject.get("id"),
        "evaluated_at": record["created_at"],
        "outcome": outcome(record),
        "rule_id": rule["id"] if rule else None,
        "concept_result": {"value": fact.get("value"), "type": _type(fact.get("value"))} if fact else None,
        "input_primitives": dict(_inputs(record)),
        "signal_errors": list(_errors(record)),
        "threshold_applied": fact["want"] if fact else None,
        "strategy": strategy,
        "direction": direction,
        "action_id": named or (rule["id"] if rule else None),
    }


def outcome(record: Mapping[str, Any]) -> str:
    """`triggered` where a rule fired."""
    return "triggered" if any(rule["outcome"] == "matched" for rule in record["matched_rules"]) else "not_triggered"


def deciding_rule(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The first rule that fired with the verdict's effect; failing that, one that could not be evaluated and had it."""
    of_verdict = [rule for rule in record["matched_rules"] if rule["effect"] == record["verdict"]]
    fired = [rule for rule in of_verdict if rule["outcome"] == "matched"]
    return next(iter(fired or of_verdict), None)


def deciding_fact(rule: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The comparison to show for a rule: its first with a threshold, else its first."""
    facts = [fact for fact in (rule or {}).get("facts", ()) if isinstance(fact, Mapping) and "op" in fact]
    ordered = [fact for fact in facts if fact["op"] in ("gt", "gte", "lt", "lte", "between")]
    return next(iter(ordered or facts), None)


def primitive(fact: Mapping[str, Any]) -> str:
    """A fact's name as its sender wrote it: evidence goes without its root."""
    return str(fact["fact"]).removeprefix("evidence.")


def _inputs(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The evidence as it came, and every fact that a rule in the trace has read."""
    evidence = record["request"].get("evidence")
    if isinstance(evidence, Mapping):
        yield from evidence.items()
    for rule in record["matched_rules"]:
        for fact in rule["facts"]:
            if isinstance(fact, Mapping) and "fact" in fact and fact.get("value") is not None:
                yield primitive(fact), fact["value"]


def _errors(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    seen = set()
    for rule in record["matched_rules"]:
        if rule["outcome"] != "indeterminate":
            continue
        for fact in rule["facts"]:
            if not isinstance(fact, Mapping) or "fact" not in fact:
                continue
            wrong = "wrong_type" if fact.get("wrong_type") else "missing" if fact.get("value") is None else None
            if wrong and (primitive(fact), wrong) not in seen:
                seen.add((primitive(fact), wrong))
                yield {"primitive_id": primitive(fact), "error": wrong, "rule_id": rule["id"]}


def _type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return "float" if isinstance(value, int | float) else "string" if isinstance(value, str) else "list"
