"""A candidate's quick answer, alone and in a panel, is the one that the evaluator gives, on whatever is asked."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from memory_service.recall import OFF, CountedHit, Recall, unavailable
from schemas.verdict import VERDICTS
from streams.arbitration import arbitrate
from streams.backtest.candidate import Candidate
from streams.backtest.panel import panels
from streams.policy import load_policy

RULE_SETS = [
    "- {id: R_RISK, stage: HARD_BLOCKS, if: {risk: {gte: %s}}, then: {verdict: DENY, reason_codes: [RISK]}}",
    "- {id: R_LAW, stage: HARD_BLOCKS, immune: true, if: {banned: true}, then: {verdict: DENY, reason_codes: [LAW]}}",
    "- {id: R_KYC, stage: REQUIREMENTS, if: {kyc: false}, then: {verdict: ABSTAIN, reason_codes: [NO_KYC]}}",
    "- {id: R_BIG, if: {all: [{action_type: refund}, {amount: {gt: %s}}]}, then: {verdict: ESCALATE, reason_codes: [BIG]}}",
    "- {id: R_RATE, if: {memory.nearby.failure_rate: {gt: 0.5}}, then: {verdict: ESCALATE, reason_codes: [RATE]}}",
    "- {id: R_OK, stage: ALLOW_PATHS, if: {any: [{ok: true}, {amount: {lt: %s}}]}, then: {verdict: ALLOW, reason_codes: [OK]}}",
]
FACT = st.one_of(st.none(), st.booleans(), st.sampled_from([0, 0.3, 0.8, 1, "x"]))
HIT = st.builds(
    CountedHit,
    role=st.sampled_from(["harmful", "harmful_without_text", "fine", "softening"]),
    memory_id=st.just("D"),
    meaning=st.just("harmful"),
    verdict=st.just("DENY"),
    rules=st.sampled_from([(), ("R_RISK",), ("R_RISK", "R_LAW")]),
    amount=st.none(),
    contested=st.booleans(),
    score=st.sampled_from([0.5, 0.85, 0.91, 0.95, 1]),
    dot=st.integers(0, 5),
)


@st.composite
def policies(draw: Any) -> Any:
    lines = draw(st.lists(st.sampled_from(RULE_SETS), min_size=1, unique=True))
    rules = "\n".join("  " + (line % draw(st.sampled_from([0.3, 0.8, 100])) if "%s" in line else line) for line in lines)
    default = draw(st.sampled_from(VERDICTS))
    memory = draw(st.sampled_from(["", "memory: {}", "memory: {failure_block: 0.9, on_unavailable: policy_only}"]))
    fx = draw(st.sampled_from(["", "fx: {EUR: 2}"]))
    text = f"policy: p\n{fx}\nrules:\n{rules}\ndefault: {{verdict: {default}, reason_codes: [BY_DEFAULT]}}\n{memory}\n"
    return load_policy(text.encode(), name="p.yml")


@st.composite
def recalls(draw: Any) -> Recall:
    if draw(st.booleans()):
        return unavailable()
    counted = tuple(draw(st.lists(HIT, max_size=3)))
    rate = draw(st.sampled_from([None, 0.2, 0.9]))
    signals = {
        "failure_similarity": {"score": 0.5, "top_k": []},
        "success_similarity": {"score": 0, "top_k": []},
        "nearby": {"failure_rate": rate, "lower": 0, "upper": draw(st.sampled_from([0.4, 1])), "n_effective": 3},
        "uncertainty_score": 1,
    }
    return Recall("exact", True, 1, "e", "v", draw(st.sampled_from([0.2, 1])), draw(st.integers(0, 5)), signals, counted)


REQUESTS = st.fixed_dictionaries(
    {
        "tenant": st.just("t"),
        "subject": st.just({"type": "user", "id": "u"}),
        "action": st.fixed_dictionaries(
            {"type": st.sampled_from(["refund", "cancel"]), "amount": st.sampled_from([0.5, 99, 101, None])}
        ),
        "evidence": st.dictionaries(st.sampled_from(["risk", "banned", "kyc", "ok"]), FACT),
    }
)


@given(st.lists(policies(), min_size=1, max_size=4), st.lists(st.tuples(REQUESTS, recalls()), min_size=1, max_size=6))
def test_alone_and_together_they_say_what_the_evaluator_says(them: Any, asked: Any) -> None:
    candidates = [Candidate(policy) for policy in them]
    together = panels(candidates)
    assert sorted(number for panel in together for number in panel.numbers) == list(range(len(them)))
    for request, recall in asked:
        expected = []
        for policy in them:
            mine = recall if policy.memory is not None else OFF
            evaluation = policy.evaluate(request, time_ms=0, memory=mine.memory_facts())
            outcome = arbitrate(policy, evaluation, mine)
            rules = tuple((hit.id, hit.outcome, hit.effect) for hit in evaluation.hits)
            expected.append((outcome.verdict, outcome.reason_codes, rules))
        for candidate, right in zip(candidates, expected, strict=True):
            mine = recall if candidate.policy.memory is not None else OFF
            found = candidate.decide(request, 0, mine)
            assert (found.verdict, found.reason_codes, found.rules) == right
        for panel in together:
            mine = recall if panel.policy.memory is not None else OFF
            answers = panel.decide(request, 0, mine).results
            for number, found in zip(panel.numbers, answers, strict=True):
                assert found is not None
                assert (found.verdict, found.reason_codes, found.rules) == expected[number]
