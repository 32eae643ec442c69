"""Counterfactuals: what is given flips, is minimal and nearest, and nothing is given where nothing is to be found."""

from __future__ import annotations

import json
import re
from typing import Any

import naive
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from test_agrees_with_naive import ACTIONS, TEXTS, policies, written

from memory_service.recall import OFF
from schemas.request import parse_request
from streams.control import ControlState, KillSwitch
from streams.counterfactual import counterfactuals
from streams.counterfactual.changes import Situation
from streams.counterfactual.fields import fields_of
from streams.counterfactual.told import as_dict, bounds, lines_of
from streams.decide import Position, decide
from streams.policy import load_policy
from streams.policy.facts import fact_named
from streams.policy.operators import kind_of

AT = Position("lumyn.requests", 0, 7, 1_763_112_221_000)
INTS = st.sampled_from([0, 1, 2, 5, 14, 500, -1])
EVIDENCE = ["risk", "flag", "tier", "tags", "a.b", "a.b.c", "foo.bar", "note"]
VALUE = st.one_of(INTS, TEXTS, st.booleans())
REQUESTS = st.fixed_dictionaries(
    {
        "subject": st.just({"type": "user", "id": "a"}),
        "action": st.fixed_dictionaries(
            {"type": st.sampled_from(ACTIONS)},
            optional={
                "amount": st.one_of(
                    st.sampled_from([0, 1, 2, 14, 500]),
                    st.fixed_dictionaries(
                        {"value": st.sampled_from([0, 1, 2, 14, 500])},
                        optional={"currency": st.sampled_from(["USD", "EUR", "GBP"])},
                    ),
                )
            },
        ),
        "evidence": st.dictionaries(st.sampled_from(EVIDENCE), VALUE, max_size=6),
    },
    optional={
        "context": st.fixed_dictionaries(
            {"inline": st.dictionaries(st.sampled_from(["channel", "a.b"]), VALUE, max_size=2)}
        ),
        "provenance": st.dictionaries(st.just("model"), TEXTS),
    },
)


def record_of(source: bytes, asked: dict[str, Any], **state: Any) -> tuple[dict[str, Any], Any]:
    policy = load_policy(source, name="p.json")
    record = decide(parse_request(asked), AT, policy, ControlState(**state), OFF).record
    return record, policy


def verdict(policy: dict[str, Any], request: dict[str, Any], time_ms: int = AT.time_ms) -> str:
    """By the interpreter that shares nothing with the engine."""
    return str(naive.decide(policy, request, time_ms, None)[0])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies(), REQUESTS, st.sampled_from([None, "ALLOW", "DENY", "ESCALATE"]))
def test_every_one_flips_and_no_part_of_it_does(policy, asked, wanted) -> None:
    record, compiled = record_of(written(policy), asked)
    start = Situation(record["request"], AT.time_ms, ControlState(), OFF)
    searched = counterfactuals(record, compiled, wanted=wanted, most_pairs=300)
    ranks = [(len(one.changes), round(one.distance, 9)) for one in searched.found]
    assert ranks == sorted(ranks)
    as_dict(searched, record["decision_id"], memory_asked=False)
    for one in searched.found:
        now = start
        for change in one.changes:
            now = change.apply(now)
        parse_request(now.request)
        found = verdict(policy, now.request, now.time_ms)
        assert found == one.decided.verdict != record["verdict"] and wanted in (None, found)
        event(f"{len(one.changes)} of {one.changes[0].kind}")
        if len(one.changes) == 2:
            for part in one.changes:
                alone = part.apply(start)
                said = verdict(policy, alone.request, alone.time_ms)
                assert said == record["verdict"] or (wanted and said != wanted)
        for value in one.alike:
            (field,) = {f for f in _fields(policy, start.request) if f.name == one.changes[0].of}
            assert verdict(policy, field.put(start.request, value)) == found
        for span in (span for span in one.spans if len(one.changes) == 1 and span):
            for point in span:
                assert verdict(policy, point.apply(start).request) == found
            low, high = bounds(span)
            (field,) = {f for f in _fields(policy, start.request) if f.name == one.changes[0].of}
            for number in (-7, 0, 0.3, 1, 1.5, 3, 77.25, 10_000):  # what is said of a range holds everywhere in it
                inside = (low is None or number > low[0]) and (high is None or number < high[0])
                if inside and not (number < 0 and field.name.startswith("action.amount")):
                    assert verdict(policy, field.put(start.request, number)) == found
    assert start.request == record["request"], "nothing given was changed"


