"""Arbitration, step by step as CONTRACTS has it, and the promises that hold whatever memory says."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_service.blocks import UNIT
from memory_service.recall import OFF, Asked, CountedHit, Recall, unavailable
from memory_service.recaller import Recaller
from memory_service.sqlite_store import SqliteMemoryStore
from schemas.reasons import FAILURE_MEMORY_SIMILAR_BLOCK as BLOCK
from schemas.reasons import FAILURE_MEMORY_SIMILAR_ESCALATE as ASK
from schemas.reasons import INTERNAL_ERROR, KILL_SWITCH, STORAGE_UNAVAILABLE
from schemas.request import parse_request
from schemas.verdict import SEVERITY
from streams.arbitration import arbitrate
from streams.control import ControlState, KillSwitch
from streams.decide import Position, decide
from streams.policy import load_policy

RULES = """
policy: refunds
version: 1.0.0
default: {verdict: %(default)s, reason_codes: [BY_DEFAULT]}
rules:
  - {id: R_RISK, stage: HARD_BLOCKS, if: {risk: {gte: 0.8}}, then: {verdict: DENY, reason_codes: [RISK], queries: [why]}}
  - {id: R_FAST, stage: HARD_BLOCKS, if: {fast: true}, then: {verdict: DENY, reason_codes: [FAST]}}
  - {id: R_LAW, stage: HARD_BLOCKS, immune: true, if: {banned: true}, then: {verdict: DENY, reason_codes: [LAW]}}
  - {id: R_KYC, stage: REQUIREMENTS, if: {kyc: false}, then: {verdict: ABSTAIN, reason_codes: [NO_KYC]}}
  - {id: R_BIG, stage: ESCALATIONS, if: {big: true}, then: {verdict: ESCALATE, reason_codes: [BIG]}}
  - {id: R_OK, stage: ALLOW_PATHS, if: {ok: true}, then: {verdict: ALLOW, reason_codes: [FINE], obligations: [{log: it}]}}
