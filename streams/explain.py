"""Explain: a decision in plain English, from the stored record alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.policy import DAY_MS
from schemas.seal import is_sealed
from streams.decided_by import decided_by
from streams.memory_step import MemoryStep, memory_step
from streams.policy.facts import is_number
from streams.recorded_text import exact_difference, name_text, one_line, quoted_text, value_text
from streams.sealing import is_erased

TESTS = {
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
OPPOSITE = {"gt": "lte", "gte": "lt", "lt": "gte", "lte": "gt"}
"""What it means that a comparison by order is not so."""
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
    return "\n".join(map(one_line, lines))


def _opening(record: Mapping[str, Any]) -> str:
    request, policy = record["request"], record["policy"]
    amount = request["action"].get("amount")
    money = ""
    if isinstance(amount, Mapping) and amount.get("value") is not None:
        currency = f" {name_text(amount['currency'])}" if amount.get("currency") is not None else ""
        money = f" of {value_text(amount['value'])}{currency}"
    elif is_number(amount):
        money = f" of {value_text(amount)}"
    codes = ", ".join(map(name_text, record["reason_codes"])) or "none"
    return (
        f"Decision {record['decision_id']}: the {name_text(request['action']['type'])}{money} for "
        f"{name_text(request['subject']['type'])} {name_text(request['subject']['id'])} "
        f"{_VERDICTS[record['verdict']]} at {record['created_at']} by policy "
        f"{name_text(policy['name'])}@{name_text(policy['version'])}. Reason codes: {codes}."
    )


def _rules(record: Mapping[str, Any]) -> list[str]:
    rules = record["matched_rules"]
    by_default = decided_by(record, memory_step(record))[0] == "default"
    if not rules:
        return ["No rule applied, so the policy's default decided." if by_default else "No rule applied."]
    lines = [_rule(rule, record) for rule in rules]
    return [*lines, "No rule decided, so the policy's default did."] if by_default else lines


def _rule(rule: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    nothing = "of facts that can't be read any more" if is_sealed(record) else "it applies to every request"
    facts = "; ".join(fact_text(fact, record["request"]["action"]) for fact in rule["facts"]) or nothing
    name = f"{name_text(rule['stage'])}:{name_text(rule['id'])}"
    if rule["outcome"] == "indeterminate":
        effect = f"which counts as {rule['effect']}" if rule["effect"] else "which has no influence for this rule"
        return f"- {name} could not be judged, {effect}: {facts}."
    return f"- {name} says {rule['effect']}, because {facts}."


def fact_text(fact: Mapping[str, Any], action: Mapping[str, Any]) -> str:
    """One comparison of a rule's trace: the fact, its value, the threshold and the margin to it. `action`: what was

    asked, which tells why there is no amount in dollars.
    """
    name = name_text(fact["fact"])
    if fact.get("missing"):
        return f"{name} is missing{_why_missing(fact['fact'], action)}"
    if fact.get("wrong_type"):
        return f"{name} is {value_text(fact.get('value'))}, which is not of the type that the rule compares"
    op, negated = fact["op"], bool(fact.get("not"))
    if negated and op in OPPOSITE:
        op, negated = OPPOSITE[op], False
    test = TESTS.get(op) or name_text(op)
    so = "it is not so that " if negated else ""
    text = f"{so}{name} ({value_text(fact.get('value'))}) {test} {value_text(fact['want'])}"
    far = margin(fact)
    if far is None:
        return text
    return f"{text}, {far} from the nearer end" if op == "between" else f"{text} by {far}"


def margin(fact: Mapping[str, Any]) -> int | float | None:
    """How far a number is from where the comparison would turn; None where that is no number."""
    value, want = fact.get("value"), fact["want"]
    if fact.get("missing") or not is_number(value):
        return None
    if fact["op"] in OPPOSITE and is_number(want):
        return abs(exact_difference(value, want))
    if fact["op"] == "between" and isinstance(want, list) and all(map(is_number, want)):
        return min(abs(exact_difference(value, end)) for end in want)
    return None


def _why_missing(fact: str, action: Mapping[str, Any]) -> str:
    """Why `amount_usd` is not there, as nobody sends it; of other facts nothing more is known."""
    amount = action.get("amount")
    if fact != "amount_usd":
        return ""
    if amount is None:
        return ": the request names no amount"
    currency = amount.get("currency") if isinstance(amount, Mapping) else None
    if currency is None:
        return ": its amount has no currency"
    return "" if currency == "USD" else f": the policy has no rate for {name_text(currency)}"


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
    return f"- {name_text(hit['memory_id'])} at {hit['score']:.3f}: {roles[hit['role']]}{marks}."


def _special(record: Mapping[str, Any]) -> list[str]:
    lines = []
    for switch in record["control"]["switches"]:
        scope = ", ".join(f"{name_text(k)}={value_text(v)}" for k, v in switch["scope"].items()) or "everything"
        why = quoted_text(str(switch["why"]))
        lines.append(f"Kill switch {name_text(switch['switch_id'])} ({scope}) was on; the reason given: {why}.")
    meanings = {
        "CONTROL_STALE": "The worker was cut off from the control topic, so nothing was let through.",
        "INTERNAL_ERROR": "The evaluation failed with an internal error, so nothing was let through.",
        "MISSING_EVIDENCE": "Evidence that a rule needs was missing or of the wrong type; that never opens a gate.",
    }
    lines += [meanings[code] for code in record["reason_codes"] if code in meanings]
    step = memory_step(record)
    if step is not None:
        lines.append(step_text(step))
    if "redrive_of" in record["links"]:
        first = name_text(record["links"]["redrive_of"])
        lines.append(f"The request was decided before, as {first}, and sent again.")
    return lines


def step_text(step: MemoryStep) -> str:
    """What memory did to the verdict."""
    if step.name == "unavailable":
        return "The policy does not let this pass while memory can't be asked."
    if step.name == "soften":
        nearest = "" if step.memory_id is None else f" ({name_text(step.memory_id)} at {step.score:.3f})"
        return f"Memory sent this to a person: a denial by the same rules was wrong before{nearest}."
    assert step.score is not None and step.threshold is not None
    near = f"{name_text(step.memory_id)}, where allowing was wrong, is at {step.score:.3f}"
    reached = f"{near}, which is {_over(step.score, step.threshold)}"
    if not step.changed_verdict:
        return f"Memory asks for no more than the rules said: {reached}."
    if step.name == "block":
        return f"Memory made this a denial: {reached}."
    if step.name == "disputed_block":
        return f"Memory sent this to a person and not further, because what it knows is disputed or thin: {reached}."
    return f"Memory sent this to a person: {reached}."


def _over(score: float, threshold: float) -> str:
    over = exact_difference(score, threshold)
    return f"at the threshold of {threshold}" if over == 0 else f"{over:.3g} over the threshold of {threshold}"
