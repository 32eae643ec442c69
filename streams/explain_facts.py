"""The structured explanation of a decision, from the stored record alone: what each fact contributed, and what decided.

Nothing is evaluated again. The names are those of decision traceability (docs/decision-traceability.md):
`primitive_contributions`, `threshold_applied`, `strategy`, `direction`, `action_id`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.seal import is_sealed
from streams.decided_by import decided_by
from streams.explain import OPPOSITE, explain_record, margin
from streams.memory_step import MemoryStep, memory_step
from streams.policy.facts import fact_named
from streams.policy.trace import shown
from streams.recorded_text import exact_difference
from streams.sealing import is_erased

MOST_PRIMITIVES = 100
_STRATEGY = {
    **dict.fromkeys(OPPOSITE, "threshold"), "between": "range", "eq": "equality", "ne": "equality", "in": "membership",
    "not_in": "membership", "exists": "presence",
}  # fmt: skip
_SAYS = {
    "gt": "rose above threshold",
    "gte": "reached the threshold",
    "lt": "fell below threshold",
    "lte": "is no more than the threshold",
    "between": "lies in the rule's range",
    "eq": "is the one that the rule names",
    "ne": "is not the one that the rule excepts",
    "in": "is one of those that the rule names",
    "not_in": "is none of those that the rule excepts",
    "contains": "contains what the rule looks for",
    "starts_with": "starts as the rule says",
    "ends_with": "ends as the rule says",
    "matches": "matches the rule's pattern",
    "exists": "is present or absent as the rule says",
}


def explain_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """The explanation as JSON: `explanation` (text), `deciding`, `primitive_contributions`, `memory`, `switches`.

    `sealed` is None, or `sealed` or `erased` where what was asked can't be read: the contributions are then those of
    what stays in clear. Raises `IntegrityError` for memory settings of a newer version.
    """
    step = memory_step(record)
    return {
        "decision_id": record["decision_id"],
        "verdict": record["verdict"],
        "reason_codes": list(record["reason_codes"]),
        "explanation": explain_record(record),
        "sealed": ("erased" if is_erased(record) else "sealed") if is_sealed(record) else None,
        "deciding": deciding(record),
        "primitive_contributions": _contributions(record, step),
        "memory": _memory(record, step),
        "switches": [dict(switch) for switch in record["control"]["switches"]],
    }


def deciding(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decided, and by which threshold.

    `by`: rule | default | memory | memory_unavailable | kill_switch | control_stale | internal_error. `rule` is the
    first whose effect is the verdict. `action_id` is what its obligations name first (`action_id`, `id` or `type`).
    """
    by, rule = decided_by(record, memory_step(record))
    out: dict[str, Any] = {
        "by": by, "rule": None, "stage": None, "strategy": None, "direction": None, "threshold_applied": None,
        "action_id": _action_id(record["obligations"]),
    }  # fmt: skip
    if rule is not None:
        out |= {"rule": rule["id"], "stage": rule["stage"], **_threshold(rule)}
    elif by == "memory":
        step = memory_step(record)
        assert step is not None
        out |= {"strategy": "similarity", "direction": "above", "threshold_applied": step.threshold}
    return out


