"""Proportions, pairs and many slices, against statsmodels and published figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar as oracle_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from schemas.errors import BadInput, UsageError
from streams.statistics.multiple import holm
from streams.statistics.paired import PairedCounts, mcnemar, paired_difference
from streams.statistics.proportions import WeightedCounts, clopper_pearson, weighted_interval, wilson_interval

COUNTS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
LEVELS = st.sampled_from([0.8, 0.9, 0.95, 0.99])
PAIRS = st.builds(PairedCounts, *[st.integers(0, 400)] * 4)


@given(COUNTS, LEVELS)
def test_wilson_and_clopper_pearson_are_those_of_statsmodels(counts, level):
    s, n = counts
    for interval, method in ((wilson_interval(s, n, level), "wilson"), (clopper_pearson(s, n, level), "beta")):
        lower, upper = proportion_confint(s, n, 1 - level, method)
        assert (interval.lower, interval.upper) == pytest.approx((lower, upper), abs=1e-9)
        assert 0 <= interval.lower <= interval.estimate + 1e-12 and interval.estimate - 1e-12 <= interval.upper <= 1


@given(COUNTS, LEVELS)
def test_failures_have_the_mirrored_interval_and_a_higher_level_a_wider_one(counts, level):
    s, n = counts
    for of in (wilson_interval, clopper_pearson):
        one, other, wider = of(s, n, level), of(n - s, n, level), of(s, n, 0.999)
        assert (one.lower, one.upper) == pytest.approx((1 - other.upper, 1 - other.lower), abs=1e-9)
        assert wider.lower <= one.lower + 1e-12 and wider.upper >= one.upper - 1e-12


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))))
def test_one_more_success_moves_both_bounds_up(counts):
    s, n = counts
    for of in (wilson_interval, clopper_pearson):
        assert of(s + 1, n).lower >= of(s, n).lower and of(s + 1, n).upper >= of(s, n).upper


def test_nothing_observed_is_everything_possible_and_nonsense_is_refused():
    assert wilson_interval(0, 0).estimate is None
    assert (wilson_interval(0, 0).lower, clopper_pearson(0, 0).upper) == (0, 1)
    assert wilson_interval(0, 0).warnings
    for bad in ((3, 2), (-1, 2), (float("nan"), 2)):
        with pytest.raises(BadInput):
            wilson_interval(*bad)
    with pytest.raises(UsageError, match="between 0 and 1"):
        wilson_interval(1, 2, 95)


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.01, 50))
def test_equal_weights_are_no_weights(outcomes, weight):
    counts = WeightedCounts()
    for outcome in outcomes:
        counts.add(outcome, weight)
    weighted, plain = weighted_interval(counts), wilson_interval(sum(outcomes), len(outcomes))
    assert (weighted.lower, weighted.upper) == pytest.approx((plain.lower, plain.upper), abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.floats(0.01, 50)), min_size=1, max_size=60))
def test_uneven_weights_are_worth_fewer_observations(observed):
    counts = WeightedCounts()
    for outcome, weight in observed:
        counts.add(outcome, weight)
    found = weighted_interval(counts)
    assert 1 - 1e-9 <= found.n_effective <= len(observed)
    assert found.lower <= found.estimate + 1e-9 and found.estimate <= found.upper + 1e-9
    assert found.estimate == pytest.approx(sum(w for o, w in observed if o) / sum(w for _, w in observed))


def test_a_heavy_observation_counts_as_hardly_more_than_itself():
    counts = WeightedCounts()
    counts.add(True, 1000)
    for _ in range(10):
        counts.add(False, 1)
    assert weighted_interval(counts).n_effective == pytest.approx(1010**2 / (1000**2 + 10))
    with pytest.raises(BadInput):
        counts.add(True, 0)


@given(PAIRS)
def test_mcnemar_is_that_of_statsmodels(counts):
    table = [[counts.both, counts.first_only], [counts.second_only, counts.neither]]
    if not counts.discordant:
        assert mcnemar(counts).p_value == 1
        return
    exact = oracle_mcnemar(table, exact=True).pvalue
    assert mcnemar(counts, "exact").p_value == pytest.approx(exact, abs=1e-9)
    if counts.first_only != counts.second_only:
        chi2 = oracle_mcnemar(table, exact=False, correction=True)
        found = mcnemar(counts, "chi2")
        assert (found.statistic, found.p_value) == pytest.approx((chi2.statistic, chi2.pvalue), abs=1e-9)
    middle = mcnemar(counts, "mid-p").p_value
    assert middle <= exact + 1e-12 and middle > 0
    assert mcnemar(counts).method == ("mcnemar, exact" if counts.discordant < 25 else "mcnemar, mid-p")


def test_a_published_example():
    """Bentur et al. 2009, as in Fagerland, Lydersen & Laake 2013 and 2014: 1, 1, 7, 12."""
    counts = PairedCounts(1, 1, 7, 12)
    assert round(mcnemar(counts, "exact").p_value, 3) == 0.070
    assert round(mcnemar(counts, "mid-p").p_value, 3) == 0.039
    found = paired_difference(counts)
    assert (round(found.lower, 3), round(found.upper, 3)) == (0.026, 0.507)


@given(PAIRS)
def test_the_test_and_the_interval_know_no_first_and_second(counts):
    swapped = PairedCounts(counts.both, counts.second_only, counts.first_only, counts.neither)
    negated = PairedCounts(counts.neither, counts.second_only, counts.first_only, counts.both)
    assert mcnemar(counts).p_value == pytest.approx(mcnemar(swapped).p_value)
    one, other, turned = paired_difference(counts), paired_difference(swapped), paired_difference(negated)
    assert (one.lower, one.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-9)
    assert (one.lower, one.upper) == pytest.approx((-turned.upper, -turned.lower), abs=1e-9)
    assert one.lower >= -1 and one.upper <= 1
    if counts.n:
        assert one.lower <= one.estimate + 1e-9 and one.estimate <= one.upper + 1e-9


@given(PAIRS)
def test_test_and_interval_mostly_agree(counts):
    """A clear p-value and an interval that holds 0 would leave a reader with nothing to believe."""
    p, found = mcnemar(counts, "exact").p_value, paired_difference(counts)
    if counts.discordant >= 10:
        assert not (p < 0.005 and not found.excludes(0))
        assert not (p > 0.2 and found.excludes(0))


def test_pairs_that_never_differ_still_leave_room():
    found = paired_difference(PairedCounts(90, 0, 0, 10))
    assert found.lower < 0 < found.upper
    assert mcnemar(PairedCounts(90, 0, 0, 10)).warnings
    with pytest.raises(BadInput):
        PairedCounts(1, -1, 0, 0)
    assert PairedCounts(1, 2, 3, 4) + PairedCounts(10, 20, 30, 40) == PairedCounts(11, 22, 33, 44)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=30))
def test_holm_is_that_of_statsmodels(p_values):
    found = holm(p_values)
    assert list(found) == list(p_values)
    expected = multipletests(list(p_values.values()), method="holm")[1]
    assert list(found.values()) == pytest.approx(list(expected), abs=1e-12)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({}) == {}
    with pytest.raises(BadInput, match="`b`"):
        holm({"a": 0.1, "b": float("nan")})
