"""The contract's policy semantics, written down once more as plainly as possible, to compare the engine with.

It reads the policy as plain data, evaluates recursively, compiles and indexes nothing, and shares no code with
`streams.policy`.
"""

from __future__ import annotations

import datetime
import math
import re

ORDER = ["ALLOW", "ESCALATE", "ABSTAIN", "DENY"]
STAGES = {"DENY": "HARD_BLOCKS", "ABSTAIN": "REQUIREMENTS", "ESCALATE": "ESCALATIONS", "ALLOW": "ALLOW_PATHS"}
UNKNOWN = "unknown"
OPERATORS = [
    "eq", "ne", "gt", "gte", "lt", "lte", "between", "in", "not_in",
    "contains", "starts_with", "ends_with", "matches", "exists",
]  # fmt: skip


def decide(policy, request, time_ms, memory):
    """(verdict, reason codes, [(rule id, outcome, effect)])."""
    hits = []
    for rule in policy["rules"]:
        then = rule.get("then", {})
        verdict = then.get("verdict")
        stage = rule.get("stage") or STAGES[verdict]
        verdict = verdict or next(name for name in STAGES if STAGES[name] == stage)
        truth = condition(rule.get("if", {}), lambda name: fact(name, policy, request, time_ms, memory))
        if truth is True:
            codes = then.get("reason_codes") or [re.sub("[^A-Z0-9_]", "_", rule["id"].upper())]
            hits.append((rule["id"], "matched", verdict, codes))
        elif truth is UNKNOWN:
            default = {"ESCALATIONS": "escalate", "ALLOW_PATHS": "no_match"}.get(stage, "abstain")
            effect = {"deny": "DENY", "abstain": "ABSTAIN", "escalate": "ESCALATE", "no_match": None}[
                rule.get("on_missing", default)
            ]
            hits.append((rule["id"], "indeterminate", effect, ["MISSING_EVIDENCE"]))
    effects = [effect for _, _, effect, _ in hits if effect]
    listed = [(name, outcome, effect) for name, outcome, effect, _ in hits]
    if not effects:
        default = policy.get("default", {})
        return default.get("verdict", "ESCALATE"), default.get("reason_codes", ["NO_RULE_MATCHED"]), listed
    verdict = max(effects, key=ORDER.index)
    codes = []
    for _, _, effect, its in hits:
        if effect and (effect != "ALLOW" or verdict == "ALLOW"):
            codes += [code for code in its if code not in codes]
    return verdict, codes, listed


def condition(node, value_of):
    return everything([part(key, value, value_of) for key, value in node.items()])


def part(key, value, value_of):
    if key == "all":
        return everything([condition(item, value_of) for item in value])
    if key == "any":
        return negate(everything([negate(condition(item, value_of)) for item in value]))
    if key == "not":
        return negate(condition(value, value_of))
    if not isinstance(value, dict):
        value = {"eq": value}
    actual = value_of(key)
    return everything([compare(op, want, actual) for op, want in value.items()])


def everything(truths):
    if any(truth is False for truth in truths):
        return False
    return UNKNOWN if any(truth is UNKNOWN for truth in truths) else True


def negate(truth):
    return truth if truth is UNKNOWN else not truth


def compare(op, want, actual):
    if op == "exists":
        return (actual is not None) == want
    if actual is None:
        return UNKNOWN
    if op in ("ne", "not_in"):
        return negate(compare("eq" if op == "ne" else "in", want, actual))
    if op == "eq":
        return equal(actual, want) if type_of(actual) == type_of(want) else UNKNOWN
    if op == "in":
        if type_of(actual) not in ("text", "number", "flag"):
            return UNKNOWN
        if want and type_of(actual) not in [type_of(item) for item in want]:
            return UNKNOWN
        return any(equal(actual, item) for item in want)
    if op == "contains":
        if isinstance(actual, list):
            return any(equal(item, want) for item in actual)
        return want in actual if isinstance(actual, str) and isinstance(want, str) else UNKNOWN
    if op in ("starts_with", "ends_with", "matches"):
        if not isinstance(actual, str):
            return UNKNOWN
        if op == "matches":
            return re.search(want, actual) is not None
        return actual[: len(want)] == want if op == "starts_with" else actual[-len(want) :] == want
    bounds = want if op == "between" else [want]
    if type_of(actual) not in ("number", "text") or type_of(actual) != type_of(bounds[0]):
        return UNKNOWN
    if op == "between":
        return bounds[0] <= actual and actual <= bounds[1]
    return {"gt": actual > want, "gte": actual >= want, "lt": actual < want, "lte": actual <= want}[op]


def equal(a, b):
    return type_of(a) == type_of(b) and type_of(a) in ("text", "number", "flag") and a == b


def type_of(value):
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int | float):
        return "number" if math.isfinite(value) else "not finite"
    return "text" if isinstance(value, str) else type(value).__name__


def fact(name, policy, request, time_ms, memory):
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=time_ms)
    action = request.get("action")
    amount = action.get("amount") if isinstance(action, dict) else None
    value = amount.get("value") if isinstance(amount, dict) else amount
    value = value if type_of(value) == "number" else None
    currency = amount.get("currency") if isinstance(amount, dict) else None
    currency = currency if isinstance(currency, str) else None
    rates = {**policy.get("fx", {}), "USD": 1}
    if name == "amount":
        return value
    if name == "currency":
        return currency
    if name == "amount_usd":
        if value is None or currency not in rates:
            return None
        return value if currency == "USD" else value * rates[currency]
    if name == "tenant":
        return "default" if request.get("tenant") is None else request["tenant"]
    if name == "time.hour":
        return moment.hour
    if name == "time.weekday":
        return moment.isoweekday()
    if name == "time.date":
        return moment.strftime("%Y-%m-%d")
    if name == "time.iso":
        return moment.isoformat(timespec="milliseconds") + "Z"
    name = {"action_type": "action.type", "subject_id": "subject.id", "subject_type": "subject.type"}.get(name, name)
    root, _, rest = name.partition(".")
    if root in ("action", "evidence", "subject", "provenance") and rest:
        return look(request.get(root), rest)
    if root == "memory" and rest:
        return look(memory, rest)
    if root == "context" and rest:
        context = request.get("context")
        inline = context.get("inline") if isinstance(context, dict) else None
        return look(inline, rest.removeprefix("inline."))
    return look(request.get("evidence"), name)


def look(node, path):
    found = places(node, path)
    return found[0] if found else None


def places(node, path):
    """Every value that the dotted path can mean, longest key first."""
    if not isinstance(node, dict):
        return []
    found = [node[path]] if path in node else []
    words = path.split(".")
    for length in range(len(words) - 1, 0, -1):
        key = ".".join(words[:length])
        if key in node:
            found += places(node[key], ".".join(words[length:]))
    return found
