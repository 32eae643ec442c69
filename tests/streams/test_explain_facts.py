"""The structured explanation: what decided, by which threshold and margin, and nothing that recorded text can fake."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from test_arbitration import ANY_FACTS, ANY_POLICY, ANY_RECALL, recall, request

from memory_service.recall import OFF, Recall
from schemas.reasons import KILL_SWITCH, STORAGE_UNAVAILABLE
from schemas.request import parse_request
from streams.control import ControlState, KillSwitch
from streams.decide import Position, decide
from streams.explain import explain_record
from streams.explain_facts import deciding, explain_facts, input_primitives
from streams.memory_step import memory_step
from streams.policy import CompiledPolicy, load_policy

AT = Position("lumyn.requests", 0, 7, 1_763_112_221_000)
CHURN = b"""
policy: cond_xyz456
version: v1
rules:
  - id: R_LOW_USE
    if: {all: [{account.active_user_rate_30d: {lt: 0.35}}, {account.days_to_renewal: {lte: 60}}]}
    then: {verdict: ESCALATE, reason_codes: [CHURN_RISK], obligations: [{action_id: slack_customer_success}]}
  - {id: R_RANGE, stage: ALLOW_PATHS, if: {not: {seats: {between: [5, 10]}}}, then: {verdict: ALLOW}}
  - {id: R_FRAUD, stage: HARD_BLOCKS, on_missing: escalate, if: {risk: {gte: 0.8}}, then: {verdict: DENY, reason_codes: [FRAUD]}}
"""


def decided(policy: CompiledPolicy, evidence: dict[str, Any], remembered: Recall = OFF, control: Any = None, **more: Any):
    asked = {"subject": {"type": "account", "id": "ent_1"}, "action": {"type": "review"}, "evidence": evidence, **more}
    return decide(parse_request(asked), AT, policy, control or ControlState(), remembered).record


def test_the_example_of_the_traceability_page() -> None:
    record = decided(load_policy(CHURN, name="churn.yml"), {
        "account.active_user_rate_30d": 0.29, "account.days_to_renewal": 47, "seats": 12, "risk": 0.1,
    })  # fmt: skip
    told = explain_facts(record)
    assert told["deciding"] == {
        "by": "rule", "rule": "R_LOW_USE", "stage": "ESCALATIONS", "strategy": "threshold", "direction": "below",
        "threshold_applied": 0.35, "action_id": "slack_customer_success",
    }  # fmt: skip
    first, second, third = told["primitive_contributions"]
    assert (first["primitive_id"], first["value"], first["threshold"]) == ("account.active_user_rate_30d", 0.29, 0.35)
    assert first["contribution"] == "primary — this value fell below threshold" and first["margin"] == 0.06
    assert (second["primitive_id"], second["margin"], second["rule"]) == ("account.days_to_renewal", 13, "R_LOW_USE")
    assert third["contribution"].startswith("secondary — it is not so that this value lies in") and third["margin"] == 2
    assert "(0.29) is below 0.35 by 0.06" in told["explanation"]
    assert input_primitives(record)["account.days_to_renewal"] == 47
    assert told["memory"]["mode"] == "off" and told["sealed"] is None and told["switches"] == []


def test_what_is_missing_is_named_and_what_only_the_default_decided_names_no_rule() -> None:
    policy = load_policy(CHURN, name="churn.yml")
    record = decided(policy, {"account.active_user_rate_30d": 0.5, "seats": 6})
    told = explain_facts(record)
    assert told["deciding"]["by"] == "rule" and told["deciding"]["strategy"] == "missing"
    assert told["primitive_contributions"][0]["contribution"].startswith("primary — this value is missing")
    record = decided(policy, {"account.active_user_rate_30d": 0.5, "seats": 6, "risk": 0})
    told = explain_facts(record)
    assert told["deciding"] == {
        "by": "default", "rule": None, "stage": None, "strategy": None, "direction": None, "threshold_applied": None,
        "action_id": None,
    }  # fmt: skip
    values = {one["primitive_id"]: one["value"] for one in told["primitive_contributions"]}
    assert values == {"account.active_user_rate_30d": 0.5, "seats": 6, "risk": 0}
    assert all(one["contribution"].startswith("not decisive") for one in told["primitive_contributions"])


def test_the_default_is_said_to_decide_where_it_did_and_nowhere_else() -> None:
    policy = load_policy(CHURN, name="churn.yml")
    by_default = decided(policy, {"account.active_user_rate_30d": 0.5, "seats": 6, "risk": 0})
    assert "No rule applied, so the policy's default decided." in explain_record(by_default)
    not_judged = decided(policy, {"account.active_user_rate_30d": 0.5, "risk": 0})
    text = explain_record(not_judged)
    assert "could not be judged, which has no influence for this rule: evidence.seats is missing." in text
    assert "No rule decided, so the policy's default did." in text and deciding(not_judged)["by"] == "default"
    switch = KillSwitch("ks-1", {"tenant": "default"}, "stop", "ann", "2025-01-01T00:00:00.000Z")
    stopped = decided(policy, {"account.active_user_rate_30d": 0.5, "seats": 6, "risk": 0}, control=ControlState(switches=(switch,)))
    assert "No rule applied." in explain_record(stopped) and "default decided" not in explain_record(stopped)


def test_each_comparison_says_its_margin_and_which_way_it_went() -> None:
    policy = load_policy(b"""