%(memory)s
"""
FACTS = {"risk": 0.1, "fast": False, "banned": False, "kyc": True, "big": False, "ok": True}
RISK, LAW, NO_KYC, BIG = {"risk": 0.9}, {"banned": True}, {"kyc": False}, {"big": True}


@cache
def policy(memory: str | None = "memory: {}", default: str = "ESCALATE"):
    text = RULES % {"memory": memory or "", "default": default}
    return load_policy(text.encode(), name="refunds.yml")


def request(**facts):
    return parse_request(
        {
            "subject": {"type": "user", "id": "u"},
            "action": {"type": "refund"},
            "evidence": {**FACTS, **facts},
        }
    )


def counted(role: str, score: float, *, rules=(), memory_id="D1", contested=False) -> CountedHit:
    verdict = "DENY" if role == "softening" else "ALLOW"
    meaning = "harmful" if role.startswith("harmful") else "fine"
    return CountedHit(
        role, memory_id, meaning, verdict, tuple(rules), 100, contested, score, round(score * UNIT)
    )


def recall(*, harmful=None, bare=None, fine=None, soft=(), upper=0.2, coverage=1.0, facts=6) -> Recall:
    hits = [counted("harmful", harmful)] if harmful is not None else []
    hits += [counted("harmful_without_text", bare)] if bare is not None else []
    hits += [counted("fine", fine)] if fine is not None else []
    hits += [counted("softening", score, rules=rules) for score, rules in soft]
    signals = {**OFF.signals, "nearby": {"failure_rate": 0.1, "lower": 0, "upper": upper, "n_effective": 9}}
    return Recall("exact", True, 1, "e", "v", coverage, facts, signals, tuple(hits))


def outcome(facts: dict[str, Any], remembered: Recall, rules=None):
    rules = rules or policy()
    evaluation = rules.evaluate(request(**facts).value, time_ms=0, memory=remembered.memory_facts())
    return arbitrate(rules, evaluation, remembered)


def said(*arguments) -> tuple[str, list[str]]:
    result = outcome(*arguments)
    return result.verdict, list(result.reason_codes)


R = ("R_RISK",)
OFF_1_2 = "memory: {failure_block: 1.5, failure_escalate: 1.2}"

TABLE = [
    # nothing near
    ("nothing known", {}, recall(), "ALLOW", ["FINE"]),
    ("a harmful one too far away", {}, recall(harmful=0.8199), "ALLOW", ["FINE"]),
    ("only fine ones", {}, recall(fine=1.0, upper=0.01), "ALLOW", ["FINE"]),
    ("fine ones allow nothing that rules escalate", BIG, recall(fine=1.0, upper=0.01), "ESCALATE", ["BIG"]),
    ("nor what they abstain from", NO_KYC, recall(fine=1.0, upper=0.01), "ABSTAIN", ["NO_KYC"]),
    ("nor what only the default escalates", {"ok": False}, recall(fine=1.0, upper=0.01), "ESCALATE", ["BY_DEFAULT"]),
    # step 1
    ("1: harm at failure_block denies", {}, recall(harmful=0.92), "DENY", [BLOCK]),
    ("1: just below it asks", {}, recall(harmful=0.9199), "ESCALATE", [ASK]),
    ("1: codes of stricter rules stay", BIG, recall(harmful=0.95), "DENY", ["BIG", BLOCK]),
    ("1: over ABSTAIN too", NO_KYC, recall(harmful=0.95), "DENY", ["NO_KYC", BLOCK]),
    ("1: over a default, whose code stays", {"ok": False}, recall(harmful=0.95), "DENY", ["BY_DEFAULT", BLOCK]),
    ("1: no code where rules deny already", RISK, recall(harmful=0.95), "DENY", ["RISK"]),
    ("1: no fine one averts it", {}, recall(harmful=0.92, fine=1.0, upper=0.01), "DENY", [BLOCK]),
    ("1: a nearer failed DENY makes it a question", {}, recall(harmful=0.93, soft=[(0.95, R)]), "ESCALATE", [ASK]),
    ("1: whatever rules it was denied by", {}, recall(harmful=0.93, soft=[(0.95, ())]), "ESCALATE", [ASK]),
    ("1: one as near does not", {}, recall(harmful=0.95, soft=[(0.95, R)]), "DENY", [BLOCK]),
    ("1: one farther does not", {}, recall(harmful=0.95, soft=[(0.94, R)]), "DENY", [BLOCK]),
    ("1: nor when rules say DENY", RISK, recall(harmful=0.93, soft=[(0.95, R)]), "DENY", ["RISK"]),
    ("1: a question does not lift an ABSTAIN", NO_KYC, recall(harmful=0.93, soft=[(0.95, R)]), "ABSTAIN", ["NO_KYC"]),
    ("1: a question adds no code to ESCALATE", BIG, recall(harmful=0.93, soft=[(0.95, R)]), "ESCALATE", ["BIG"]),
    ("1: a query of less than half the weight asks", {}, recall(harmful=1.0, coverage=0.4999), "ESCALATE", [ASK]),
    ("1: one of half the weight denies", {}, recall(harmful=1.0, coverage=0.5), "DENY", [BLOCK]),
    # step 2
    ("2: harm at failure_escalate asks", {}, recall(harmful=0.82), "ESCALATE", [ASK]),
    ("2: no code where rules ask already", BIG, recall(harmful=0.85), "ESCALATE", ["BIG"]),
    ("2: an ABSTAIN stands", NO_KYC, recall(harmful=0.85), "ABSTAIN", ["NO_KYC"]),
    ("2: a DENY stands, and is not softened", RISK, recall(harmful=0.85, soft=[(0.95, R)]), "DENY", ["RISK"]),
    ("2: rewording does not open the gate", {}, recall(harmful=0.5, bare=0.92, facts=3), "ESCALATE", [ASK]),
    ("2: with less than three facts left it says too little", {}, recall(harmful=0.5, bare=1.0, facts=2), "ALLOW", ["FINE"]),
    ("2: and it must be at failure_block", {}, recall(harmful=0.5, bare=0.9199), "ALLOW", ["FINE"]),
    ("2: a nearer fine one and a low rate avert it", {}, recall(harmful=0.85, fine=0.90, upper=0.4999), "ALLOW", ["FINE"]),
    ("2: a rate that may be one half does not", {}, recall(harmful=0.85, fine=0.95, upper=0.5), "ESCALATE", [ASK]),
    ("2: a fine one below success_support does not", {}, recall(harmful=0.85, fine=0.8999), "ESCALATE", [ASK]),
    ("2: a fine one only as near does not", {}, recall(harmful=0.91, fine=0.91), "ESCALATE", [ASK]),
    ("2: a fine one farther does not", {}, recall(harmful=0.915, fine=0.91), "ESCALATE", [ASK]),
    ("2: support averts rewording too", {}, recall(harmful=0.5, bare=1.0, fine=0.95), "ALLOW", ["FINE"]),
    ("2: support allows nothing that rules escalate", BIG, recall(harmful=0.85, fine=0.95), "ESCALATE", ["BIG"]),
    # step 3
    ("3: a DENY that was wrong before is asked about", RISK, recall(soft=[(0.90, R)]), "ESCALATE", [ASK]),
    ("3: one too far away changes nothing", RISK, recall(soft=[(0.8999, R)]), "DENY", ["RISK"]),
    ("3: one by other rules changes nothing", RISK, recall(soft=[(0.95, ("R_FAST",))]), "DENY", ["RISK"]),
    ("3: one by these and more rules counts", RISK, recall(soft=[(0.95, ("R_FAST", "R_RISK"))]), "ESCALATE", [ASK]),
    ("3: every blocking rule must have fired", {**RISK, "fast": True}, recall(soft=[(0.95, R)]), "DENY", ["RISK", "FAST"]),
    ("3: in one and the same decision", {**RISK, "fast": True}, recall(soft=[(0.95, R), (0.94, ("R_FAST",))]), "DENY", ["RISK", "FAST"]),
    ("3: all fired", {**RISK, "fast": True}, recall(soft=[(0.95, ("R_RISK", "R_FAST"))]), "ESCALATE", [ASK]),
    ("3: not only the nearest one may speak", RISK, recall(soft=[(0.97, ("R_FAST",)), (0.95, R)]), "ESCALATE", [ASK]),
    ("3: the law is immune", LAW, recall(soft=[(1.0, ("R_LAW",))]), "DENY", ["LAW"]),
    ("3: also beside another rule", {**LAW, **RISK}, recall(soft=[(1.0, ("R_LAW", "R_RISK"))]), "DENY", ["RISK", "LAW"]),
    ("3: an ABSTAIN stands", {**RISK, **NO_KYC}, recall(soft=[(0.95, R)]), "ABSTAIN", ["NO_KYC", ASK]),
    ("3: codes of other rules stay", {**RISK, **BIG}, recall(soft=[(0.95, R)]), "ESCALATE", ["BIG", ASK]),
    ("3: after support has averted step 2", RISK, recall(harmful=0.85, fine=0.95, soft=[(0.95, R)]), "ESCALATE", [ASK]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "remembered", "verdict", "codes"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_steps_of_the_contract(facts, remembered, verdict, codes):
    assert said(facts, remembered) == (verdict, codes)


@pytest.mark.parametrize(
    ("memory", "facts", "remembered", "verdict"),
    [
        ("memory: {failure_block: 1.5}", {}, recall(harmful=1.0), "ESCALATE"),
        ("memory: {failure_block: 1.5}", {}, recall(harmful=0.5, bare=1.0), "ALLOW"),
        (OFF_1_2, {}, recall(harmful=1.0, bare=1.0), "ALLOW"),
        ("memory: {soften: 1.2}", RISK, recall(soft=[(1.0, R)]), "DENY"),
        ("memory: {soften: 1.2}", {}, recall(harmful=0.95, soft=[(1.0, R)]), "DENY"),
        ("memory: {success_support: 1.2}", {}, recall(harmful=0.85, fine=1.0), "ESCALATE"),
    ],
)
def test_a_threshold_above_one_switches_its_step_off(memory, facts, remembered, verdict):
    assert said(facts, remembered, policy(memory))[0] == verdict


def test_with_the_memory_steps_off_a_nearer_harm_still_stops_softening():
    rules = policy(OFF_1_2)
    assert said(RISK, recall(harmful=0.96, soft=[(0.95, R)]), rules)[0] == "DENY"
    assert said(RISK, recall(harmful=0.94, soft=[(0.95, R)]), rules)[0] == "ESCALATE"


def test_a_policy_without_memory_hears_nothing():
    assert said({}, recall(harmful=1.0), policy(None)) == ("ALLOW", ["FINE"])
    assert said(RISK, recall(soft=[(1.0, R)]), policy(None)) == ("DENY", ["RISK"])


def test_a_default_of_deny_is_not_softened():
    rules = policy("memory: {}", "DENY")
    assert said({"ok": False}, recall(soft=[(1.0, ())]), rules) == ("DENY", ["BY_DEFAULT"])
    assert said({"ok": False}, recall(harmful=0.93, soft=[(0.99, ())]), rules) == ("DENY", ["BY_DEFAULT"])


def test_a_softened_rule_stays_in_the_trace_as_it_fired():
    result = outcome(RISK, recall(soft=[(0.95, R)]))
    assert [(hit.id, hit.effect, hit.reason_codes) for hit in result.hits] == [
        ("R_RISK", "DENY", ("RISK",)),
        ("R_OK", "ALLOW", ("FINE",)),
    ]


def test_what_an_allow_obliges_to_goes_with_it():
    assert outcome({}, recall()).obligations == ({"log": "it"},)
    assert outcome({}, recall(harmful=0.95)).obligations == ()
    assert outcome({}, recall(harmful=0.85)).obligations == ()


def test_what_a_denial_asks_for_goes_with_it_when_it_is_softened():
    assert outcome(RISK, recall()).queries == ("why",)
    assert outcome(RISK, recall(soft=[(0.95, R)])).queries == ()


@pytest.mark.parametrize(
    ("setting", "facts", "verdict", "codes"),
    [
        ("abstain", {}, "ABSTAIN", [STORAGE_UNAVAILABLE]),
        ("abstain", BIG, "ABSTAIN", ["BIG", STORAGE_UNAVAILABLE]),
        ("abstain", RISK, "DENY", ["RISK"]),
        ("abstain", NO_KYC, "ABSTAIN", ["NO_KYC"]),
        ("escalate", {}, "ESCALATE", [STORAGE_UNAVAILABLE]),
        ("escalate", BIG, "ESCALATE", ["BIG"]),
        ("escalate", NO_KYC, "ABSTAIN", ["NO_KYC"]),
        ("escalate", RISK, "DENY", ["RISK"]),
        ("policy_only", {}, "ALLOW", ["FINE"]),
        ("policy_only", RISK, "DENY", ["RISK"]),
    ],
)
def test_without_memory_the_policy_says_what_happens(setting, facts, verdict, codes):
    rules = policy(f"memory: {{on_unavailable: {setting}}}")
    assert said(facts, unavailable(), rules) == (verdict, codes)


def test_a_missing_setting_means_abstain():
    assert said({}, unavailable()) == ("ABSTAIN", [STORAGE_UNAVAILABLE])


# a kill switch, through the decider

PLACE = Position("lumyn.requests", 0, 0, 1_734_618_600_000)


@pytest.mark.parametrize(
    "remembered", [OFF, recall(fine=1.0), recall(soft=[(1.0, R)]), recall(harmful=1.0), unavailable()]
)
@pytest.mark.parametrize("facts", [{}, RISK, NO_KYC, BIG])
def test_a_kill_switch_denies_before_everything_and_is_never_softened(remembered, facts):
    switch = KillSwitch("k1", {"action_type": "refund"}, "incident", "ops", "2024-12-19T14:30:00.000Z")
    for stale in (False, True):
        control = ControlState(version=3, switches=(switch,), stale=stale)
        record = decide(request(**facts), PLACE, policy(), control, remembered).record
        assert (record["verdict"], record["reason_codes"]) == ("DENY", [KILL_SWITCH])
        assert record["control"] == {"version": 3, "switches": [switch.as_record()]}


def test_a_kill_switch_denies_even_when_the_evaluation_raises():
    from streams.decide import internal_error

    switch = KillSwitch("k1", {}, "incident", "ops", "2024-12-19T14:30:00.000Z")
    record = internal_error(request(), PLACE, policy(), ControlState(version=3, switches=(switch,))).record
    assert (record["verdict"], record["reason_codes"]) == ("DENY", [KILL_SWITCH, INTERNAL_ERROR])


def test_stale_control_always_abstains():
    for facts in ({}, RISK, BIG):
        record = decide(
            request(**facts), PLACE, policy(), ControlState(stale=True), recall(harmful=1.0)
        ).record
        assert (record["verdict"], record["reason_codes"]) == ("ABSTAIN", ["CONTROL_STALE"])


# promises, whatever memory says

ANY_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "risk": st.sampled_from([0.1, 0.9, "high", None]),
        "fast": st.booleans(),
        "banned": st.booleans(),
        "kyc": st.booleans(),
        "big": st.booleans(),
        "ok": st.booleans(),
    },
)
SCORES = st.sampled_from([0, 0.5, 0.82, 0.9, 0.91, 0.92, 0.95, 0.99, 1.0])
ANY_RECALL = st.one_of(
    st.just(unavailable()),
    st.builds(
        recall,
        harmful=st.none() | SCORES,
        bare=st.none() | SCORES,
        fine=st.none() | SCORES,
        soft=st.lists(
            st.tuples(SCORES, st.sampled_from([(), R, ("R_RISK", "R_FAST"), ("R_RISK", "R_FAST", "R_LAW")])),
            max_size=3,
        ),
        upper=st.sampled_from([0.01, 0.4, 0.5, 1]),
        coverage=st.sampled_from([0, 0.3, 0.5, 1]),
        facts=st.sampled_from([0, 2, 3, 9]),
    ),
)
ANY_POLICY = st.sampled_from(
    [
        ("memory: {}", "ESCALATE"),
        ("memory: {on_unavailable: policy_only}", "ALLOW"),
        ("memory: {failure_block: 0.95, failure_escalate: 0.5, soften: 0.5, success_support: 0.5}", "DENY"),
        (OFF_1_2, "ABSTAIN"),
    ]
).map(lambda arguments: policy(*arguments))


@settings(max_examples=300)
@given(ANY_FACTS, ANY_RECALL, ANY_POLICY)
def test_memory_never_yields_what_the_rules_did_not_give(facts, remembered, rules):
    evaluation = rules.evaluate(request(**facts).value, time_ms=0, memory=remembered.memory_facts())
    result = arbitrate(rules, evaluation, remembered)
    if result.verdict == "ALLOW":
        assert evaluation.verdict == "ALLOW"
    if evaluation.verdict != "DENY":
        assert SEVERITY[result.verdict] >= SEVERITY[evaluation.verdict], "only a DENY may be softened"
    if any(hit.immune and hit.effect == "DENY" for hit in evaluation.hits):
        assert result.verdict == "DENY"
    codes = {BLOCK, ASK, STORAGE_UNAVAILABLE} & set(result.reason_codes)
    assert bool(codes) == (result.verdict != evaluation.verdict), (
        "a memory code appears only when it changed the verdict"
    )
    assert result.reason_codes


@settings(max_examples=200)
@given(ANY_FACTS, ANY_RECALL.filter(lambda r: r.available), SCORES, ANY_POLICY)
def test_a_nearer_harmful_neighbour_never_makes_a_verdict_milder(facts, remembered, score, rules):
    harmful = counted("harmful", score)
    now = remembered.nearest("harmful")
    if now is not None and now.dot >= harmful.dot:
        return
    others = [h for h in remembered.counted if h.role not in ("harmful", "softening")]
    soft = [h for h in remembered.in_role("softening") if h.dot >= harmful.dot]
    worse = Recall(
        "exact",
        True,
        2,
        "e",
        "v",
        remembered.coverage,
        remembered.facts,
        remembered.signals,
        (harmful, *others, *soft),
    )
    assert (
        SEVERITY[outcome(facts, worse, rules).verdict] >= SEVERITY[outcome(facts, remembered, rules).verdict]
    )


# through the real store and recaller

LIVE = """
policy: live
version: 1.0.0
fx: {EUR: 1.08}
default: {verdict: ALLOW, reason_codes: [BY_DEFAULT]}
rules:
  - {id: R_FRAUD, stage: HARD_BLOCKS, if: {chargeback_risk: {gte: 0.8}}, on_missing: escalate}
  - {id: R_LIMIT, stage: HARD_BLOCKS, if: {amount_usd: {gt: 1000}}, on_missing: escalate}