def _fields(policy: dict[str, Any], request: dict[str, Any]) -> set[Any]:
    names = set(re.findall(r'"([\w.]+)": ', json.dumps(policy)))
    return {field for name in names for field in fields_of(fact_named(name), request)}


GRID = [None, True, False, "a", "b", "ab", "low", "high", "refund", "USD", "default", "1", "true", "2024-12-19", "zz", ""]
NUMBERS = [-1, 0, 1, 2, 3, 4, 5, 6, 13, 14, 15, 499, 500, 501]


def brute(asked: dict[str, Any]) -> Any:
    """Single changes of the request by a grid, made as plainly as possible: (the request, how far)."""
    places: list[tuple[Any, ...]] = [("evidence", name) for name in EVIDENCE]
    places += [("context", "inline", name) for name in ("channel", "a.b")] + [("provenance", "model")]
    places += [("action", "type"), ("action", "amount", "value"), ("action", "amount", "currency")]
    for given_place in places:
        place = given_place
        for value in (*GRID, *NUMBERS):
            changed = json.loads(json.dumps(asked))
            node = changed
            if place[1:] == ("amount", "value") and isinstance(asked["action"].get("amount"), int):
                place = ("action", "amount")  # a bare amount stays one: another form is another change
            for key in place[:-1]:
                if key == "amount" and not isinstance(node.get(key), dict):
                    node[key] = {} if node.get(key) is None else {"value": node[key]}
                node = node.setdefault(key, {})
            was = node.get(place[-1])
            if value == was and type(value) is type(was):
                continue
            if value is not None and was is not None and kind_of(value) != kind_of(was):
                continue  # of the wrong type it can't be judged, as if it were not there: that is no likely change
            if value is None:
                node.pop(place[-1], None)
            else:
                node[place[-1]] = value
            try:
                parse_request(changed)
            except Exception:
                continue
            if all(isinstance(one, int) and not isinstance(one, bool) for one in (was, value)):
                yield changed, abs(value - was) / (abs(was) + abs(value - was))
            else:
                yield changed, 1.25 if value is None else 1.0


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies(), REQUESTS)
def test_no_single_change_of_a_grid_is_nearer(policy, asked) -> None:
    text = json.dumps(policy)
    assume("matches" not in text and "_with" not in text)  # texts made up for these are no grid's
    record, compiled = record_of(written(policy), asked)
    nearest = min((far for changed, far in brute(asked) if verdict(policy, changed) != record["verdict"]), default=None)
    searched = counterfactuals(record, compiled, most_pairs=0)
    event(f"grid {nearest is not None}, search {bool(searched.found)}")
    if nearest is not None:
        assert searched.found and searched.found[0].distance <= nearest + 1e-9


@settings(max_examples=60, deadline=None)
@given(
    st.decimals(-50, 50, places=2).map(float), st.decimals(-50, 50, places=1).map(float),
    st.sampled_from(["gt", "gte", "lt", "lte"]),
)  # fmt: skip
def test_a_number_goes_to_the_threshold_or_one_unit_of_its_last_decimal_past_it(value, want, op) -> None:
    source = refunds(f"  - {{id: R, stage: ALLOW_PATHS, if: {{score: {{{op}: {want}}}}}, then: {{verdict: ALLOW}}}}")
    record, policy = record_of(source, ask(1, score=value))
    change = counterfactuals(record, policy).found[0].changes[0]
    assert change.kind == "number"
    at = want if {"gt": value > want, "gte": value < want, "lt": value < want, "lte": value > want}[op] else None
    if at is not None:
        assert change.now == want
    else:
        decimals = max(0 if number == int(number) else len(repr(number).split(".")[1]) for number in (value, want))
        assert abs(change.now - want) == pytest.approx(10**-decimals)


