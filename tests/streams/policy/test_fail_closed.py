"""Evidence that is missing, not a number or of another type never opens a gate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.verdict import SEVERITY
from streams.policy import load_policy

BLOCKED = load_policy(
    b"""
rules:
  - id: BLOCK
    stage: HARD_BLOCKS
    if: {action_type: refund, risk: {gte: 0.8}}
  - id: CALM
    stage: ALLOW_PATHS
    if: {action_type: refund}
""",
    name="p.yml",
)
class _Missing:
    def __repr__(self):
        return "MISSING"


MISSING = _Missing()
NO_NUMBERS = [
    MISSING, None, float("nan"), float("inf"), float("-inf"), "0.1", "", "NaN", True, False, [], [0.1], {}, {"value": 0.1},
]  # fmt: skip


def request_with(**evidence):
    known = {key: value for key, value in evidence.items() if value is not MISSING}
    return {"subject": {"type": "user", "id": "u"}, "action": {"type": "refund"}, "evidence": known}


def test_with_good_evidence_the_gate_opens_and_closes():
    assert BLOCKED.evaluate(request_with(risk=0.1), time_ms=0).verdict == "ALLOW"
    assert BLOCKED.evaluate(request_with(risk=0.8), time_ms=0).verdict == "DENY"


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_a_hard_block_that_cannot_tell_abstains(value):
    got = BLOCKED.evaluate(request_with(risk=value), time_ms=0)
    assert (got.verdict, got.reason_codes) == ("ABSTAIN", ("MISSING_EVIDENCE",))
    assert got.hits[0].missing == ("evidence.risk",)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    "condition",
    [
        "{risk: {gte: 0.8}}",
        "{risk: {gt: 0.8}}",
        "{not: {risk: {lt: 0.8}}}",
        "{not: {risk: {lte: 0.8}}}",
        "{risk: {between: [0.8, 1]}}",
        "{not: {risk: {between: [0, 0.8]}}}",
        "{risk: {eq: 0.8}}",
        "{risk: {ne: 0.1}}",
        "{risk: {in: [0.8, 0.9]}}",
        "{risk: {not_in: [0.1, 0.2]}}",
        "{any: [{risk: {gte: 0.8}}, {other: true}]}",
        "{all: [{risk: {gte: 0.8}}, {ok: true}]}",
        "{not: {any: [{risk: {lt: 0.8}}, {other: true}]}}",
    ],
)
def test_no_operator_takes_what_is_not_a_number_for_a_small_one(condition, value):
    text = f"rules:\n  - {{id: B, stage: HARD_BLOCKS, if: {condition}}}\n  - {{id: A, stage: ALLOW_PATHS}}\n"
    compiled = load_policy(text.encode(), name="p.yml")
    got = compiled.evaluate(request_with(risk=value, other=False, ok=True), time_ms=0)
    assert got.verdict == "ABSTAIN"


@pytest.mark.parametrize(
    "amount", [None, "100", True, {"value": "1"}, {"value": 1}, {"value": 1, "currency": "GBP"}, []]
)
def test_an_amount_that_cannot_be_put_in_dollars_is_not_a_small_one(amount):
    text = (
        b"rules:\n  - {id: B, if: {amount_usd: {gt: 5}}, then: {verdict: ESCALATE}}\n  - {id: A, stage: ALLOW_PATHS}\n"
    )
    request = {"action": {"type": "refund", "amount": amount}}
    assert load_policy(text, name="p.yml").evaluate(request, time_ms=0).verdict == "ESCALATE"


@pytest.mark.parametrize("kind", [None, 1, True, [], {}, MISSING])
def test_an_action_without_a_proper_type_meets_every_rule(kind):
    request = request_with(risk=0.1)
    request["action"] = {} if kind is MISSING else {"type": kind}
    got = BLOCKED.evaluate(request, time_ms=0)
    assert [hit.id for hit in got.hits] == ["CALM"]
    request["evidence"]["risk"] = 0.9
    got = BLOCKED.evaluate(request, time_ms=0)
    assert (got.verdict, [hit.outcome for hit in got.hits]) == ("ABSTAIN", ["indeterminate", "indeterminate"])


VALUES = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.text(max_size=3), st.lists(st.floats(), max_size=2)
)
GATE = load_policy(
    b"""
rules:
  - {id: B1, stage: HARD_BLOCKS, if: {any: [{a: {gte: 0.5}}, {all: [{b: {gt: 1}}, {not: {c: {lt: 3}}}]}]}}
  - {id: B2, stage: REQUIREMENTS, if: {d: {not_in: [x, y]}}}
  - {id: E1, stage: ESCALATIONS, if: {amount: {gt: 100}}}
  - {id: A1, stage: ALLOW_PATHS}
""",
    name="p.yml",
)


@given(st.fixed_dictionaries({"a": VALUES, "b": VALUES, "c": VALUES, "d": VALUES}), st.sampled_from("abcd"))
def test_leaving_evidence_out_never_lets_more_through(evidence, left_out):
    """An absent fact may hide what a present one shows, but then the verdict is ABSTAIN, never ALLOW."""
    request = request_with(**evidence)
    request["action"]["amount"] = 5
    before = GATE.evaluate(request, time_ms=0).verdict
    del request["evidence"][left_out]
    after = GATE.evaluate(request, time_ms=0).verdict
    assert after != "ALLOW" or before == "ALLOW"
    assert SEVERITY[after] >= min(SEVERITY[before], SEVERITY["ABSTAIN"])
