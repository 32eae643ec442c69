"""The rate of "allowing would be wrong" near a request, and its interval."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_service.nearby import UNKNOWN, weighted_rate, wilson

NEIGHBOURS = st.lists(st.tuples(st.floats(0.05, 1), st.booleans()), min_size=1, max_size=30)


@pytest.mark.parametrize(
    ("wrong", "n", "lower", "upper"),
    [  # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(wrong, n, lower, upper):
    low, high = wilson(wrong / n, n)
    assert (round(low, 4), round(high, 4)) == (lower, upper)
    rate = weighted_rate([(1.0, k < wrong) for k in range(n)])
    assert (round(rate.lower, 4), round(rate.upper, 4)) == (lower, upper)
    assert rate.n_effective == n
    assert rate.rate == pytest.approx(wrong / n, abs=1e-6)


@given(st.floats(0, 1), st.floats(0.01, 1e4))
def test_the_interval_solves_wilsons_equation(rate, n):
    z = NormalDist().inv_cdf(0.975)
    for bound in wilson(rate, n):
        assert abs((rate - bound) ** 2 - z * z * bound * (1 - bound) / n) < 1e-6 * max(1, 1 / n)


@given(st.floats(0, 1), st.floats(0.01, 1e4))
def test_the_interval_holds_the_rate_and_stays_a_probability(rate, n):
    lower, upper = wilson(rate, n)
    assert 0 <= lower <= rate + 1e-12 and rate - 1e-12 <= upper <= 1


@pytest.mark.parametrize("nothing", [[], [(0.0, True)], [(-0.4, True), (-0.1, False)], [(1e-200, True)]])
def test_where_nothing_is_known_the_rate_is_null_and_the_interval_everything(nothing):
    assert weighted_rate(nothing) == UNKNOWN
    assert (UNKNOWN.rate, UNKNOWN.lower, UNKNOWN.upper, UNKNOWN.n_effective) == (None, 0, 1, 0)


@given(NEIGHBOURS)
def test_bounds_are_ordered_and_the_effective_size_is_at_most_the_number(neighbours):
    rate = weighted_rate(neighbours)
    assert 0 <= rate.lower <= rate.rate + 1e-6 <= rate.upper + 2e-6 <= 1 + 2e-6
    assert rate.n_effective + 1e-6 > 0 and rate.n_effective <= len(neighbours) + 1e-6


@given(NEIGHBOURS, st.floats(0.05, 1))
def test_another_harmful_neighbour_never_lowers_the_rate_or_its_upper_bound(neighbours, score):
    before, after = weighted_rate(neighbours), weighted_rate([*neighbours, (score, True)])
    assert after.rate >= before.rate - 1e-6
    assert after.upper >= before.upper - 1e-6


@given(NEIGHBOURS, st.floats(0.05, 1))
def test_another_fine_neighbour_never_raises_the_rate_or_its_lower_bound(neighbours, score):
    before, after = weighted_rate(neighbours), weighted_rate([*neighbours, (score, False)])
    assert after.rate <= before.rate + 1e-6
    assert after.lower <= before.lower + 1e-6


@given(NEIGHBOURS)
def test_the_order_of_neighbours_does_not_matter_beyond_rounding(neighbours):
    one, other = weighted_rate(neighbours), weighted_rate(neighbours[::-1])
    assert one.rate == pytest.approx(other.rate, abs=2e-6)
    assert one.upper == pytest.approx(other.upper, abs=2e-6)


def test_a_distant_neighbour_says_little():
    near, far = weighted_rate([(1.0, True)]), weighted_rate([(0.5, True)])
    assert far.n_effective == 0.0625 and near.n_effective == 1
    assert far.lower < near.lower
    mixed = weighted_rate([(1.0, False), (0.5, True)])
    assert mixed.rate == pytest.approx(0.0625 / 1.0625, abs=1e-6)


def test_numbers_in_the_record_are_rounded_to_six_places():
    rate = weighted_rate([(0.9, True), (0.8, False), (0.7, False)])
    for value in (rate.rate, rate.lower, rate.upper, rate.n_effective):
        assert value == round(value, 6) and math.isfinite(value)


SCORES = st.floats(-0.2, 1).map(lambda score: round(score, 4))
WORTHS = st.lists(st.tuples(SCORES, st.booleans(), st.floats(0.05, 1), st.floats(0, 1)), min_size=1)


@given(WORTHS)
def test_worth_weighs_each_in_the_rate(neighbours):
    pairs, worths = [one[:2] for one in neighbours], [one[2] for one in neighbours]
    found = weighted_rate(pairs, 1, worths)
    weights = [max(0.0, score) ** 4 * worth for score, _, worth, _ in neighbours]
    assert found.n_effective == pytest.approx(sum(weights), abs=1e-5)
    if sum(weights) > 1e-5:
        wrong = sum(weight for weight, (_, harmful) in zip(weights, pairs, strict=True) if harmful)
        assert found.rate == pytest.approx(wrong / sum(weights), abs=1e-5)
        assert found.lower <= found.rate <= found.upper


@given(WORTHS)
def test_less_worth_never_lowers_the_upper_end_whoever_is_worth_less(neighbours):
    """What a gate goes by: neither distrust nor age makes allowing look safer than it did."""
    pairs = [one[:2] for one in neighbours]
    for before in (None, [one[2] for one in neighbours]):
        after = [one[2] * one[3] for one in neighbours]
        assert weighted_rate(pairs, 1, after).upper >= weighted_rate(pairs, 1, before).upper - 1e-6


def test_where_all_are_worth_one_the_rate_is_what_it_was():
    pairs = [(0.9, True), (0.8, False), (0.7, False)]
    assert weighted_rate(pairs) == weighted_rate(pairs, 1, ()) == weighted_rate(pairs, 1, (1.0, 1.0, 1.0))


def test_what_is_worth_next_to_nothing_is_no_evidence():
    assert weighted_rate([(1.0, True), (1.0, False)], 1, [1e-300, 0.0]) == UNKNOWN
