"""Queries as Qdrant filters: which ones Qdrant answers alone, and how far a filter may go; points and their ids."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from record_index_model import NOW, built_queries, query, record, records, written_queries

from memory_service.qdrant.engine import Condition, EnginePoint, Filter, HasId, IsEmpty, Match, MatchAny
from memory_service.qdrant.engine import Range as Between
from memory_service.qdrant.query_filter import MOST_LEVELS, Bound, all_of, decided, fields_of, translate
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
from schemas.query import And, Expression, Field, Not, OneOf, Or, Query, Range, matches


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


def filters(bound: Bound) -> list[Filter]:
    if not isinstance(bound, Filter):
        return []
    return [bound, *(each for part in (*bound.must, *bound.should, *bound.must_not) for each in filters(part))]


@given(written_queries | built_queries, written_queries | built_queries, st.sampled_from(["a", "b"]))
def test_no_condition_stands_in_two_parts_of_a_filter(one: Query, other: Query, tenant: str) -> None:
    """Which Qdrant 1.18.3 answers wrongly; what is compared is a set there, whatever its order."""
    for asked in (And((one.expression, Not(other.expression))), And((one.expression, Not(one.expression)))):
        bounds = translate(asked)
        for bound in (bounds.sure, bounds.maybe, all_of([Match("tenant", tenant), bounds.maybe])):
            for each in filters(bound):
                parts = [set(part) for part in (each.must, each.should, each.must_not)]
                assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]), each
            for leaf in conditions(bound):
                listed = leaf.values if isinstance(leaf, MatchAny) else leaf.ids if isinstance(leaf, HasId) else ()
                assert list(listed) == sorted(set(listed))


def passes(bound: Bound, point: EnginePoint) -> bool:
    """What an engine does, in plain Python."""
    if isinstance(bound, bool):
        return bound
    if isinstance(bound, HasId):
        return point.id in bound.ids
    if isinstance(bound, Filter):
        return (
            all(passes(part, point) for part in bound.must)
            and not any(passes(part, point) for part in bound.must_not)
            and (not bound.should or any(passes(part, point) for part in bound.should))
        )
    found = point.payload.get(bound.key)
    values = found if isinstance(found, list) else [] if found is None else [found]
    match bound:
        case IsEmpty():
            return not values
        case Match(_, wanted):
            return wanted in values
        case MatchAny(_, wanted_any):
            return any(value in wanted_any for value in values)
        case Between(_, gt, gte, lt, lte):
            return any(
                (gt is None or value > gt) and (gte is None or value >= gte)
                and (lt is None or value < lt) and (lte is None or value <= lte)
                for value in values
            )  # fmt: skip
    raise AssertionError(bound)


@given(records, written_queries | built_queries, st.sampled_from([-math.inf, None, math.inf]))
def test_one_filter_passes_only_matches_and_the_other_every_match(
    item: dict, asked: Query, drift: float | None
) -> None:
    """Even when Qdrant holds a number a few units in the last place off, as after making an index anew."""
    point = drifted(record_point(index_row(item, 0, 0), "none"), drift)
    bounds, found = translate(asked.expression), matches(asked, facts_of(item, None))
    assert passes(bounds.sure, point) <= found <= passes(bounds.maybe, point)


def drifted(point: EnginePoint, towards: float | None) -> EnginePoint:
    """The point as Qdrant may hold it: its approximate numbers two units off."""
    payload = dict(point.payload)
    for name in payload.get("approximate", ()):
        if name in payload and towards is not None:
            payload[name] = math.nextafter(math.nextafter(payload[name], towards), towards)
    return EnginePoint(point.id, payload)


@pytest.mark.parametrize("text", [
    "(subject_id=a OR verdict=DENY) AND (subject_id=b OR verdict=ALLOW)", "NOT (subject_id=a AND verdict=DENY)",
    "(subject_id=a OR evidence.x=1) AND (verdict=DENY OR evidence.x=2)", "evidence.x=1 AND verdict=DENY",
    "NOT (evidence.x=1 OR NOT verdict=DENY) OR subject_id=b", "verdict=DENY OR evidence.x != 1",
    "NOT ((subject_id=a OR verdict=DENY) AND (subject_id=b OR verdict=ALLOW) AND NOT evidence.x=2)",
])  # fmt: skip
def test_and_or_and_not_keep_their_meaning(text: str) -> None:
    asked = query(text)
    bounds = translate(asked.expression)
    for subject in "abc":
        for verdict in ("ALLOW", "DENY"):
            for x in (1, 2):
                item = record(subject=subject, verdict=verdict, evidence={"x": x})
                point, found = record_point(index_row(item, 0, 0), "none"), matches(asked, facts_of(item))
                assert passes(bounds.sure, point) <= found <= passes(bounds.maybe, point)
                assert decided(asked.expression, facts_in(point)) in (None, found)


@pytest.mark.parametrize("towards", [-math.inf, math.inf])
@pytest.mark.parametrize("amount", [0.1 + 0.2, -2 / 3, 1e300, -1.5e308, 5e-324, 980.4296384295451])
def test_a_number_that_drifted_is_neither_lost_nor_taken_for_its_neighbour(amount: float, towards: float) -> None:
    item = record(amount=amount)
    point = drifted(record_point(index_row(item, 0, 0), "none"), towards)
    field = Field("amount", "number")
    near = [amount, math.nextafter(amount, -math.inf), math.nextafter(amount, math.inf)]
    for asked in [OneOf(field, (bound,)) for bound in (*near, None)] + [
        Range(field, *ends, above, below)
        for bound in near for ends in ((bound, None), (None, bound), (bound, bound))
        for above in (False, True) for below in (False, True)
    ]:  # fmt: skip
        bounds, found = translate(asked), matches(Query("", asked), facts_of(item, None))
        assert passes(bounds.sure, point) <= found <= passes(bounds.maybe, point), asked


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
            written = Decimal(repr(stored)).normalize().as_tuple()
            assert len(written.digits) <= 15 and abs(int(written.exponent)) <= 22 and stored != int(stored)


def test_every_number_has_an_index_of_numbers() -> None:
    assert {INDEXES[name] for name in NUMBERS} == {"float"} and INDEXES["tenant"] == "tenant"
    assert NOW < 2**53
