"""Cluster-robust statistics against statsmodels, against the definitions written out, and in what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from memory_service.nearby import wilson
from schemas.errors import BadInput
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import (
    cluster_difference,
    cluster_mean,
    cluster_proportion,
    difference_test,
    robust,
    wideness,
)
from streams.statistics.estimate import t_value
from streams.statistics.paired import PairedCounts, paired_difference
from streams.statistics.proportions import wilson_interval

CLUSTERED = st.lists(
    st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 1.0]), st.floats(0.1, 9)), min_size=1, max_size=6),
    min_size=2,
    max_size=12,
)


def sums_of(clusters, most=4096):
    sums = ClusterSums(most)
    for name, values in enumerate(clusters):
        for value in values:
            sums.add(str(name), *(value if isinstance(value, tuple) else (value,)))
    return sums


@given(st.integers(1, 5), st.integers(3, 25), st.integers(0, 2**32 - 1))
def test_clusters_of_one_size_give_the_sandwich_of_statsmodels(size, clusters, seed):
    values = np.random.default_rng(seed).integers(-1, 2, (clusters, size)).astype(float)
    sums = sums_of(values.tolist())
    found = robust(sums)
    groups = np.repeat(np.arange(clusters), size)
    fit = sm.OLS(values.ravel(), np.ones(values.size)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "df_correction": True}, use_t=True
    )
    assert found.variance == pytest.approx(float(fit.bse[0]) ** 2, abs=1e-12)
    assert found.df == pytest.approx(clusters - 1)
    interval = cluster_mean(sums)
    assert (interval.lower, interval.upper) == pytest.approx(tuple(fit.conf_int()[0]), abs=1e-9)
    if found.variance > 1e-12:
        assert difference_test(sums).p_value == pytest.approx(float(fit.pvalues[0]), abs=1e-9)


@given(CLUSTERED)
def test_the_variance_is_the_jackknifes_over_whole_clusters(clusters):
    def ratio(rows):
        return sum(v * w for row in rows for v, w in row) / sum(w for row in rows for _, w in row)

    left_out = [ratio(clusters[:k] + clusters[k + 1 :]) for k in range(len(clusters))]
    whole, count = ratio(clusters), len(clusters)
    found = robust(sums_of(clusters))
    assert found.mean == pytest.approx(whole, abs=1e-9)
    assert found.variance == pytest.approx((count - 1) / count * sum((x - whole) ** 2 for x in left_out), abs=1e-9)


@given(CLUSTERED)
def test_degrees_of_freedom_are_bell_and_mccaffreys(clusters):
    weights = np.array([sum(w for _, w in row) for row in clusters])
    share = weights / weights.sum()
    scale = np.diag(1 / (1 - share))
    residual = np.eye(len(weights)) - np.outer(share, np.ones(len(weights)))
    expected = [len(weights) - 1.0]
    for variances in (weights, weights**2):
        made = scale @ residual @ np.diag(variances) @ residual.T @ scale
        expected.append(np.trace(made) ** 2 / np.trace(made @ made))
    assert robust(sums_of(clusters)).df == pytest.approx(max(1.0, min(expected)), rel=1e-6)


def test_one_large_cluster_leaves_few_degrees_of_freedom():
    even, uneven = sums_of([[0.0, 1.0]] * 30), sums_of([[0.0, 1.0]] * 29 + [[0.0, 1.0] * 200])
    assert robust(even).df == pytest.approx(29)
    assert robust(uneven).df < 3
    assert any("one subject (or cluster) has" in warning for warning in cluster_proportion(uneven).warnings)


@given(st.lists(st.booleans(), min_size=30, max_size=80))
def test_decisions_of_their_own_subjects_have_nearly_wilsons_interval(outcomes):
    sums = sums_of([[float(outcome)] for outcome in outcomes])
    robustly, plain = cluster_proportion(sums), wilson_interval(sum(outcomes), len(outcomes))
    assert robustly.lower <= plain.lower + 1e-9 and robustly.upper >= plain.upper - 1e-9
    assert robustly.lower == pytest.approx(plain.lower, abs=0.02)
    assert robustly.upper == pytest.approx(plain.upper, abs=0.02)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=3, max_size=40))
def test_no_interval_is_wider_than_if_each_subject_were_all_or_nothing(clusters):
    sums = ClusterSums()
    for name, (n, share) in enumerate(clusters):
        sums.add_many(str(name), n, round(share * n))
    found, interval = robust(sums), cluster_proportion(sums)
    size = min(interval.n_effective, found.clusters_effective)
    lower, upper = wilson(interval.estimate, size, t_value(0.95, found.df))
    assert interval.lower >= lower - 1e-12 and interval.upper <= upper + 1e-12
    assert 0 <= interval.lower <= interval.estimate + 1e-12 and interval.estimate - 1e-12 <= interval.upper <= 1
    assert found.carriers <= len(clusters) + 1e-9


def test_clones_add_nothing():
    """Ten times the same decisions of the same subjects are what they were once."""
    outcomes = [1.0, 0.0, 0.0, 1.0, 0.0] * 10
    once = cluster_proportion(sums_of([[value] for value in outcomes]))
    tenfold = cluster_proportion(sums_of([[value] * 10 for value in outcomes]))
    assert (tenfold.lower, tenfold.upper) == pytest.approx((once.lower, once.upper), abs=0.003)
    naive = wilson_interval(sum(outcomes) * 10, len(outcomes) * 10)
    assert tenfold.upper - tenfold.lower > 3 * (naive.upper - naive.lower)


@given(CLUSTERED, st.randoms(use_true_random=False))
def test_neither_order_nor_names_nor_merging_matter(clusters, random):
    rows = [(f"c{k}", value, weight) for k, row in enumerate(clusters) for value, weight in row]
    expected = robust(sums_of(clusters))
    random.shuffle(rows)
    one, other = ClusterSums(), ClusterSums()
    for number, row in enumerate(rows):
        (one if number % 2 else other).add(*row)
    one.merge(other)
    found = robust(one)
    assert (found.mean, found.variance, found.naive_variance, found.df) == pytest.approx(
        (expected.mean, expected.variance, expected.naive_variance, expected.df), rel=1e-6, abs=1e-9
    )


def test_more_clusters_than_are_kept_apart_are_folded_whatever_the_order():
    rng = np.random.default_rng(5)
    rows = [(f"subject-{k}", float(rng.random() < 0.3)) for k in range(3000) for _ in range(2)]
    exact, folded, backwards = ClusterSums(), ClusterSums(256), ClusterSums(256)
    for row in rows:
        exact.add(*row)
        folded.add(*row)
    for row in rows[::-1]:
        backwards.add(*row)
    halves = [ClusterSums(256), ClusterSums(256)]
    for row in rows[:200]:  # stays exact, and is merged into one that folded, and the other way round
        halves[0].add(*row)
    for row in rows[200:]:
        halves[1].add(*row)
    assert not halves[0].folded and halves[1].folded and folded.folded and not exact.folded
    merged = ClusterSums(256)
    for half in halves:
        merged.merge(half)
    one = cluster_proportion(folded)
    for other in (cluster_proportion(backwards), cluster_proportion(merged)):
        assert (one.lower, one.upper) == pytest.approx((other.lower, other.upper))
    truth = cluster_proportion(exact)
    assert one.estimate == pytest.approx(truth.estimate)
    assert one.upper - one.lower == pytest.approx(truth.upper - truth.lower, rel=0.15)
    with pytest.raises(BadInput):
        exact.merge(folded)


def test_sums_by_cluster_are_the_same_as_one_by_one():
    one, many = sums_of([[1.0, 1.0, 0.0], [0.0, 1.0], [0.0]]), ClusterSums()
    for name, (n, total) in enumerate([(3, 2), (2, 1), (1, 0)]):
        many.add_many(str(name), n, total)
    assert robust(one) == robust(many)
    signed, summed = sums_of([[1.0, -1.0, 0.0], [1.0, 1.0]]), ClusterSums()
    summed.add_many("0", 3, 0, 2)
    summed.add_many("1", 2, 2, 2)
    assert robust(signed) == robust(summed)


def test_one_cluster_says_nothing_about_others():
    sums = sums_of([[1.0, 0.0, 1.0]])
    assert (cluster_proportion(sums).lower, cluster_proportion(sums).upper) == (0, 1)
    assert cluster_mean(sums).upper == float("inf")
    assert difference_test(sums).p_value == 1
    assert wideness(sums).warning and not wideness(sums).wide
    found = cluster_difference(PairedCounts(0, 0, 2, 1), sums)
    assert (found.lower, found.upper) == (-1, 1)
    assert cluster_proportion(ClusterSums()).estimate is None
    with pytest.raises(BadInput):
        robust(ClusterSums())
    with pytest.raises(BadInput):
        sums.add("a", 1.0, 0.0)


def test_events_that_never_happened_are_bounded_by_the_number_of_subjects():
    few, many = (cluster_proportion(sums_of([[0.0] * 50] * clusters)) for clusters in (10, 200))
    assert few.lower == 0 and 0.2 < few.upper < 0.5
    assert many.upper < 0.03
    assert wilson_interval(0, 500).upper < few.upper / 10


def paired(rows):
    """(counts, differences by cluster) of (cluster, first, second)."""
    cells, sums = [0, 0, 0, 0], ClusterSums()
    for cluster, first, second in rows:
        cells[(not first) * 2 + (not second)] += 1
        sums.add(cluster, float(second) - float(first))
    return PairedCounts(cells[0], cells[1], cells[2], cells[3]), sums


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=40, max_size=120))
def test_independent_pairs_have_nearly_newcombes_interval(pairs):
    counts, sums = paired((str(k), *pair) for k, pair in enumerate(pairs))
    robustly, plain = cluster_difference(counts, sums), paired_difference(counts)
    assert robustly.lower <= plain.lower + 1e-9 and robustly.upper >= plain.upper - 1e-9
    assert (robustly.lower, robustly.upper) == pytest.approx((plain.lower, plain.upper), abs=0.03)


def test_differences_must_be_those_of_the_pairs():
    counts, sums = paired([("a", True, False), ("b", True, True), ("c", False, True)])
    with pytest.raises(BadInput, match="not those"):
        cluster_difference(counts + PairedCounts(1), sums)
    with pytest.raises(BadInput, match="not those"):
        cluster_difference(PairedCounts(1, 0, 1, 1), sums)


def test_pairs_that_never_differ_are_bounded_by_the_number_of_subjects():
    counts, sums = paired((str(k % 12), True, True) for k in range(600))
    found = cluster_difference(counts, sums)
    assert found.lower < -0.1 and found.upper > 0.1
    assert "never differ" in found.warnings[-1]
    assert difference_test(sums).p_value == 1


def test_data_that_are_not_wide_say_so():
    rng = np.random.default_rng(3)
    alike = sums_of([[float(rng.random() < 0.5)] * 8 for _ in range(60)])
    found = wideness(alike)
    assert found.design_effect == pytest.approx(8, rel=0.05)
    assert not found.wide and "480 decisions of 60 subjects are worth 59" in found.warning
    wide = wideness(sums_of([[float(rng.random() < 0.5)] for _ in range(400)]))
    assert wide.wide and wide.warning is None and wide.mean_size == 1
    few = wideness(sums_of([[0.0, 1.0]] * 5))
    assert not few.wide and "only 5 subjects" in few.warning