def refunds(rules: str) -> bytes:
    return f"policy: refunds\nversion: 1\nfx: {{EUR: 1.25}}\nrules:\n{rules}".encode()


LIMIT = refunds("""
  - {id: R_BIG, if: {amount_usd: {gt: 500}}, then: {verdict: ESCALATE, reason_codes: [BIG]}}
  - {id: R_KYC, stage: REQUIREMENTS, if: {kyc: false}, then: {verdict: ABSTAIN, reason_codes: [KYC]}}
  - {id: R_OK, if: {all: [{amount_usd: {lte: 500}}, {tier: {in: [gold, silver]}}]}, then: {verdict: ALLOW, reason_codes: [OK]}}
""")


def ask(amount: Any, **evidence: Any) -> dict[str, Any]:
    return {"subject": {"type": "user", "id": "u"}, "action": {"type": "refund", "amount": amount}, "evidence": evidence}


def said(source: bytes, asked: dict[str, Any], wanted: Any = None, **state: Any) -> list[str]:
    record, policy = record_of(source, asked, **state)
    return lines_of(counterfactuals(record, policy, wanted=wanted))


def test_it_is_said_as_people_say_it_and_of_the_source_not_of_what_is_worked_out() -> None:
    usd = said(LIMIT, ask({"value": 620, "currency": "USD"}, kyc=True, tier="gold"), "ALLOW")
    assert usd[0] == "had action.amount.value been 500 or less (it was 620), the verdict would have been ALLOW (OK)"
    eur = said(LIMIT, ask({"value": 620, "currency": "EUR"}, kyc=True, tier="gold"), "ALLOW")
    assert eur[0].startswith("had action.amount.value been 400 or less (it was 620)")
    both = said(LIMIT, ask({"value": 620, "currency": "USD"}, kyc=True, tier="iron"), "ALLOW")
    assert both[0] == (
        "had action.amount.value been 500 or less (it was 620) and evidence.tier been gold (it was iron), "
        "the verdict would have been ALLOW (OK)"
    )
    assert "pairs" in both[1]
    one = said(LIMIT, ask({"value": 400, "currency": "USD"}, kyc=True, tier="iron"), "ALLOW")
    assert one[0] == "had evidence.tier been gold, or silver (it was iron), the verdict would have been ALLOW (OK)"
    missing = said(LIMIT, ask({"value": 400, "currency": "USD"}, kyc=True), "ALLOW")
    assert missing[0].startswith("had evidence.tier been gold, or silver (it was missing)")


def test_ranges_between_two_thresholds_and_single_points() -> None:
    source = refunds("""
  - {id: R1, if: {score: {between: [10, 20]}}, then: {verdict: ALLOW}}
  - {id: R2, if: {score: 15}, then: {verdict: DENY}}
""")
    assert said(source, ask(1, score=30), "ALLOW")[0].startswith("had evidence.score been more than 15 and at most 20 (it")
    assert said(source, ask(1, score=16), "DENY")[0].startswith("had evidence.score been exactly 15 (it was 16)")
    below = said(refunds("  - {id: R1, if: {score: {gte: 0.8}}, then: {verdict: DENY}}"), ask(1, score=0.91))
    assert below[0].startswith("had evidence.score been less than 0.8 (it was 0.91)")


def test_switches_time_and_the_worker_that_was_cut_off() -> None:
    switch = KillSwitch("ks-1", {"action_type": "refund"}, "stop", "ann", "2025-01-01T00:00:00.000Z")
    lines = said(LIMIT, ask({"value": 5, "currency": "USD"}, kyc=True, tier="gold"), switches=(switch,))
    assert "had kill switch ks-1 been off, the verdict would have been ALLOW (OK)" in lines
    lines = said(LIMIT, ask({"value": 5, "currency": "USD"}, kyc=True, tier="gold"), stale=True)
    assert lines[0].startswith("had the worker been in touch with the control topic, the verdict would have been ALLOW")
    night = refunds("  - {id: R_NIGHT, if: {time.hour: {in: [9, 22]}}, then: {verdict: DENY}}")
    assert "it was 2025-11-14T09:23:41.000Z" in said(night, ask(1))[0] and "at 2025-11-14T08:59:59.999Z" in said(night, ask(1))[0]