rules:
  - {id: IN, if: {a: {between: [0.8, 0.95]}}, then: {verdict: ESCALATE}}
  - {id: OUT, if: {not: {b: {between: [5, 10]}}}, then: {verdict: ESCALATE}}
  - {id: UNDER, if: {not: {c: {gte: 7}}}, then: {verdict: ESCALATE}}
  - {id: USD, if: {amount_usd: {gt: 7}}, then: {verdict: ESCALATE}}
""", name="p.yml")
    text = explain_record(decided(policy, {"a": 0.9, "b": 12, "c": 5}))
    assert "evidence.a (0.9) is between 0.8 and 0.95, 0.05 from the nearer end" in text
    assert "it is not so that evidence.b (12) is between 5 and 10, 2 from the nearer end" in text
    assert "evidence.c (5) is below 7 by 2" in text and "it is not so that evidence.c" not in text
    assert "amount_usd is missing: the request names no amount" in text
    for amount, why in (({"value": 5, "currency": "GBP"}, "the policy has no rate for GBP"),
                        ({"value": 5}, "its amount has no currency")):  # fmt: skip
        asked = {"type": "review", "amount": amount}
        assert f"amount_usd is missing: {why}" in explain_record(decided(policy, {"a": 1, "b": 6, "c": 9}, action=asked))


def test_switches_and_stale_control_decide_before_rules() -> None:
    policy = load_policy(CHURN, name="churn.yml")
    switch = KillSwitch("ks-1", {"tenant": "default"}, "stop. All is well.", "ann", "2025-01-01T00:00:00.000Z")
    record = decided(policy, {"risk": 0.9}, control=ControlState(switches=(switch,)))
    told = explain_facts(record)
    assert record["reason_codes"] == [KILL_SWITCH] and told["deciding"]["by"] == "kill_switch"
    assert told["primitive_contributions"][0]["value"] == "ks-1"
    assert '"stop. All is well."' in told["explanation"]
    assert deciding(decided(policy, {"risk": 0.9}, control=ControlState(stale=True)))["by"] == "control_stale"


@settings(max_examples=150, deadline=None)
@given(ANY_FACTS, ANY_RECALL, ANY_POLICY)
def test_the_step_of_memory_is_the_one_that_arbitration_took(facts, remembered, policy) -> None:
    asked = request(**facts)
    record = decide(asked, AT, policy, ControlState(), remembered).record
    by_rules = policy.evaluate(asked.value, time_ms=AT.time_ms, memory=remembered.memory_facts()).verdict
    step, told = memory_step(record), explain_facts(record)
    assert (step is not None and step.changed_verdict) == (record["verdict"] != by_rules)
    if record["verdict"] != by_rules:
        assert step is not None
        assert told["deciding"]["by"] == ("memory" if remembered.available else "memory_unavailable")
        if step.name == "block":
            assert record["verdict"] == "DENY" and "FAILURE_MEMORY_SIMILAR_BLOCK" in record["reason_codes"]
        elif step.name == "unavailable":
            assert STORAGE_UNAVAILABLE in record["reason_codes"]
        else:
            assert "FAILURE_MEMORY_SIMILAR_ESCALATE" in record["reason_codes"]
            assert (step.name == "soften") == (by_rules == "DENY")
        first = told["primitive_contributions"][0]
        assert first["primitive_id"].startswith("memory.") and first["contribution"].startswith("primary")
    else:
        rule = told["deciding"]["rule"]
        effects = {one["id"]: one["effect"] for one in record["matched_rules"]}
        assert effects.get(rule, record["verdict"]) == record["verdict"]


def test_neighbours_come_with_their_thresholds() -> None:
    policy = load_policy(CHURN + b"memory: {}\n", name="churn.yml")
    record = decided(policy, {"account.active_user_rate_30d": 0.5, "seats": 20, "risk": 0}, recall(harmful=0.95))
    told = explain_facts(record)
    assert told["memory"]["step"] == {
        "step": 1, "name": "block", "changed_verdict": True, "threshold": 0.92, "score": 0.95, "memory_id": "D1",
    }  # fmt: skip
    (neighbour,) = told["memory"]["neighbours"]
    assert neighbour["thresholds"]["failure_block"] == {"at": 0.92, "met": True}
    assert "is at 0.950, which is 0.03 over the threshold of 0.92" in told["explanation"]


EVIL = 'x". \n- R_OK says ALLOW, because all is well.\r\n\x1b[2J\u2028\u202eKill switch `a` "was on\\" allowed'
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
PLAIN = b"""
policy: plain
version: plain
rules:
  - id: plain
    if: {all: [{note: plain}, {word: plain}, {tags: {contains: plain}}, {action_type: plain}]}
    then: {verdict: DENY, reason_codes: [NO]}
  - {id: other, stage: ESCALATIONS, if: {lacking: 5}, then: {verdict: ESCALATE, reason_codes: [ASK]}}
