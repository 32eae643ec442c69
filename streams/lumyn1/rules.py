"""How `lumyn` 1.3.6 read its rules and its memory: enough to say whether a recorded verdict follows from them.

Only packs of 1.x are decided by this, never a request of ours. Its semantics are kept, faults and all: a rule whose
evidence is missing or of another type does not fire, and all matching rules of all stages count, ABSTAIN first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_STAGES = {
    "policy.v0": ("REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "TRUST_PATHS"),
    "policy.v1": ("REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS", "ALLOW_PATHS"),
}
_RANK = {
    "policy.v0": {"ABSTAIN": 3, "QUERY": 2, "ESCALATE": 1, "TRUST": 0},
    "policy.v1": {"ABSTAIN": 3, "DENY": 2, "ESCALATE": 1, "ALLOW": 0},
}
NEW_NAMES = {"TRUST": "ALLOW", "QUERY": "DENY"}
"""What v1 calls the verdicts of v0."""
_INTEGERS = ("previous_refund_count_90d", "customer_age_days")
"""Facts that v0 compares as integers only."""
_V0_EVIDENCE = frozenset(
    {"payment_instrument_risk_is", "payment_instrument_risk_in", "failure_similarity_score_gte", "chargeback_risk_gte"}
    | {"chargeback_risk_lt", "previous_refund_count_90d_gte", "previous_refund_count_90d_lt", "customer_age_days_lt"}
    | {"customer_age_days_gte", "account_takeover_risk_gte", "manual_approval_is"}
)
"""All conditions on evidence that v0 knows, beside `fx_rate_to_usd_present`."""


class Unreadable(Exception):
    """The rules or values are such that 1.3.6 itself could not have decided on them."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rules say."""

    verdict: str
    reason_codes: list[str]
    matched_rules: list[dict[str, Any]]


def decide_as_then(request: Mapping[str, Any], policy: Mapping[str, Any]) -> Outcome:
    """The rules of a pack's policy on its request. Raises `Unreadable`."""
    try:
        return _decide(request, policy)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise Unreadable(f"the policy's rules can't be applied: {type(error).__name__}") from None


def with_memory(outcome: Outcome, snapshot: Mapping[str, Any]) -> Outcome:
    """What 1.3.6 makes of that verdict with the recorded hits: its nearest failure blocks, its nearest success allows.

    Raises `Unreadable`.
    """
    if outcome.verdict in ("DENY", "ABSTAIN"):
        return outcome
    try:
        thresholds = snapshot["consensus"]
        risk = nearest(snapshot, -1)
        success = nearest(snapshot, 1)
        blocks = outcome.verdict == "ALLOW" and risk > thresholds["risk_threshold"]
        allows = success >= thresholds["success_allow_threshold"]
    except (TypeError, KeyError):
        raise Unreadable("the memory snapshot can't be read") from None
    if blocks:
        return _changed(outcome, "ABSTAIN", "FAILURE_MEMORY_SIMILAR_BLOCK")
    if allows:
        return _changed(outcome, "ALLOW", "SUCCESS_MEMORY_SIMILAR_ALLOW")
    return outcome


def nearest(snapshot: Mapping[str, Any], outcome: int) -> float:
    """The highest score among the recorded hits with an outcome (-1 failure, 1 success); 0 where there is none."""
    return max([float(hit["score"]) for hit in snapshot["hits"] if hit["outcome"] == outcome], default=0.0)


def _changed(outcome: Outcome, verdict: str, reason: str) -> Outcome:
    if verdict == outcome.verdict:
        return outcome
    return Outcome(verdict, [*outcome.reason_codes, reason], outcome.matched_rules)


def _decide(request: Mapping[str, Any], policy: Mapping[str, Any]) -> Outcome:
    version = "policy.v1" if str(policy.get("schema_version", "policy.v0")).startswith("policy.v1") else "policy.v0"
    facts = _Facts(request, version)
    matched = list(_matched(facts, policy, version))
    if not matched:
        defaults = policy.get("defaults") or {}
        verdict = defaults.get("default_verdict", "ESCALATE")
        code = defaults.get("default_reason_code", "NO_MATCH_DEFAULT_ESCALATE")
        if version == "policy.v1":
            verdict = NEW_NAMES.get(verdict, verdict)
        matched = [{"rule_id": "DEFAULT", "stage": "DEFAULT", "effect": verdict, "reason_codes": [code]}]
    rank = _RANK[version]
    verdict = max(matched, key=lambda rule: rank.get(rule["effect"], -1))["effect"]
    return Outcome(verdict, [code for rule in matched for code in rule["reason_codes"]], matched)


