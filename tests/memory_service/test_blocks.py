"""Vectors are fixed point, so a float32 dot product is exact integer arithmetic in any order of summation."""

from __future__ import annotations

import numpy as np
import pytest
from hashing_embedder import Hashing
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from memory_service.blocks import (
    BLOCKS,
    CATEGORY_DIMS,
    MOST_TEXT_DIMS,
    NUMBER_DIMS,
    SCALE,
    SLICES,
    UNIT,
    categories_block,
    fixed_point,
    numbers_block,
    score_of,
)
from memory_service.vectoriser import Vectoriser, largest_dot, query_of
from schemas.errors import BadConfig

WEIGHTS = {"text": 0.3, "categories": 0.4, "numbers": 0.3}
NAMES = st.sampled_from(["a", "action.amount.value", "evidence.risk", "é", "\ud800"])
NUMBERS = st.lists(st.tuples(NAMES, st.floats(allow_nan=False)), min_size=1, max_size=6)
CATEGORIES = st.lists(st.text(max_size=12), min_size=1, max_size=8, unique=True)
PARTS = st.builds(
    lambda intent, tier, amount, risk: {
        "action": {"type": "refund", "intent": intent, "amount": amount},
        "evidence": {"tier": tier, "risk": risk, "vip": risk > 0.5},
    },
    st.sampled_from(["", "customer asks for a late refund", "send the parcel again", "你好 refund"]),
    st.text(max_size=6),
    st.floats(0, 1e12),
    st.floats(0, 1),
)


def numbers(name, value):
    return numbers_block([(name, value)])


def score(one, other) -> float:
    return score_of(int(one.astype(np.int64) @ other.astype(np.int64)))


@given(npst.arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e3, 1e3)))
def test_a_block_is_whole_numbers_of_unit_length_or_zero(raw):
    block = fixed_point(raw)
    assert block.dtype == np.float32
    assert np.array_equal(block, np.rint(block))
    length = float(np.sqrt((block.astype(np.int64) ** 2).sum()))
    if float(np.dot(raw, raw)) > 0:
        assert abs(length - SCALE) <= 0.5 * np.sqrt(len(raw)) + 1e-6
    else:
        assert length == 0


@given(NUMBERS)
def test_the_numbers_block_has_unit_length_for_any_numbers(given_numbers):
    block = numbers_block(given_numbers)
    length = np.linalg.norm(block.astype(np.float64))
    assert np.isfinite(block).all()
    assert length == 0 or abs(length / SCALE - 1) < 0.003


@given(CATEGORIES)
def test_the_categories_block_depends_on_the_set_not_on_the_order(categories):
    block = categories_block(categories)
    assert np.array_equal(block, categories_block(categories[::-1]))
    length = np.linalg.norm(block.astype(np.float64))
    assert length == 0 or abs(length / SCALE - 1) < 0.003


@given(st.lists(PARTS, min_size=2, max_size=6), st.tuples(*[st.floats(0, 1)] * 3), st.integers(0, 2**32))
def test_float32_dot_products_equal_integer_arithmetic_in_any_order(vectoriser, parts, weights, seed):
    vectors = vectoriser.vectorise(parts)
    named = dict(zip(BLOCKS, weights, strict=True))
    query = query_of(vectors[0], named)
    matrix = np.stack([v.values for v in vectors])
    shuffled = np.random.default_rng(seed).permutation(vectoriser.dimensions)
    for weighted in (query.full, query.without_text):
        if weighted is None:
            continue
        exact = matrix.astype(np.int64) @ weighted.astype(np.int64)
        assert np.array_equal(matrix @ weighted, exact)
        assert np.array_equal(np.ascontiguousarray(matrix[:, shuffled]) @ weighted[shuffled], exact)
        one_by_one = np.zeros(len(matrix), dtype=np.float32)
        for column in range(vectoriser.dimensions):
            one_by_one += matrix[:, column] * weighted[column]
        assert np.array_equal(one_by_one, exact)
        assert (np.abs(matrix.astype(np.int64)) @ np.abs(weighted.astype(np.int64))).max() <= largest_dot(vectoriser.dimensions)


@pytest.mark.parametrize("text_dims", [1, 256, 384, MOST_TEXT_DIMS])
def test_no_partial_sum_can_leave_what_float32_holds_exactly(text_dims):
    """Every component of every block is rounded up by a half, in the point, and twice in the query."""
    total = 0.0
    for dims, weight in ((text_dims, 0.2), (CATEGORY_DIMS, 0.5), (NUMBER_DIMS, 0.3)):
        point = np.full(dims, SCALE / np.sqrt(dims) + 0.5)
        total += float(point @ (weight * point + 0.5))
    assert total <= largest_dot(text_dims + CATEGORY_DIMS + NUMBER_DIMS) < 2**24


@pytest.mark.parametrize("text_dims", [1, 3, 384, 1536, MOST_TEXT_DIMS])
def test_the_text_block_is_as_long_as_the_embedder_says_and_scores_stay_exact(text_dims):
    vectoriser = Vectoriser(Hashing(text_dims))
    parts = [
        {"action": {"type": "refund", "intent": f"late parcel {word}", "amount": amount, "channel": word}}
        for word in ("one", "two", "three") for amount in (20, 500, 20_000)
    ]  # fmt: skip
    vectors = vectoriser.vectorise(parts)
    assert {len(v.values) for v in vectors} == {text_dims + CATEGORY_DIMS + NUMBER_DIMS} == {vectoriser.dimensions}
    matrix = np.stack([v.values for v in vectors])
    for vector in vectors:
        query = query_of(vector, {"text": 0.3, "categories": 0.4, "numbers": 0.3})
        exact = matrix.astype(np.int64) @ query.full.astype(np.int64)
        assert np.array_equal(matrix @ query.full, exact)
        assert np.array_equal(matrix[:, ::-1] @ query.full[::-1], exact)


