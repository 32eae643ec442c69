"""Explain: a decision in plain English, from the stored record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.policy import DAY_MS
from schemas.seal import is_sealed
from streams.sealing import is_erased

_TESTS = {
    "eq": "is",
    "ne": "is not",
    "gt": "is above",
    "gte": "is at or above",
    "lt": "is below",
    "lte": "is at or below",
    "between": "is between",
    "in": "is one of",
    "not_in": "is none of",
    "contains": "contains",
    "starts_with": "starts with",
    "ends_with": "ends with",
    "matches": "matches",
    "exists": "is present:",
}
_CLOSED = {
    True: "The personal part is erased: its subject was forgotten. What rules compared is gone with it.",
    False: "The personal part is sealed, and its subject's key is not here.",
}
_VERDICTS = {
    "ALLOW": "was allowed",
    "DENY": "was denied",
    "ESCALATE": "was sent to a person",
    "ABSTAIN": "was not decided (ABSTAIN)",
}


def explain_record(record: Mapping[str, Any]) -> str:
    """A few sentences: what was asked, what was decided, why, and what memory had to do with it."""
    closed = [_CLOSED[is_erased(record)]] if is_sealed(record) else []
    lines = [_opening(record), *closed, *_rules(record), *_memory(record), *_special(record)]
    return "\n".join(map(_one_line, lines))


def _one_line(text: str) -> str:
    """Recorded text may hold line breaks and controls: they are shown, so that no sentence can be made up by it."""
    return "".join(char if char.isprintable() or char in "\u00a0\u3000" else ascii(char)[1:-1] for char in text)


def _opening(record: Mapping[str, Any]) -> str:
    request, policy = record["request"], record["policy"]
    amount = request["action"].get("amount")
    money = f" of {amount['value']} {amount.get('currency', '')}".rstrip() if _is_money(amount) else ""
    codes = ", ".join(record["reason_codes"]) or "none"
    return (
        f"Decision {record['decision_id']}: the {request['action']['type']}{money} for {request['subject']['type']} "
        f"{request['subject']['id']} {_VERDICTS[record['verdict']]} at {record['created_at']} by policy "
        f"{policy['name']}@{policy['version']}. Reason codes: {codes}."
    )


def _is_money(amount: Any) -> bool:
    return isinstance(amount, Mapping) and "value" in amount


def _rules(record: Mapping[str, Any]) -> list[str]:
    rules = record["matched_rules"]
    if not rules:
        return ["No rule applied, so the policy's default decided."]
    return [_rule(rule, is_sealed(record)) for rule in rules]


def _rule(rule: Mapping[str, Any], closed: bool) -> str:
    nothing = "of facts that can't be read any more" if closed else "it applies to every request"
    facts = "; ".join(_fact(fact) for fact in rule["facts"]) or nothing
    if rule["outcome"] == "indeterminate":
        effect = f"which counts as {rule['effect']}" if rule["effect"] else "which has no influence for this rule"
        return f"- {rule['stage']}:{rule['id']} could not be judged, {effect}: {facts}."
    return f"- {rule['stage']}:{rule['id']} says {rule['effect']}, because {facts}."


def _fact(fact: Mapping[str, Any]) -> str:
    name = fact["fact"]
    if fact.get("missing"):
        return f"{name} is missing"
    if fact.get("wrong_type"):
        return f"{name} is {_value(fact.get('value'))}, which is not of the type that the rule compares"
    test = _TESTS.get(fact["op"], fact["op"])
    negated = "it is not so that " if fact.get("not") else ""
    text = f"{negated}{name} ({_value(fact.get('value'))}) {test} {_value(fact['want'])}"
    value, want = fact.get("value"), fact["want"]
    if fact["op"] in ("gt", "gte", "lt", "lte") and _number(value) and _number(want):
        text += f" by {abs(round(value - want, 10)):g}"
    return text


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " and ".join(_value(v) for v in value) if len(value) == 2 else ", ".join(_value(v) for v in value)
    return "absent" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _memory(record: Mapping[str, Any]) -> list[str]:
    memory, signals = record["memory"], record["risk_signals"]
    if memory["mode"] == "off":
        return ["Memory is off in this policy."]
    if not memory["available"]:
        return ["Memory could not answer when this was decided."]
    nearby = signals["nearby"]
    lines = [f"Memory stood at version {memory['version']}."]
    if nearby["failure_rate"] is None:
        lines[0] += " It knew nothing like this."
        return lines
    lines[0] += (
        f" Near this request, allowing was wrong in an estimated {nearby['failure_rate']:.0%} of cases "
        f"({nearby['lower']:.0%} to {nearby['upper']:.0%}, worth {nearby['n_effective']:g} observations)."
    )
    return lines + [_counted(hit, memory["settings"]) for hit in memory["counted"]]


def _counted(hit: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    roles = {
        "harmful": f"nearest case where allowing was wrong (blocks at {settings['failure_block']}, escalates at "
        f"{settings['failure_escalate']})",
        "harmful_without_text": f"the same with the wording left out (escalates at {settings['failure_block']})",
        "fine": f"nearest case where allowing was right (supports at {settings['success_support']})",
        "softening": f"a denial that was wrong (softens at {settings['soften']})",
    }
    marks = ", contested" if hit["contested"] else ""
    if "trust" in hit:
        marks += f", its labeller trusted {hit['trust']:g}"
    if "age_ms" in hit:
        marks += f", said {hit['age_ms'] / DAY_MS:.4g} days before"
    return f"- {hit['memory_id']} at {hit['score']:.3f}: {roles[hit['role']]}{marks}."


def _special(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for switch in record["control"]["switches"]:
        scope = ", ".join(f"{k}={v}" for k, v in switch["scope"].items()) or "everything"
        lines.append(f"Kill switch {switch['switch_id']} ({scope}) was on: {switch['why']}.")
    meanings = {
        "FAILURE_MEMORY_SIMILAR_BLOCK": "Memory made this a denial: a case like it went wrong when it was allowed.",
        "FAILURE_MEMORY_SIMILAR_ESCALATE": "Memory sent this to a person, because of how similar cases turned out.",
        "STORAGE_UNAVAILABLE": "The policy does not let this pass while memory can't be asked.",
        "CONTROL_STALE": "The worker was cut off from the control topic, so nothing was let through.",
        "INTERNAL_ERROR": "The evaluation failed with an internal error, so nothing was let through.",
        "MISSING_EVIDENCE": "Evidence that a rule needs was missing or of the wrong type; that never opens a gate.",
    }
    lines += [meanings[code] for code in record["reason_codes"] if code in meanings]
    if "redrive_of" in record["links"]:
        lines.append(f"The request was decided before, as {record['links']['redrive_of']}, and sent again.")
    return lines