def _matched(facts: _Facts, policy: Mapping[str, Any], version: str) -> Iterator[dict[str, Any]]:
    rules = [rule for rule in policy.get("rules") or [] if isinstance(rule, dict)]
    for stage in _STAGES[version]:
        for rule in rules:
            if rule.get("stage") != stage or not _fires(facts, rule, policy):
                continue
            then = rule.get("then") or {}
            effect = then.get("verdict")
            if version == "policy.v1":
                effect = NEW_NAMES.get(str(effect), effect)
            if effect in _RANK[version]:
                codes = list(then.get("reason_codes") or [])
                yield {"rule_id": str(rule.get("id")), "stage": stage, "effect": effect, "reason_codes": codes}


def _fires(facts: _Facts, rule: Mapping[str, Any], policy: Mapping[str, Any]) -> bool:
    v0 = facts.version == "policy.v0"
    if not _applies(facts.action_type, rule.get("when") or {}, v0):
        return False
    conditions = [rule.get(key) for key in ("if", "if_all", "if_any")]
    if v0 and rule["stage"] == "REQUIREMENTS" and all(condition is None for condition in conditions):
        required = (policy.get("required_evidence") or {}).get(facts.action_type) or []
        return any(facts.evidence.get(name) in (None, "") for name in required)
    one, every, some = conditions
    if not facts.hold(one):
        return False
    if (every is not None if v0 else every) and not all(map(facts.hold, every)):  # type: ignore[arg-type]
        return False
    return not (some is not None if v0 else some) or any(map(facts.hold, some))  # type: ignore[arg-type]


def _applies(action_type: str, when: Mapping[str, Any], v0: bool) -> bool:
    if not when:
        return True
    if not v0:
        return not when.get("action_type") or bool(when["action_type"] == action_type)
    if "action_type" in when:
        return bool(when["action_type"] == action_type)
    return action_type in when.get("action_type_in", ())


class _Facts:
    """The request as rules see it."""

    def __init__(self, request: Mapping[str, Any], version: str) -> None:
        amount = request["action"].get("amount") or {}
        self.version = version
        self.action_type = str(request["action"].get("type"))
        self.evidence: Mapping[str, Any] = request.get("evidence") or {}
        derived = derived_facts(request)
        self.currency, self.usd = amount.get("currency"), derived["amount_usd"]
        self.fx_given = derived["fx_rate_to_usd_present"]

    def hold(self, conditions: Any) -> bool:
        """Whether all of a mapping's conditions hold."""
        return not conditions or all(self._holds(key, expected) for key, expected in conditions.items())

    def _holds(self, key: str, expected: Any) -> bool:
        if key == "amount_currency_is":
            return bool(self.currency == expected)
        if key == "amount_currency_ne":
            return bool(self.currency != expected)
        name, _, operator = key.rpartition("_")
        if name == "amount_usd" and operator in ("gt", "gte", "lt", "lte"):
            return _compares(self.usd, operator, expected, integers=False)
        if key == "evidence.fx_rate_to_usd_present" and self.version == "policy.v0":
            return expected is self.fx_given
        if key.startswith("evidence."):
            return self._evidence(name.removeprefix("evidence."), operator, expected)
        if self.version == "policy.v0":
            raise Unreadable(f"`{key}` is no condition that 1.x knows")
        return False

    def _evidence(self, name: str, operator: str, expected: Any) -> bool:
        v0 = self.version == "policy.v0"
        if v0 and f"{name}_{operator}" not in _V0_EVIDENCE:
            raise Unreadable(f"`evidence.{name}_{operator}` is no condition that 1.x knows")
        value = self.evidence.get(name)
        if operator == "is":
            if v0 and name == "manual_approval":
                return isinstance(value, bool) and value is expected
            return bool(value == expected)
        if operator == "ne":
            return bool(value != expected)
        if operator == "in":
            return isinstance(expected, list) and value in expected
        return _compares(value, operator, expected, integers=v0 and name in _INTEGERS)


def _compares(value: Any, operator: str, expected: Any, *, integers: bool) -> bool:
    if not isinstance(value, int if integers else (int, float)) or operator not in ("gt", "gte", "lt", "lte"):
        return False
    limit = int(expected) if integers else float(expected)
    return {"gt": value > limit, "gte": value >= limit, "lt": value < limit, "lte": value <= limit}[operator]


def derived_facts(request: Mapping[str, Any]) -> dict[str, Any]:
    """What 1.x derives from a request; its `inputs_digest` covers these beside the request itself."""
    action, evidence = request.get("action") or {}, request.get("evidence") or {}
    amount = action.get("amount") or {}
    currency = amount.get("currency") if isinstance(amount.get("currency"), str) else None
    value = float(amount["value"]) if isinstance(amount.get("value"), int | float) else None
    rate = evidence.get("fx_rate_to_usd")
    usd = None
    if value is not None and currency == "USD":
        usd = value
    elif value is not None and currency is not None and isinstance(rate, int | float):
        usd = value * float(rate)
    return {
        "action_type": str(action.get("type")),
        "amount_currency": currency,
        "amount_value": value,
        "amount_usd": usd,
        "fx_rate_to_usd_present": isinstance(rate, int | float),
    }