memory: {failure_block: %s, failure_escalate: %s, soften: %s, success_support: %s, neighbours: 50,
         weights: {text: %s, categories: %s, numbers: %s}}
"""
VERDICTS = ("ALLOW", "ALLOW", "DENY", "DENY", "ESCALATE")
HARMFUL = (("ALLOW", "failure", None), ("DENY", "success", None), ("ESCALATE", "failure", "DENY"))


@cache
def live(block=0.92, escalate=0.82, soften=0.9, support=0.9, text=0.3, categories=0.4, numbers=0.3):
    text_of = LIVE % (block, escalate, soften, support, text, categories, numbers)
    return load_policy(text_of.encode(), name="live.yml")


LIVE_POLICIES = st.builds(
    lambda low, high, soften, support, weights: live(
        max(low, high), min(low, high), soften, support, *weights
    ),
    *[st.sampled_from([0.3, 0.6, 0.82, 0.92])] * 4,
    st.sampled_from([(0.3, 0.4, 0.3), (0, 1, 0), (0.2, 0.8, 0), (1, 0, 0)]),
)


def part(chance: random.Random) -> dict[str, Any]:
    action: dict[str, Any] = {"type": "refund"}
    if chance.random() < 0.8:
        action["intent"] = chance.choice(["late refund", "the late refund please", "send the parcel again"])
    if chance.random() < 0.8:
        action["amount"] = {"value": chance.choice([20, 50, 180, 600, 2000, 20_000]), "currency": "USD"}
    evidence = {"tier": chance.choice(["gold", "new"]), "vip": chance.random() < 0.5}
    if chance.random() < 0.8:
        evidence["chargeback_risk"] = chance.choice([0.1, 0.85, 0.91])
    return {"action": action, "evidence": evidence}


def label(version, name, facts, verdict, said_of_it, should=None, actor="ann", rules=()):
    return {
        "version": version,
        "event_id": f"e{version}",
        "decision_id": name,
        "tenant": "default",
        "type": "label",
        "label": said_of_it,
        "should": should,
        "summary": "",
        "actor": actor,
        "at": "2024-12-19T14:30:00.000Z",
        "job": None,
        "decision": {
            "action_type": "refund",
            "verdict": verdict,
            "rules": list(rules),
            "amount": None,
            "facts": facts,
        },
    }


def history(chance: random.Random, length: int) -> list[dict[str, Any]]:
    """A random labelled history; mostly fine, so that support and softening happen."""
    events = []
    for version in range(1, length + 1):
        verdict = chance.choice(VERDICTS)
        fine = {"ALLOW": "success", "DENY": "failure", "ESCALATE": "success"}[verdict]
        word = fine if chance.random() < 0.85 else chance.choice(["failure", "success"])
        rules = chance.choice([(), ("R_FRAUD",), ("R_LIMIT",), ("R_FRAUD", "R_LIMIT")])
        events.append(label(version, f"D{version:03}", part(chance), verdict, word, rules=rules))
    return events


@pytest.fixture(scope="module")
def remembered_in(tmp_path_factory, vectoriser):
    """A function that puts a history into the one real store and gives a decider over it."""
    store = SqliteMemoryStore(tmp_path_factory.mktemp("memory") / "memory.db", vectoriser, "e")
    recaller = Recaller(store, vectoriser, "e")

    def fill(events):
        store.reset("e")
        store.apply(events)

        def decided(rules, facts, version) -> dict[str, Any]:
            asked = parse_request({"subject": {"type": "u", "id": "1"}, **facts})
            answer = recaller.recall([Asked(asked.value, rules.memory, version)])[0]
            assert answer.available
            return decide(asked, PLACE, rules, ControlState(), answer).record

        return decided

    yield fill
    store.close()


SHARED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@settings(SHARED, max_examples=150)
@given(
    st.randoms(use_true_random=False),
    st.integers(0, 25),
    LIVE_POLICIES,
    st.sampled_from(HARMFUL),
    st.booleans(),
)
def test_adding_a_harmful_neighbour_never_makes_a_verdict_milder(
    remembered_in, chance, length, rules, harm, itself
):
    check_adding_harm(remembered_in, chance, length, rules, harm, itself)


@settings(SHARED, max_examples=15)
@given(
    st.randoms(use_true_random=False),
    st.integers(49, 90),
    LIVE_POLICIES,
    st.sampled_from(HARMFUL),
    st.booleans(),
)
def test_nor_when_it_pushes_another_one_out_of_the_rate(remembered_in, chance, length, rules, harm, itself):
    check_adding_harm(remembered_in, chance, length, rules, harm, itself)


def check_adding_harm(remembered_in, chance, length, rules, harm, itself):
    asked = part(chance)
    new = label(length + 1, chance.choice(["A", "D0005", "Z"]), asked if itself else part(chance), *harm)
    decided = remembered_in([*history(chance, length), new])
    before, after = decided(rules, asked, length), decided(rules, asked, length + 1)
    assert SEVERITY[after["verdict"]] >= SEVERITY[before["verdict"]]
    assert after["risk_signals"]["nearby"]["upper"] >= before["risk_signals"]["nearby"]["upper"] - 1e-6


@settings(SHARED, max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(1, 25), LIVE_POLICIES)
def test_calling_an_allowed_one_a_failure_never_makes_a_verdict_milder(remembered_in, chance, length, rules):
    events = history(chance, length)
    old = chance.choice(events)
    verdict = old["decision"]["verdict"]
    if verdict != "ALLOW":
        return
    worse = label(
        length + 1,
        old["decision_id"],
        old["decision"]["facts"],
        verdict,
        "failure",
        actor=chance.choice(["ann", "bob"]),
    )
    decided = remembered_in([*events, worse])
    asked = chance.choice([part(chance), old["decision"]["facts"]])
    before, after = decided(rules, asked, length), decided(rules, asked, length + 1)
    assert SEVERITY[after["verdict"]] >= SEVERITY[before["verdict"]]


@settings(SHARED, max_examples=100)
@given(st.randoms(use_true_random=False), st.integers(0, 25), LIVE_POLICIES)
def test_no_history_yields_an_allow_that_the_rules_did_not_give(remembered_in, chance, length, rules):
    decided = remembered_in(history(chance, length))
    asked = part(chance)
    alone = parse_request({"subject": {"type": "u", "id": "1"}, **asked})
    by_rules = rules.evaluate(alone.value, time_ms=0).verdict
    verdict = decided(rules, asked, length)["verdict"]
    assert verdict != "ALLOW" or by_rules == "ALLOW"
    assert by_rules == "DENY" or SEVERITY[verdict] >= SEVERITY[by_rules]


def spending(amount, currency="USD", intent="late refund"):
    return {
        "action": {"type": "refund", "intent": intent, "amount": {"value": amount, "currency": currency}},
        "evidence": {"tier": "gold", "vip": True, "chargeback_risk": 0.1},
    }


def support_of(remembered_in, remembered, asked, currency="USD"):
    """The verdict for `asked`, where harm is near and a success of `remembered` is nearer; amounts weigh nothing."""
    rules = load_policy(
        (LIVE % (1.5, 0.5, 1.5, 0.9, 0.5, 0.5, 0)).replace("gt: 1000", "gt: 100000").encode(), name="l.yml"
    )
    events = [label(1, "H", {**spending(10, "USD"), "evidence": {"tier": "gold"}}, "ALLOW", "failure")]
    events += [label(n, f"S{n:02}", spending(remembered, currency), "ALLOW", "success") for n in range(2, 30)]
    return remembered_in(events)(rules, spending(asked, currency), len(events))


def test_a_success_of_20_dollars_never_supports_20_000(remembered_in):
    assert support_of(remembered_in, 20_000, 20_000)["verdict"] == "ALLOW", "the same money does"
    assert support_of(remembered_in, 20, 60)["verdict"] == "ALLOW", "and up to three times as much"
    record = support_of(remembered_in, 20, 20_000)
    assert (record["verdict"], record["reason_codes"]) == ("ESCALATE", [ASK])
    assert [hit["role"] for hit in record["memory"]["counted"]][:1] == ["harmful"]
    assert "fine" not in [hit["role"] for hit in record["memory"]["counted"]]


def test_a_success_of_20_euros_never_supports_20_000(remembered_in):
    assert support_of(remembered_in, 20, 20_000, "EUR")["reason_codes"] == [ASK]


@settings(SHARED, max_examples=40)
@given(st.floats(1, 1e6), st.floats(1, 1e6), st.booleans())
def test_less_than_a_third_of_the_money_is_never_counted_as_fine(remembered_in, remembered, asked, denied):
    word = ("DENY", "failure") if denied else ("ALLOW", "success")
    decided = remembered_in([label(1, "S", spending(remembered), *word, rules=("R_FRAUD",))])
    roles = [hit["role"] for hit in decided(live(), spending(asked), 1)["memory"]["counted"]]
    assert ("fine" in roles) == (remembered >= asked / 3)
    assert ("softening" in roles) == (denied and remembered >= asked / 3)


def test_a_contested_fine_one_neither_supports_nor_softens(remembered_in):
    risky = spending(100)
    risky["evidence"]["chargeback_risk"] = 0.91
    events = [label(1, "D", risky, "DENY", "failure", rules=("R_FRAUD",))]
    events.append(label(2, "D", risky, "DENY", "success", actor="bob", rules=("R_FRAUD",)))
    events.append(
        {**label(3, "D", risky, "DENY", "failure", actor="boss", rules=("R_FRAUD",)), "type": "settle"}
    )
    decided = remembered_in(events)
    assert [decided(live(), risky, version)["verdict"] for version in range(4)] == [
        "DENY",
        "ESCALATE",
        "DENY",
        "ESCALATE",
    ]
    assert [hit["contested"] for hit in decided(live(), risky, 2)["memory"]["counted"]] == [True, True]


def test_a_rule_that_blocks_for_missing_evidence_is_never_softened():
    source = b"""
policy: p
rules:
  - id: R_RISK
    stage: HARD_BLOCKS
    if: {risk: {gte: 0.8}}
    then: {verdict: DENY, reason_codes: [RISK]}
    on_missing: deny
memory: {}
"""
    compiled = load_policy(source, name="p.yml")
    parsed = parse_request({"subject": {"type": "u", "id": "1"}, "action": {"type": "refund"}})
    evaluation = compiled.evaluate(parsed.value, time_ms=0)
    hit = CountedHit("softening", "M", "fine", "DENY", ("R_RISK",), None, False, 1, 4194304)
    outcome = arbitrate(compiled, evaluation, Recall("exact", True, counted=(hit,), coverage=1))
    assert (outcome.verdict, outcome.reason_codes) == ("DENY", ("MISSING_EVIDENCE",))