def input_primitives(record: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that the record shows: those that rules compared, then all evidence; none of what is sealed."""
    out: dict[str, Any] = {}
    for rule in record["matched_rules"]:
        out |= {primitive_id(f["fact"]): f.get("value") for f in rule["facts"] if not f.get("missing")}
    if not is_sealed(record):
        for name, value in _leaves(record["request"].get("evidence") or {}):
            out.setdefault(name, shown(value))
            if len(out) >= MOST_PRIMITIVES:
                break
    return out


def primitive_id(fact: str) -> str:
    """A fact's name as policies write it: evidence goes without its prefix, where that means the same."""
    bare = fact.removeprefix("evidence.")
    try:
        return bare if fact_named(bare).name == fact else fact
    except ValueError:
        return fact


def _threshold(rule: Mapping[str, Any]) -> dict[str, Any]:
    """Of several comparisons the first that goes by an order speaks for the rule."""
    facts = [fact for fact in rule["facts"] if not fact.get("missing") and not fact.get("wrong_type")]
    if not facts:
        missing = bool(rule["facts"])
        return {"strategy": "missing" if missing else None, "direction": None, "threshold_applied": None}
    fact = next((f for f in facts if f["op"] in (*OPPOSITE, "between")), facts[0])
    return {
        "strategy": _STRATEGY.get(fact["op"], "pattern"),
        "direction": _direction(fact),
        "threshold_applied": fact["want"],
    }


def _direction(fact: Mapping[str, Any]) -> str | None:
    if fact["op"] == "between":
        return "outside" if fact.get("not") else "within"
    op = _meant(fact)
    return {"g": "above", "l": "below"}[op[0]] if op in OPPOSITE else None


def _meant(fact: Mapping[str, Any]) -> str:
    """The operator; of an order under `not`, its opposite."""
    op: str = fact["op"]
    return OPPOSITE.get(op, op) if fact.get("not") else op


def _action_id(obligations: Any) -> str | None:
    for one in obligations:
        if isinstance(one, str):
            return one
        if isinstance(one, Mapping):
            for name in ("action_id", "id", "type"):
                if isinstance(one.get(name), str):
                    return str(one[name])
            if len(one) == 1:
                return str(next(iter(one)))
    return None


def _contributions(record: Mapping[str, Any], step: MemoryStep | None) -> list[dict[str, Any]]:
    by, _ = decided_by(record, step)
    out = [_of_switch(switch) for switch in record["control"]["switches"]]
    if step is not None and step.changed_verdict:
        out.append(_of_memory(step, record["memory"]["available"]))
    for rule in record["matched_rules"]:
        rank = _rank(rule, record["verdict"], by, step)
        out += [_of_fact(fact, rule, rank) for fact in rule["facts"]]
    if by == "default" and not is_sealed(record):
        named = {one["primitive_id"] for one in out}
        out += [
            _entry(name, value, "not decisive — no rule with an effect fired on this value")
            for name, value in input_primitives(record).items()
            if name not in named
        ]
    out.sort(key=lambda one: not one["contribution"].startswith("primary"))
    return out


def _rank(rule: Mapping[str, Any], verdict: str, by: str, step: MemoryStep | None) -> tuple[str, str]:
    """How much a rule's facts had to do with the verdict, and why not more."""
    if rule["effect"] is None:
        return "no influence", ""
    if step is not None and step.name == "soften" and rule["effect"] == "DENY":
        return "softened", ", and a denial by this rule was wrong before"
    if by == "rule":
        return ("primary", "") if rule["effect"] == verdict else ("secondary", f", and {verdict} goes before")
    return "secondary", {"memory": ", and memory decided", "memory_unavailable": ", and memory was unavailable"}.get(
        by, f", and {by.replace('_', ' ')} goes before"
    )


def _of_fact(fact: Mapping[str, Any], rule: Mapping[str, Any], rank: tuple[str, str]) -> dict[str, Any]:
    if fact.get("missing"):
        said = "this value is missing, so the rule could not be judged"
    elif fact.get("wrong_type"):
        said = "this value is not of the type that the rule compares, so the rule could not be judged"
    elif fact.get("not") and fact["op"] not in OPPOSITE:
        said = f"it is not so that this value {_SAYS.get(fact['op'], 'meets the rule')}"
    else:
        said = f"this value {_SAYS.get(_meant(fact), 'meets the rule')}"
    out = _entry(primitive_id(fact["fact"]), fact.get("value"), f"{rank[0]} — {said}{rank[1]}")
    out |= {"operator": fact["op"], "negated": bool(fact.get("not")), "threshold": fact["want"]}
    return out | {"margin": margin(fact), "rule": rule["id"], "stage": rule["stage"], "effect": rule["effect"]}


def _of_memory(step: MemoryStep, available: bool) -> dict[str, Any]:
    if not available:
        return _entry("memory.available", False, "primary — the policy lets nothing pass without memory")
    says = {
        "block": "a case where allowing was wrong is this near",
        "disputed_block": "a case where allowing was wrong is this near, but that is disputed or thin",
        "escalate": "a case where allowing was wrong is this near",
        "soften": "a denial by the same rules that was wrong is this near",
    }[step.name]
    out = _entry("memory.nearest", step.score, f"primary — {says}")
    over = None if step.score is None or step.threshold is None else exact_difference(step.score, step.threshold)
    return out | {"operator": "gte", "threshold": step.threshold, "margin": over, "memory_id": step.memory_id}


def _of_switch(switch: Mapping[str, Any]) -> dict[str, Any]:
    return _entry("control.kill_switch", switch["switch_id"], "primary — this kill switch was on")


def _entry(name: str, value: Any, contribution: str) -> dict[str, Any]:
    return {
        "primitive_id": name, "value": value, "operator": None, "negated": False, "threshold": None, "margin": None,
        "contribution": contribution, "rule": None, "stage": None, "effect": None,
    }  # fmt: skip


def _memory(record: Mapping[str, Any], step: MemoryStep | None) -> dict[str, Any]:
    """Which memory answered, the neighbours that counted with their blocks, and the step that ended arbitration."""
    memory, signals = record["memory"], record["risk_signals"]
    shown_hits = {
        hit["memory_id"]: hit
        for name in ("success_similarity", "failure_similarity")
        for hit in signals[name]["top_k"]
    }
    return {
        "mode": memory["mode"],
        "available": memory["available"],
        "version": memory["version"],
        "nearby": dict(signals["nearby"]),
        "step": None if step is None else step.as_dict(),
        "neighbours": [
            {
                **hit,
                "score_by_block": (found := shown_hits.get(hit["memory_id"], {})).get("score_by_block"),
                "label": found.get("label"),
                "summary": found.get("summary"),
                "thresholds": _thresholds(hit, memory["settings"]),
            }
            for hit in memory["counted"]
        ],
    }


def _thresholds(hit: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    names = {
        "harmful": ("failure_block", "failure_escalate"),
        "harmful_without_text": ("failure_block",),
        "fine": ("success_support",),
        "softening": ("soften",),
    }[hit["role"]]
    return {name: {"at": settings[name], "met": hit["score"] >= settings[name]} for name in names}


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, one in value.items():
        if isinstance(one, Mapping) and one:
            yield from _leaves(one, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", one