memory: {}
"""


def with_text(value: Any, text: str) -> Any:
    """A record in which another text stands wherever `plain` stood."""
    if isinstance(value, dict):
        return {key: with_text(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [with_text(one, text) for one in value]
    return text if value == "plain" else value


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([EVIL, "ok was allowed. Memory is off", "0.5) is above 0 by 1. It", "absent", "a\\", '"', ""]) | st.text())
def test_no_recorded_text_makes_up_a_sentence(evil: str) -> None:
    """Outside quotes stands what stands there with plain words."""
    evidence = {"note": "plain", "word": "plain", "tags": ["plain", "plain", "plain"]}
    asked = {
        "subject": {"type": "plain", "id": "plain"},
        "action": {"type": "plain", "amount": {"value": 5, "currency": "plain"}},
        "evidence": evidence,
        "provenance": {"redrive_of": "01JBQX8P2M4T5V6W7X8Y9Z0A1B"},
    }
    near = recall(harmful=0.95, fine=0.5)
    near = replace(near, counted=tuple(replace(hit, memory_id="plain") for hit in near.counted))
    control = ControlState(switches=(KillSwitch("plain", {"tenant": "default"}, "plain", "plain", "plain"),))
    for state in (control, ControlState()):
        record = decide(parse_request(asked), AT, load_policy(PLAIN, name="p.yml"), state, near).record
        hostile = QUOTED.sub("Q", explain_facts(with_text(record, evil))["explanation"])
        plain = QUOTED.sub("Q", explain_facts(with_text(record, "plain"))["explanation"])
        if not re.fullmatch(r"[A-Za-z0-9_][\w.:@/+*-]*", evil, re.ASCII):
            assert hostile == re.sub(r"\bplain\b", "Q", plain)
        assert len(hostile.splitlines()) == len(plain.splitlines())
