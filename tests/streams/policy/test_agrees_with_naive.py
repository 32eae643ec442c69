"""The compiled engine and the naive interpreter agree on every policy and request that hypothesis thinks of."""

from __future__ import annotations

import json

from effort import examples
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from naive import OPERATORS, decide

from schemas.canonical import encode
from streams.policy import check_policy, load_policy, resolve
from streams.policy.trace import explain

FACTS = st.sampled_from(
    [
        "risk", "flag", "tier", "tags", "a.b", "evidence.a.b.c", "evidence.risk", "foo.bar", "evidence.note",
        "context.channel", "context.inline.channel", "context.a.b", "action_type", "action.type", "action.amount.value",
        "amount", "amount", "amount_usd", "currency", "tenant", "subject_id", "subject.type", "subject_type",
        "provenance.model", "memory.available", "memory.nearby.failure_rate", "memory.failure_similarity",
        "time.hour", "time.weekday", "time.date", "time.iso", "risk", "tier", "action_type", "evidence", "all.x",
    ]
)  # fmt: skip
NUMBERS = st.sampled_from([0, 1, 1.0, 2, 2.5, -1, 0.1, 500, 1e-7, 14, 9007199254740991])
TEXTS = st.sampled_from(
    ["a", "b", "ab", "low", "high", "refund", "cancel", "USD", "EUR", "default", "é\"'\n\\", "1", "true", "2024-12-19"]
)
SCALARS = st.one_of(NUMBERS, TEXTS, st.booleans())
PATTERNS = st.sampled_from(["^a", "b$", "a|l", "^[a-z]+$", "o", "[0-9]+", "x{2}"])
ACTIONS = ["refund", "cancel", "a"]


@st.composite
def comparisons(draw):
    op = draw(st.sampled_from(OPERATORS))
    if op == "between":
        ends = draw(st.one_of(st.tuples(NUMBERS, NUMBERS), st.tuples(TEXTS, TEXTS)))
        return op, sorted(ends)
    if op in ("in", "not_in"):
        return op, draw(st.lists(SCALARS, max_size=4))
    if op in ("gt", "gte", "lt", "lte"):
        return op, draw(st.one_of(NUMBERS, NUMBERS, TEXTS))
    if op in ("starts_with", "ends_with"):
        return op, draw(TEXTS)
    if op == "matches":
        return op, draw(PATTERNS)
    if op == "exists":
        return op, draw(st.booleans())
    return op, draw(SCALARS)


def facts_compared():
    several = st.lists(comparisons(), min_size=1, max_size=3).map(dict)
    return st.dictionaries(FACTS, st.one_of(SCALARS, several), min_size=1, max_size=3)


def for_action():
    one = st.one_of(
        st.sampled_from(ACTIONS), st.lists(st.sampled_from([*ACTIONS, 1]), max_size=3).map(lambda x: {"in": x})
    )
    return st.fixed_dictionaries({"action_type": one})


def conditions():
    leaf = st.one_of(facts_compared(), facts_compared(), for_action())

    def nested(inner):
        some = st.lists(inner, min_size=1, max_size=3)
        return st.one_of(
            st.fixed_dictionaries({"all": some}),
            st.fixed_dictionaries({"any": some}),
            st.fixed_dictionaries({"not": inner}),
            st.tuples(facts_compared(), some).map(lambda pair: {**pair[0], "any": pair[1]}),
            st.tuples(for_action(), inner).map(lambda pair: {"all": list(pair)}),
        )

    return st.recursive(leaf, nested, max_leaves=8)


@st.composite
def rules(draw, number):
    verdict = draw(st.sampled_from(["ALLOW", "ALLOW", "DENY", "ESCALATE", "ABSTAIN"]))
    stages = ["ALLOW_PATHS"] if verdict == "ALLOW" else ["REQUIREMENTS", "HARD_BLOCKS", "ESCALATIONS"]
    rule = {"id": f"R-{number}", "then": {"verdict": verdict}}
    stage = {"DENY": "HARD_BLOCKS", "ABSTAIN": "REQUIREMENTS", "ESCALATE": "ESCALATIONS"}.get(verdict, "ALLOW_PATHS")
    if draw(st.booleans()):
        stage = rule["stage"] = draw(st.sampled_from(stages))
    if draw(st.booleans()):
        rule["then"]["reason_codes"] = draw(
            st.lists(st.sampled_from(["C1", "C2", "C3"]), min_size=1, max_size=2, unique=True)
        )
    if draw(st.integers(0, 9)):
        rule["if"] = draw(conditions())
    if draw(st.booleans()):
        more = ["no_match"] if stage in ("ESCALATIONS", "ALLOW_PATHS") else []
        rule["on_missing"] = draw(st.sampled_from(["deny", "abstain", "escalate", *more]))
    return rule


