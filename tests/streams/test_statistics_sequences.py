"""Confidence sequences and bets, against their definitions written out; power, drift and selective labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from statsmodels.stats.proportion import power_proportions_2indep

from schemas.errors import BadInput, UsageError
from streams.statistics.betting import RatioSequence
from streams.statistics.drift import drift
from streams.statistics.paired import PairedCounts
from streams.statistics.power import (
    detectable_difference,
    detectable_rates,
    pairs_needed,
    power_of_pairs,
    power_of_rates,
    runs_to_know,
    runs_to_see,
)
from streams.statistics.proportions import wilson_interval
from streams.statistics.selective import PropensitySums, bounds, selection_note
from streams.statistics.sequences import (
    difference_sequence,
    log_evidence,
    log_paired_evidence,
    proportion_sequence,
)

RATES = st.floats(0.01, 0.99)


@given(st.integers(0, 40), st.integers(0, 40), RATES)
def test_evidence_is_the_mixture_of_likelihoods_over_the_likelihood(s, f, rate):
    def weighted(angle):  # Jeffreys' prior is uniform in this angle
        p = math.sin(angle) ** 2
        return p**s * (1 - p) ** f

    mixture = integrate.quad(weighted, 0, math.pi / 2, epsabs=0, epsrel=1e-10, limit=200)[0] * 2 / math.pi
    expected = math.log(mixture) - s * math.log(rate) - f * math.log(1 - rate)
    assert float(log_evidence(s, f, rate)) == pytest.approx(expected, abs=1e-5)


@given(st.integers(0, 30), st.integers(0, 30), RATES)
def test_evidence_is_a_fair_game(s, f, rate):
    now, up, down = (math.exp(float(log_evidence(*at, rate))) for at in ((s, f), (s + 1, f), (s, f + 1)))
    assert rate * up + (1 - rate) * down == pytest.approx(now, rel=1e-9)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.floats(-0.95, 0.95))
def test_paired_evidence_is_against_the_best_that_has_the_difference(plus, minus, zero, gap):
    x = np.linspace(max(0, -gap), (1 - gap) / 2, 20001)
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = sum(
            np.where(count > 0, count * np.log(np.maximum(p, 0)), 0.0)
            for count, p in ((plus, x + gap), (minus, x), (zero, 1 - gap - 2 * x))
        )
    best = np.nanmax(likelihood)
    mixture = (
        math.lgamma(plus + 0.5) + math.lgamma(minus + 0.5) + math.lgamma(zero + 0.5)
        - math.lgamma(plus + minus + zero + 1.5) - 3 * math.lgamma(0.5) + math.lgamma(1.5)
    )  # fmt: skip
    assert float(log_paired_evidence(plus, minus, zero, gap)) == pytest.approx(mixture - best, abs=2e-3)


@given(st.integers(0, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95]))
def test_a_sequence_is_wider_than_an_interval_and_ends_where_evidence_does(counts, level):
    s, n = counts
    found, once = proportion_sequence(s, n, level), wilson_interval(s, n, level)
    assert 0 <= found.lower <= found.upper <= 1
    assert found.upper - found.lower >= once.upper - once.lower - 0.02
    for end in (found.lower, found.upper):
        if 0 < end < 1:
            assert float(log_evidence(s, n - s, end)) == pytest.approx(-math.log(1 - level), abs=1e-6)
    mirrored = proportion_sequence(n - s, n, level)
    assert (found.lower, found.upper) == pytest.approx((1 - mirrored.upper, 1 - mirrored.lower), abs=1e-9)


@given(st.builds(PairedCounts, *[st.integers(0, 300)] * 4))
def test_a_paired_sequence_has_no_first_and_second(counts):
    found = difference_sequence(counts)
    other = difference_sequence(PairedCounts(counts.both, counts.second_only, counts.first_only, counts.neither))
    assert (found.lower, found.upper) == pytest.approx((-other.upper, -other.lower), abs=1e-9)
    assert -1 <= found.lower <= (found.estimate or 0) <= found.upper <= 1
    zero = counts.n - counts.discordant
    for end in (found.lower, found.upper):
        if -1 < end < 1 and counts.n:
            evidence = float(log_paired_evidence(counts.second_only, counts.first_only, zero, end))
            assert evidence == pytest.approx(math.log(20), abs=1e-5)


def test_nothing_watched_is_everything_possible():
    assert (proportion_sequence(0, 0).lower, proportion_sequence(0, 0).upper) == (0, 1)
    assert (difference_sequence(PairedCounts()).lower, RatioSequence(lowest=-1.0).interval().lower) == (-1, -1)
    with pytest.raises(BadInput):
        proportion_sequence(3, 2)


@given(st.lists(st.sampled_from([0.0, 1.0]), max_size=60), st.floats(0.02, 0.98))
def test_bets_on_single_decisions_are_waudby_smith_and_ramdas(values, m):
    """The hedged capital with predictable plug-in bets, theorem 3, written out."""
    sequence = RatioSequence(0.95, grid=np.array([m]))
    above = below = math.log(0.5)
    total, squares = 0.0, 0.25
    for t, x in enumerate(values, start=1):
        bet = math.sqrt(2 * math.log(2 / 0.05) / (squares / t * t * math.log(1 + t)))
        above += math.log(1 + min(bet, 0.75 / m) * (x - m))
        below += math.log(1 - min(bet, 0.75 / (1 - m)) * (x - m))
        total += x
        squares += (x - (0.5 + total) / (t + 1)) ** 2
        sequence.add(1, x)
    assert float(sequence.log_capital()[0]) == pytest.approx(max(above, below), abs=1e-6)


def test_bets_on_clusters_close_in_on_the_ratio():
    rng = np.random.default_rng(11)
    sequence = RatioSequence(lowest=-1.0, largest=6)
    for _ in range(600):
        n = int(rng.integers(1, 7))
        sequence.add(n, float(rng.choice([-1, 0, 1], n, p=[0.1, 0.5, 0.4]).sum()))
    found = sequence.interval()
    assert found.lower < 0.3 < found.upper
    assert found.upper - found.lower < 0.25
    assert found.excludes(0)
    for bad in ((7, 0.0), (0, 0.0), (2, 3.0), (2, -3.0)):
        with pytest.raises(BadInput):
            sequence.add(*bad)


def test_one_decision_rejects_nothing():
    for value in (0.0, 1.0):
        sequence = RatioSequence()
        sequence.add(1, value)
        assert sequence.interval().upper - sequence.interval().lower > 0.9


@given(st.integers(20, 5000), RATES, RATES, st.integers(20, 5000))
def test_the_power_of_two_runs_is_that_of_statsmodels(n, rate, base, base_n):
    expected = power_proportions_2indep(rate - base, base, n, ratio=base_n / n, alpha=0.05, return_results=False)
    assert power_of_rates(n, rate, base, base_n) == pytest.approx(float(expected), abs=1e-6)


@given(st.integers(20, 20000), st.floats(0.01, 0.9), st.sampled_from([1.0, 2.5]))
def test_what_is_detectable_is_found_with_the_stated_power_and_less_is_not(n, discordant, effect):
    found = detectable_difference(n, discordant, design_effect=effect)
    if found is None:
        assert power_of_pairs(n, discordant, discordant, design_effect=effect) < 0.8
        return
    assert power_of_pairs(n, found, discordant, design_effect=effect) >= 0.8 - 1e-9
    if found > 1e-6:
        assert power_of_pairs(n, found * 0.99, discordant, design_effect=effect) < 0.8
    needed = pairs_needed(found, discordant, design_effect=effect)
    assert needed == pytest.approx(n, rel=0.02, abs=2)


@given(st.integers(20, 5000), RATES)
def test_detectable_rates_are_the_nearest(n, base):
    lower, upper = detectable_rates(n, base, n)
    for rate, inward in ((lower, 0.001), (upper, -0.001)):
        if rate is not None:
            assert power_of_rates(n, rate, base, n) >= 0.8 - 1e-9
            assert power_of_rates(n, rate + inward, base, n) < 0.8


def test_a_published_sample_size():
    """Connor 1987: psi 0.3 and d 0.1, two-sided 5%, power 80%: 234 pairs."""
    assert pairs_needed(0.1, 0.3) in (233, 234, 235)
    assert runs_to_see(0.01) == 299 and runs_to_see(0.5, 0.5) == 1  # the rule of three: 300
    assert runs_to_see(0.01, design_effect=2) == 597
    assert 860 <= runs_to_know(0.1, 0.02) <= 876


def test_what_makes_no_sense_is_refused():
    for call in (
        lambda: power_of_pairs(0, 0.1, 0.3),
        lambda: power_of_pairs(10, 0.4, 0.3),
        lambda: pairs_needed(0, 0.3),
        lambda: runs_to_see(0),
        lambda: runs_to_know(0.5, 2),
        lambda: detectable_difference(100, 0.3, power=80),
        lambda: power_of_pairs(10, 0.1, 0.3, design_effect=0),
    ):
        with pytest.raises(UsageError):
            call()


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 200))
def test_bounds_hold_whatever_the_unlabelled_were(events, others, unlabelled):
    labelled, n = events + others, events + others + unlabelled
    found = bounds(events, labelled, n)
    assert 0 <= found.interval_lower <= found.lower + 1e-12 and found.upper <= found.interval_upper + 1e-12 <= 1 + 1e-9
    for hidden in {0, unlabelled // 2, unlabelled}:
        if n:
            assert found.lower <= (events + hidden) / n <= found.upper
    wider = bounds(events, labelled, n, design_effect=3)
    assert wider.interval_upper >= found.interval_upper - 1e-12
    with pytest.raises(BadInput):
        bounds(labelled + 1, labelled, n)


def test_bounds_without_selection_are_the_rate_itself():
    found = bounds(30, 100, 100)
    assert found.lower == found.upper == 0.3
    assert (found.interval_lower, found.interval_upper) == (wilson_interval(30, 100).lower, wilson_interval(30, 100).upper)
    assert found.note == "every decision has an outcome"
    assert "40 of 100 decisions have no outcome" in selection_note(60, 100)


@pytest.mark.parametrize("chance", [0.0, -0.1, 1.1, float("nan")])
def test_a_chance_of_nothing_is_refused(chance):
    with pytest.raises(BadInput, match="can't be weighted"):
        PropensitySums().add("a", chance, True)


def test_certain_labels_are_a_plain_proportion():
    sums = PropensitySums()
    for k in range(200):
        sums.add(str(k), 1.0, k % 4 == 0)
    found = sums.interval()
    assert found.estimate == 0.25 and sums.horvitz_thompson() == 0.25
    assert found.upper == pytest.approx(wilson_interval(50, 200).upper, abs=0.003)
    assert PropensitySums().interval().estimate is None and PropensitySums().horvitz_thompson() is None


def test_few_heavy_labels_are_warned_of():
    sums = PropensitySums()
    for k in range(100):
        sums.add(str(k), 1.0, False)
    sums.add("rare", 0.001, True)
    assert any("effective observations" in warning for warning in sums.interval().warnings)


MIX = st.dictionaries(st.sampled_from("abcde"), st.integers(1, 500), min_size=2)


@given(MIX, MIX)
def test_drift_is_the_chi_squared_of_scipy(before, after):
    names = sorted({*before, *after})
    found = drift(before, after)
    expected = stats.chi2_contingency([[side.get(k, 0) for k in names] for side in (before, after)], correction=False)
    assert (found.chi_squared, found.p_value, found.df) == pytest.approx(
        (expected.statistic, expected.pvalue, expected.dof), abs=1e-7
    )
    assert found.psi >= 0
    turned = drift(after, before)
    assert (turned.psi, turned.chi_squared) == pytest.approx((found.psi, found.chi_squared))


def test_the_same_mix_does_not_drift_and_another_does():
    same = drift({"a": 700, "b": 300}, {"a": 7000, "b": 3000})
    assert same.psi < 1e-5 and same.p_value > 0.99
    other = drift({"a": 700, "b": 300}, {"a": 300, "b": 700})
    assert other.psi > 0.25 > other.psi_expected and other.p_value < 1e-9
    assert drift({"a": 5}, {"a": 9}).p_value == 1
    assert drift({"a": 3, "b": 1}, {"a": 3}).warnings
    for bad in ({}, {"a": 0}, {"a": -1, "b": 3}):
        with pytest.raises(BadInput):
            drift(bad, {"a": 5, "b": 1})