@pytest.mark.parametrize("text_dims", [0, MOST_TEXT_DIMS + 1])
def test_an_embedder_whose_scores_would_not_be_exact_is_refused(text_dims):
    with pytest.raises(BadConfig, match=f"gives {text_dims} dimensions, the text block takes 1 to {MOST_TEXT_DIMS}"):
        Vectoriser(Hashing(text_dims))


@given(PARTS, PARTS, st.tuples(*[st.floats(0, 1)] * 3).filter(any))
def test_no_two_requests_are_more_alike_than_a_request_and_itself_nearly(vectoriser, one, other, weights):
    a, b = vectoriser.vectorise([one, other])
    query = query_of(a, dict(zip(BLOCKS, weights, strict=True))).full
    assert score(query, b.values) <= 1
    assert score(query, b.values) <= score(query, a.values) + 0.01


def test_a_request_meets_itself_at_almost_one(vectoriser):
    part = {"action": {"intent": "late refund", "amount": 20}, "evidence": {"tier": "gold"}}
    vector = vectoriser.vectorise([part])[0]
    assert score(query_of(vector, WEIGHTS).full, vector.values) > 0.998


def test_500_and_600_are_alike_twice_as_much_is_less_and_a_thousand_times_is_not():
    base = numbers("amount", 500)
    assert score(base, numbers("amount", 500)) > 0.99
    assert 0.95 < score(base, numbers("amount", 600)) < 0.99
    assert 0.5 < score(base, numbers("amount", 1000)) < 0.7
    assert score(numbers("amount", 20), numbers("amount", 20_000)) < 0.1
    assert score(base, numbers("amount", -500)) < 0.1
    assert score(base, numbers("weight", 500)) < 0.6


@given(st.floats(1, 1e6))
def test_nearer_magnitudes_are_more_alike(value):
    base = numbers("amount", value)
    scores = [score(base, numbers("amount", value * factor)) for factor in (1, 1.5, 2.5, 5)]
    assert scores == sorted(scores, reverse=True)


def test_a_changed_category_costs_its_share():
    gold = categories_block(["tier=gold", "channel=chat", "region=eu", "vip=true"])
    new = categories_block(["tier=new", "channel=chat", "region=eu", "vip=true"])
    assert 0.6 < score(gold, new) < 0.9
    assert abs(score(gold, categories_block(["x=1", "y=2", "z=3", "w=4"]))) < 0.5


def test_hashing_is_what_it_always_was():  # golden: stored vectors must meet the same queries for ever
    assert np.flatnonzero(categories_block(["evidence.tier=gold"])).tolist() == [24, 28, 93, 118]
    assert numbers("action.amount.value", 500)[:6].tolist() == [350, -262, 107, 76, 240, 343]


def test_weights_multiply_the_query_only_and_are_shared_by_the_blocks_there_are(vectoriser):
    full, no_text = vectoriser.vectorise(
        [
            {"action": {"intent": "late refund", "amount": 20}, "evidence": {"tier": "gold"}},
            {"action": {"amount": 20}, "evidence": {"tier": "gold"}},
        ]
    )
    query = query_of(no_text, WEIGHTS)
    assert query.coverage == 0.7
    assert query.without_text is None
    assert score(query.full, full.values) > 0.99, "a missing block takes nothing away"
    assert query_of(full, WEIGHTS).coverage == 1
    categories = np.linalg.norm(query.full[SLICES["categories"]].astype(np.float64))
    assert abs(categories / SCALE - 4 / 7) < 0.01


def test_a_block_without_weight_does_not_count(vectoriser):
    vector = vectoriser.vectorise([{"action": {"intent": "late refund", "amount": 20}}])[0]
    query = query_of(vector, {"text": 0, "categories": 0.5, "numbers": 0.5})
    assert not query.full[SLICES["text"]].any()
    assert query.coverage == 0.5


def test_a_request_that_says_nothing_has_an_empty_query(vectoriser):
    vector = vectoriser.vectorise([{"action": {"type": "refund"}}])[0]
    query = query_of(vector, WEIGHTS)
    assert (vector.blocks, vector.facts) == (frozenset(), 0)
    assert not query.full.any() and query.without_text is None and query.coverage == 0


def test_text_alone_leaves_nothing_without_text(vectoriser):
    vector = vectoriser.vectorise([{"action": {"intent": "late refund"}}])[0]
    assert query_of(vector, WEIGHTS).without_text is None


@given(st.lists(PARTS, min_size=1, max_size=5))
def test_a_vector_does_not_depend_on_the_batch(vectoriser, parts):
    together = vectoriser.vectorise(parts)
    alone = [vectoriser.vectorise([part])[0] for part in parts]
    assert all(np.array_equal(a.values, b.values) for a, b in zip(together, alone, strict=True))


def test_the_vectorisers_id_names_the_embedder(vectoriser, embedder):
    assert embedder.id in vectoriser.id


@pytest.mark.parametrize(
    ("dot", "expected"), [(UNIT, 1), (UNIT + 9, 1), (0, 0), (UNIT // 2, 0.5), (-UNIT // 2, -0.5)]
)
def test_a_score_is_the_share_of_unit_length_at_most_one(dot, expected):
    assert score_of(dot) == expected
