"""Queries as Qdrant filters: which ones Qdrant answers alone, and how far a filter may go; points and their ids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_index_model import NOW, built_queries, query, record, records, written_queries

from memory_service.qdrant.engine import Condition, Filter, HasId
from memory_service.qdrant.query_filter import MOST_LEVELS, Bound, decided, fields_of, translate
from memory_service.qdrant.record_points import (
    INDEXES,
    NUMBERS,
    facts_in,
    label_point_id,
    listed,
    named,
    point_id,
    rank_of,
    record_point,
)
from memory_service.record_index import facts_of, index_row
from schemas.ids import decision_id
from schemas.query import And, Expression, Not, OneOf, Or, Query, matches


def conditions(bound: Bound) -> list[Condition]:
    if isinstance(bound, bool):
        return []
    if not isinstance(bound, Filter):
        return [bound]
    return [leaf for part in (*bound.must, *bound.should, *bound.must_not) for leaf in conditions(part)]


def levels(bound: Bound) -> int:
    if not isinstance(bound, Filter):
        return 0
    return 1 + max(map(levels, (*bound.must, *bound.should, *bound.must_not)), default=0)


@pytest.mark.parametrize("text", [
    "verdict=DENY AND action_type=refund AND created_at > '2024-12-19 14:00'", "reason=STORAGE_UNAVAILABLE",
    "rule=R1 OR NOT (policy=refunds@4 AND label != failure)", "tenant IN (a, b)", "subject_id = null",
    "created_at BETWEEN '14:00' AND '15:00'", "request_id=r1 OR decision_id=01JFG000000000000000000000",
    "inputs_digest = x AND engine != y AND currency NOT IN (USD, EUR) AND subject_type=user",
])  # fmt: skip
def test_qdrant_alone_answers_it(text: str) -> None:
    assert translate(query(text).expression).exact


@pytest.mark.parametrize("text", ["amount >= 100", "amount_usd BETWEEN 1 AND 2", "failure_similarity > 0.9", "amount=1",
                                  "provenance.model=m1", "NOT provenance.model IN (m1, m2)"])  # fmt: skip
def test_qdrant_answers_all_but_odd_cases(text: str) -> None:
    bounds = translate(query(text).expression)
    assert bounds.sure not in (True, False) and bounds.maybe not in (True, False) and not bounds.exact


@pytest.mark.parametrize("text", ["evidence.risk > 0.5", "context.channel=chat", "NOT action.sku=1", "subject.tier=x"])
def test_only_the_record_answers_it(text: str) -> None:
    bounds = translate(query(text).expression)
    assert (bounds.sure, bounds.maybe) == (False, True)


def test_what_the_index_knows_narrows_what_it_does_not() -> None:
    bounds = translate(query("verdict=DENY AND evidence.risk > 0.5").expression)
    assert bounds.sure is False and bounds.maybe == translate(query("verdict=DENY").expression).sure


@given(written_queries | built_queries)
def test_every_condition_is_on_a_key_that_has_an_index(asked: Query) -> None:
    bounds = translate(asked.expression)
    for condition in conditions(bounds.sure) + conditions(bounds.maybe):
        assert isinstance(condition, HasId) or condition.key in INDEXES  # type: ignore[union-attr]
        assert not isinstance(condition, Filter)


@given(records, written_queries | built_queries, st.sampled_from(["none", "failure"]))
def test_what_a_point_decides_is_what_the_record_says(item: dict, asked: Query, label: str) -> None:
    point = record_point(index_row(item, 0, 0), label)
    told = decided(asked.expression, facts_in(point))
    assert told in (None, matches(asked, facts_of(item, label)))
    fields = fields_of(asked.expression)
    part = type(point)(point.id, {key: value for key, value in point.payload.items() if key in fields})
    assert decided(asked.expression, facts_in(part)) is told


@pytest.mark.parametrize("nesting", [10, 64, 300])
def test_a_filter_never_nests_deeper_than_a_server_decodes(nesting: int) -> None:
    asked: Expression = query("verdict=DENY").expression
    for level in range(nesting):
        inner = query(f"subject_id = u{level}").expression
        asked = (And((inner, asked)), Or((inner, asked)), Not(asked))[level % 3]
    bounds = translate(asked)
    assert 1 <= max(levels(bounds.sure), levels(bounds.maybe)) <= MOST_LEVELS
    assert bounds.exact is (nesting <= 64)


def test_what_is_said_twice_is_asked_once() -> None:
    once = translate(query("subject_id=a AND NOT verdict=DENY").expression)
    assert translate(query(" AND ".join(["subject_id=a AND NOT verdict=DENY"] * 500)).expression) == once


def test_values_of_another_type_never_match() -> None:
    for field in ("amount", "amount_usd"):
        bounds = translate(OneOf(query(f"{field}=1").expression.field, ("x", True)))  # type: ignore[union-attr]
        assert bounds.sure is False and bounds.maybe is False


@given(st.integers(0, 2**47), st.integers(0, 2**47), st.integers(0, 10**9), st.integers(0, 10**9))
def test_points_are_in_the_order_of_their_decisions(at: int, other_at: int, offset: int, other_offset: int) -> None:
    one, other = sorted((decision_id("t", 0, offset, at), decision_id("t", 0, other_offset, other_at)))
    assert point_id(one) <= point_id(other) and rank_of(one) <= rank_of(other) <= 2**53 - 1
    assert (point_id(one) == point_id(other)) is (one == other)
    assert label_point_id("tenant", one) > point_id(decision_id("t", 0, 0, 253_402_300_799_999))


def test_labels_of_two_tenants_or_decisions_have_points_of_their_own() -> None:
    made = {label_point_id(tenant, name) for tenant in ("a", "ab", "") for name in ("b", "bb", "")}
    assert len(made) == 9


@given(st.text("=%3D25a"), st.text("=%3D25a"), st.text("=%3D25a"), st.text("=%3D25a"))
def test_no_two_provenance_strings_share_a_keyword(name: str, value: str, other: str, its: str) -> None:
    assert (named(name, value) == named(other, its)) is ((name, value) == (other, its))


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**60))
def test_a_number_comes_back_whatever_qdrant_makes_of_its_last_digits(number: float) -> None:
    """What Qdrant may change is beside the number in words; what is not, it reads exactly (15 digits, 1e22)."""
    row = index_row(record(amount=number), 0, 0)
    point = record_point(row, "none")
    stored = point.payload.get("amount")
    if "amount" in point.payload.get("approximate", ()):
        assert stored is None or (stored == number and abs(stored) <= 1e300)
        drifted = {**point.payload, "amount": stored and math.nextafter(stored, math.inf)}
        assert listed(facts_in(type(point)(point.id, drifted))).amount == number
    else:
        assert stored == number
        if isinstance(stored, float):
            exponent = f"{stored:.16e}".partition("e")[2]
            assert float(f"{stored:.14e}") == stored
            assert abs(int(exponent)) <= 22


def test_every_number_has_an_index_of_numbers() -> None:
    assert {INDEXES[name] for name in NUMBERS} == {"float"} and INDEXES["tenant"] == "tenant"
    assert NOW < 2**53