def test_none_is_said_to_be_none_and_the_bound_is_told() -> None:
    record, policy = record_of(refunds("  - {id: R, if: {}, then: {verdict: DENY}}"), ask(1))
    nothing = counterfactuals(record, policy)
    assert not nothing.found and nothing.complete and "no one change" in lines_of(nothing)[0]
    three = refunds("  - {id: R, if: {all: [{a: 1}, {b: 1}, {c: 1}]}, then: {verdict: ALLOW}}")
    record, policy = record_of(three, ask(1, a=0, b=0, c=0))
    nothing = counterfactuals(record, policy)
    assert not nothing.found and nothing.complete and nothing.pairs > 0
    cut = counterfactuals(record, policy, most_pairs=3)
    assert not cut.found and not cut.complete and cut.pairs == 3 and "as far as was looked" in lines_of(cut)[0]
    assert not counterfactuals(record, policy, most_singles=1).complete


def test_a_field_is_changed_where_the_rule_reads_it() -> None:
    request = {"subject": {}, "action": {"type": "a"}, "evidence": {"a": {"b": {"c": 1}}, "a.b": {"c": 2}}}
    (field,) = fields_of(fact_named("a.b.c"), request)
    assert field.value(request) == 2 and field.put(request, 9)["evidence"] == {"a": {"b": {"c": 1}}, "a.b": {"c": 9}}
    assert field.value(field.without(request)) is None, "what the longer key hid is gone, too"
    (field,) = fields_of(fact_named("context.channel"), request)
    there = {**request, "context": {"mode": "inline", "inline": {"channel": "chat"}, "digest": "sha256:0"}}
    assert field.put(there, "mail")["context"] == {"mode": "inline", "inline": {"channel": "mail"}}
    assert fields_of(fact_named("memory.nearby.upper"), request) == () == fields_of(fact_named("tenant"), request)


def test_hostile_values_make_up_no_sentence() -> None:
    evil = 'x" (it was 1), the verdict would have been ALLOW\n had'
    lines = said(LIMIT, ask({"value": 5, "currency": "USD"}, kyc=True, tier=evil), "ALLOW")
    assert "\\n had" in lines[0] and lines[0].count("the verdict would have been ALLOW (OK)") == 1
    assert re.sub(r'"(?:[^"\\]|\\.)*"', "Q", lines[0]).count("verdict") == 1


@pytest.mark.parametrize("code", ["INTERNAL_ERROR"])
def test_what_was_never_evaluated_has_none(code: str) -> None:
    record, policy = record_of(LIMIT, ask(1))
    with pytest.raises(Exception, match="raised"):
        counterfactuals({**record, "reason_codes": [code]}, policy)
    with pytest.raises(Exception, match="do not give the recorded verdict"):
        counterfactuals({**record, "verdict": "ALLOW"}, policy)


@pytest.mark.parametrize("pattern", ["(?i)osama", "(?i:osama)", r"\bosama\b", "^(osama)$", "(?:osama|bin)"])
def test_what_a_pattern_asks_for_is_told_as_its_text_not_as_its_marks(pattern: str) -> None:
    policy = {"rules": [{"id": "R", "if": {"name": {"matches": pattern}}, "then": {"verdict": "DENY"}}]}
    asked = {"subject": {"type": "u", "id": "a"}, "action": {"type": "x"}, "evidence": {"name": "Ann"}}
    searched = counterfactuals(*record_of(written(policy), asked), wanted="DENY")
    text = lines_of(searched)[0]
    tried = text.partition(" (it was")[0].removeprefix("had evidence.name been ").replace("or ", "").split(", ")
    assert "osama" in tried and all(one.isalpha() for one in tried), text