@st.composite
def policies(draw):
    policy = {"rules": [draw(rules(number)) for number in range(draw(st.integers(0, 6)))]}
    if draw(st.booleans()):
        policy["fx"] = {"EUR": draw(st.sampled_from([1.08, 2, 0.5]))}
    if draw(st.booleans()):
        policy["default"] = {"verdict": draw(st.sampled_from(["ALLOW", "DENY", "ABSTAIN"])), "reason_codes": ["D"]}
    return policy


ODD = st.sampled_from(
    [None, [], ["a", 1, True, None], {}, {"b": 1}, {"b": {"c": "a"}}, float("nan"), float("inf"), [[1]]]
)
VALUES = st.one_of(SCALARS, SCALARS, ODD)
SECTION = st.one_of(
    st.dictionaries(
        st.sampled_from(
            [
                "risk",
                "flag",
                "tier",
                "tags",
                "a",
                "a.b",
                "a.b.c",
                "foo",
                "foo.bar",
                "channel",
                "model",
                "note",
                "evidence",
                "all",
            ]
        ),
        VALUES,
        max_size=8,
    ),
    ODD,
)
AMOUNT = st.one_of(
    VALUES,
    st.fixed_dictionaries({}, optional={"value": VALUES, "currency": st.sampled_from(["USD", "EUR", "GBP", None, 1])}),
)


def requests():
    action = st.fixed_dictionaries({"type": st.sampled_from(ACTIONS)}, optional={"amount": AMOUNT})
    return st.fixed_dictionaries(
        {
            "action": st.one_of(action, action, action, action, ODD, st.fixed_dictionaries({"type": ODD})),
            "subject": st.one_of(st.just({"type": "user", "id": "a"}), ODD),
        },
        optional={
            "tenant": st.sampled_from(["default", "b", None]),
            "evidence": SECTION,
            "context": st.one_of(st.fixed_dictionaries({"inline": SECTION}), SECTION),
            "provenance": SECTION,
        },
    )


MEMORY = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {},
        optional={
            "available": VALUES,
            "failure_similarity": VALUES,
            "nearby": st.one_of(st.fixed_dictionaries({"failure_rate": VALUES}), ODD),
        },
    ),
)
TIMES = st.integers(0, 4102444800000)


def written(policy):
    return json.dumps(policy).encode()


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), st.lists(requests(), min_size=1, max_size=4), TIMES, MEMORY)
def test_the_engine_decides_as_the_naive_interpreter_does(policy, asked, time_ms, memory):
    compiled = load_policy(written(policy), name="p.json")
    for request in asked:
        got = compiled.evaluate(request, time_ms=time_ms, memory=memory)
        hits = [(hit.id, hit.outcome, hit.effect) for hit in got.hits]
        assert (got.verdict, list(got.reason_codes), hits) == decide(policy, request, time_ms, memory)
        event(got.verdict)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), requests(), TIMES, MEMORY)
def test_every_hit_is_explained_by_facts_that_a_record_can_hold(policy, request, time_ms, memory):
    compiled = load_policy(written(policy), name="p.json")
    got = compiled.evaluate(request, time_ms=time_ms, memory=memory)
    for hit in got.hits:
        encode(list(hit.facts))
        unknown = [fact for fact in hit.facts if fact.get("missing") or fact.get("wrong_type")]
        if hit.outcome == "matched":
            assert not unknown
            assert not hit.missing
        else:
            assert unknown == list(hit.facts)
            assert set(hit.missing) == {fact["fact"] for fact in unknown} != set()
    again = resolve(got.hits, got.default_verdict, got.default_reason_codes)
    assert (again.verdict, again.reason_codes) == (got.verdict, got.reason_codes)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), requests(), TIMES, MEMORY)
def test_the_generated_code_and_the_explanation_say_the_same(policy, request, time_ms, memory):
    compiled = load_policy(written(policy), name="p.json")
    for index, certain, values in compiled._program.find(request, time_ms, memory):
        assert explain(compiled.rules[index].condition, values)[0] is certain


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), requests(), TIMES)
def test_a_rule_said_never_to_match_never_does_and_a_shadowed_one_changes_no_verdict(policy, request, time_ms):
    report = check_policy(written(policy), name="p.json")
    assert report.policy is not None
    never = {line.split("rule `")[1].split("`")[0] for line in report.warnings if "can never match" in line}
    shadowed = {line.split("rule `")[1].split("`")[0] for line in report.warnings if "can't change" in line}
    got = report.policy.evaluate(request, time_ms=time_ms)
    assert not {hit.id for hit in got.hits if hit.outcome == "matched"} & never
    others = [hit for hit in got.hits if hit.id not in shadowed]
    assert resolve(others, got.default_verdict, got.default_reason_codes).verdict == got.verdict
    event(f"shadowed {len(shadowed)}, never {len(never)}")
