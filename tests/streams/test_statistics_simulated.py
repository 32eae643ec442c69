"""Simulated backtests: intervals cover as they say, false alarms stay rare however one looks, planted effects are found.

Every simulation is seeded. Where a share of simulations is compared with what it should be, the slack is 2.5 standard
errors of the simulation itself.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from streams.statistics.betting import RatioSequence
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import (
    cluster_difference,
    cluster_mean,
    cluster_proportion,
    difference_test,
    robust,
    wideness,
)
from streams.statistics.multiple import holm
from streams.statistics.paired import PairedCounts, mcnemar, paired_difference
from streams.statistics.power import detectable_difference, detectable_rates, power_of_pairs, runs_to_see
from streams.statistics.proportions import clopper_pearson, wilson_interval
from streams.statistics.selective import PropensitySums, bounds
from streams.statistics.sequences import log_evidence, log_paired_evidence

RUNS = 1000
EXAMPLE = Path(__file__).parents[2] / "examples" / "airline"
RECORDINGS = Path(__file__).parents[3] / "shared" / "data" / "agent_actions.jsonl"


def slack(share: float, runs: int = RUNS) -> float:
    return 2.5 * math.sqrt(share * (1 - share) / runs)


def covered(intervals, truth: float) -> float:
    return float(np.mean([not interval.excludes(truth) for interval in intervals]))


def backtests(seed: int, *, effect: float = 0.0, subjects: int = 80, runs: int = RUNS, spread: float = 0.25):
    """Backtests of two policies on labelled decisions of `subjects`, who have 1 to 12 decisions each.

    The second policy is right more often by `effect` on the whole. On some subjects it is better and on others worse, by
    as much (`spread`): decisions of one subject go the same way, as they do in life. Yields (counts, sums by subject).
    """
    rng = np.random.default_rng(seed)
    for _ in range(runs):
        sizes = rng.integers(1, 13, subjects)
        lean = rng.choice([-spread, spread], subjects) / 2
        sums, cells = ClusterSums(), np.zeros(4, dtype=int)
        for subject, (size, shift) in enumerate(zip(sizes, lean, strict=True)):
            gained, lost = 0.25 + effect / 2 + shift, 0.25 - effect / 2 - shift
            made = rng.multinomial(size, [0.3, lost, gained, 0.7 - lost - gained])
            cells += made
            sums.add_many(str(subject), int(size), float(made[2] - made[1]), float(made[2] + made[1]))
        yield PairedCounts(*map(int, cells)), sums


def test_intervals_of_independent_decisions_cover_at_their_rate():
    """On average over rates, as Wilson's does; Clopper and Pearson's never less."""
    rng = np.random.default_rng(1)
    for n, rate in ((30, 0.1), (100, 0.5), (300, 0.03), (1000, 0.2)):
        drawn = rng.binomial(n, rate, RUNS).tolist()
        assert covered([wilson_interval(s, n) for s in drawn], rate) > 0.95 - slack(0.95) - 0.01
        assert covered([clopper_pearson(s, n) for s in drawn], rate) > 0.95 - slack(0.95)
    rates = rng.uniform(0.02, 0.98, RUNS)
    hit = np.mean([not wilson_interval(int(rng.binomial(50, p)), 50, 0.9).excludes(p) for p in rates])
    assert abs(hit - 0.9) < slack(0.9) + 0.01


def test_newcombes_interval_of_pairs_covers():
    rng = np.random.default_rng(2)
    for cells in ([0.6, 0.05, 0.15, 0.2], [0.9, 0.02, 0.02, 0.06], [0.2, 0.3, 0.1, 0.4]):
        drawn = rng.multinomial(120, cells, RUNS).tolist()
        intervals = [paired_difference(PairedCounts(*cell)) for cell in drawn]
        assert covered(intervals, cells[2] - cells[1]) > 0.95 - slack(0.95)


def test_mcnemar_raises_few_false_alarms():
    rng = np.random.default_rng(3)
    for discordant in (0.05, 0.3):
        cells = [0.9 - discordant, discordant / 2, discordant / 2, 0.1]
        drawn = rng.multinomial(200, cells, 4 * RUNS).tolist()
        for method in ("auto", "exact", "mid-p", "chi2"):
            alarms = np.mean([mcnemar(PairedCounts(*cell), method).p_value < 0.05 for cell in drawn])
            assert alarms < 0.05 + slack(0.05, 4 * RUNS)


def test_a_thousand_backtests_of_a_policy_against_its_equal_raise_at_most_one_false_alarm_in_twenty():
    """A/A in five designs, a thousand backtests each: few and many subjects, alike and very unlike."""
    alarms = []
    for subjects, spread in ((80, 0.25), (30, 0.25), (200, 0.25), (80, 0.45), (80, 0.0)):
        by_interval = by_test = ignoring = 0
        for counts, sums in backtests(4, subjects=subjects, spread=spread):
            by_interval += cluster_difference(counts, sums).excludes(0)
            by_test += difference_test(sums).p_value < 0.05
            ignoring += mcnemar(counts).p_value < 0.05
        assert by_interval <= (0.05 + slack(0.05)) * RUNS
        assert by_test <= (0.05 + slack(0.05)) * RUNS
        if spread:  # the same data, clusters ignored: false alarms far more often than said
            assert ignoring > 0.1 * RUNS
        alarms.append(by_interval)
    assert sum(alarms) <= 0.05 * RUNS * len(alarms)


@pytest.mark.parametrize(("clusters", "agreement"), [(12, 1.0), (40, 2.0), (200, 0.3)])
def test_intervals_of_clustered_decisions_cover_where_naive_ones_do_not(clusters, agreement):
    """Subjects have rates of their own, from Beta(mean 0.3); a small `agreement` makes subjects all or nothing."""
    rng = np.random.default_rng(clusters)
    robustly, as_mean, naive = [], [], []
    for _ in range(RUNS):
        sizes = rng.integers(1, 16, clusters)
        events = rng.binomial(sizes, rng.beta(0.3 * agreement, 0.7 * agreement, clusters))
        sums = ClusterSums()
        for name, (n, s) in enumerate(zip(sizes.tolist(), events.tolist(), strict=True)):
            sums.add_many(str(name), n, s)
        robustly.append(cluster_proportion(sums))
        as_mean.append(cluster_mean(sums))
        naive.append(wilson_interval(int(events.sum()), int(sizes.sum())))
    assert covered(robustly, 0.3) > 0.95 - slack(0.95)
    assert covered(robustly, 0.3) < 0.995 or clusters < 20  # and not by being needlessly wide
    assert covered(as_mean, 0.3) > 0.9
    assert covered(naive, 0.3) < 0.85


@pytest.mark.parametrize(("clusters", "rate", "agreement"), [(100, 0.01, 0.5), (30, 0.05, 1.0), (300, 0.01, 0.2)])
def test_rare_events_that_sit_in_a_few_subjects_are_covered_too(clusters, rate, agreement):
    rng = np.random.default_rng(clusters)
    robustly, as_mean = [], []
    for _ in range(RUNS):
        sizes = rng.integers(1, 13, clusters)
        events = rng.binomial(sizes, rng.beta(rate * agreement, (1 - rate) * agreement, clusters))
        sums = ClusterSums()
        for name, (n, s) in enumerate(zip(sizes.tolist(), events.tolist(), strict=True)):
            sums.add_many(str(name), n, s)
        robustly.append(cluster_proportion(sums))
        as_mean.append(cluster_mean(sums))
    assert covered(robustly, rate) > 0.95 - slack(0.95)
    assert covered(as_mean, rate) < 0.9  # the plain sandwich, with as many degrees of freedom as there are clusters
    assert sum(any("sits in about" in warning for warning in one.warnings) for one in robustly) > RUNS / 10


def test_differences_that_sit_in_a_few_subjects_are_covered_too():
    rng = np.random.default_rng(17)
    intervals = []
    for _ in range(RUNS):
        sizes = rng.integers(1, 13, 200)
        better = rng.random(200) < 0.02  # on these subjects the second is right throughout, and the first is not
        sums = ClusterSums()
        for name, (n, hit) in enumerate(zip(sizes.tolist(), better.tolist(), strict=True)):
            sums.add_many(str(name), n, n * hit, n * hit)
        gained, rest = int(sizes[better].sum()), int(sizes[~better].sum())
        counts = PairedCounts(rest * 4 // 5, 0, gained, rest - rest * 4 // 5)
        intervals.append(cluster_difference(counts, sums))
    assert covered(intervals, 0.02) > 0.95 - slack(0.95)


def test_folded_clusters_still_cover():
    rng = np.random.default_rng(6)
    intervals, naive = [], []
    for _ in range(200):
        sizes = rng.integers(1, 8, 600)
        events = rng.binomial(sizes, rng.beta(0.2, 0.8, 600))
        sums = ClusterSums(128)
        for name, (n, s) in enumerate(zip(sizes.tolist(), events.tolist(), strict=True)):
            sums.add_many(f"s{name}", n, s)
        assert sums.folded
        intervals.append(cluster_proportion(sums))
        naive.append(wilson_interval(int(events.sum()), int(sizes.sum())))
    assert covered(intervals, 0.2) > 0.95 - slack(0.95, 200)
    assert covered(naive, 0.2) < 0.85


def test_peeking_after_every_decision_raises_no_more_false_alarms():
    """A/A, watched over 1,500 decisions: the sequence holds, an interval that is looked at each time does not."""
    rng = np.random.default_rng(7)
    n = np.arange(1, 1501)
    events = rng.random((RUNS, 1500)) < 0.2
    s = events.cumsum(axis=1)
    alarms = (log_evidence(s, n - s, 0.2) >= math.log(20)).any(axis=1).mean()
    assert alarms <= 0.05
    spread = np.sqrt(np.maximum(s * (n - s), 1) / n) / n
    naive = (np.abs(s / n - 0.2) > 1.96 * spread)[:, 30:].any(axis=1).mean()
    assert naive > 0.3

    kind = rng.choice([-1, 0, 1], (RUNS, 1500), p=[0.1, 0.8, 0.1])
    plus, minus = (kind > 0).cumsum(axis=1), (kind < 0).cumsum(axis=1)
    alarms = (log_paired_evidence(plus, minus, n - plus - minus, 0.0) >= math.log(20)).any(axis=1).mean()
    assert alarms <= 0.05
    kind = rng.choice([-1, 0, 1], (200, 1500), p=[0.06, 0.8, 0.14])
    plus, minus = (kind > 0).cumsum(axis=1), (kind < 0).cumsum(axis=1)
    found = (log_paired_evidence(plus, minus, n - plus - minus, 0.0) >= math.log(20)).any(axis=1).mean()
    assert found > 0.95


def watched(seed: int, runs: int, effect: float, subjects: int = 150):
    """Watched backtests, one subject after another: whether an alarm was ever raised, by bets and by counting decisions."""
    rng = np.random.default_rng(seed)
    by_bets = by_counts = 0
    for _ in range(runs):
        sequence = RatioSequence(lowest=-1.0, largest=12, grid=np.array([0.0]))
        sizes = rng.integers(1, 13, subjects)
        lean = rng.choice([-0.25, 0.25], subjects) / 2 + effect / 2
        gained = rng.binomial(sizes, 0.25 + lean)
        lost = rng.binomial(sizes - gained, (0.25 - lean) / (0.75 - lean))
        alarm = False
        for size, total in zip(sizes.tolist(), (gained - lost).tolist(), strict=True):
            sequence.add(size, total)
            alarm = alarm or float(sequence.log_capital()[0]) >= math.log(20)
        by_bets += alarm
        n, plus, minus = sizes.cumsum(), gained.cumsum(), lost.cumsum()
        by_counts += bool((log_paired_evidence(plus, minus, n - plus - minus, 0.0) >= math.log(20)).any())
    return by_bets / runs, by_counts / runs


def test_peeking_after_every_subject_raises_no_more_false_alarms_and_finds_what_is_there():
    by_bets, by_counts = watched(8, RUNS, 0.0)
    assert by_bets <= 0.05
    assert by_counts > by_bets  # what holds for independent decisions says too much of clustered ones
    assert watched(9, 100, 0.15)[0] > 0.9


def test_planted_differences_are_found_at_the_stated_power():
    rng = np.random.default_rng(10)
    for n, discordant in ((400, 0.2), (1500, 0.05)):
        gap = detectable_difference(n, discordant)
        cells = [0.5, (discordant - gap) / 2, (discordant + gap) / 2, 0.5 - discordant]
        drawn = rng.multinomial(n, cells, 2 * RUNS).tolist()
        found = np.mean([mcnemar(PairedCounts(*cell), "mid-p").p_value < 0.05 for cell in drawn])
        assert abs(found - 0.8) < slack(0.8, 2 * RUNS) + 0.015


def test_planted_differences_among_clusters_are_found_at_the_stated_power():
    """The design effect of one run says what the others will find."""
    runs = list(backtests(12, effect=0.11, runs=600))
    found = np.mean([difference_test(sums).p_value < 0.05 for _, sums in runs])
    effect = float(np.mean([robust(sums).design_effect for _, sums in runs]))
    stated = power_of_pairs(np.mean([counts.n for counts, _ in runs]), 0.11, 0.5, design_effect=effect)
    assert effect > 1.3
    assert 0.6 < stated < 0.95
    assert abs(found - stated) < slack(stated, 600) + 0.02
    assert power_of_pairs(np.mean([counts.n for counts, _ in runs]), 0.11, 0.5) > stated + 0.05


def test_planted_rates_are_found_at_the_stated_power():
    rng = np.random.default_rng(13)
    _, rate = detectable_rates(600, 0.1, 600)
    one, other = rng.binomial(600, rate, 4 * RUNS), rng.binomial(600, 0.1, 4 * RUNS)
    pooled = (one + other) / 1200
    found = (np.abs(one - other) / 600 > 1.96 * np.sqrt(pooled * (1 - pooled) * 2 / 600)).mean()
    assert abs(found - 0.8) < slack(0.8, 4 * RUNS) + 0.015
    seen = (rng.binomial(runs_to_see(0.02), 0.02, 4 * RUNS) > 0).mean()
    assert abs(seen - 0.95) < slack(0.95, 4 * RUNS)


def test_twenty_slices_without_an_effect_raise_one_alarm_in_twenty_runs_and_a_planted_one_is_found():
    rng = np.random.default_rng(14)
    false = found = uncorrected = 0
    for _ in range(RUNS):
        p_values = {
            str(k): mcnemar(PairedCounts(*cell)).p_value
            for k, cell in enumerate(rng.multinomial(150, [0.6, 0.15, 0.15, 0.1], 20).tolist())
        }
        uncorrected += min(p_values.values()) < 0.05
        p_values["planted"] = mcnemar(PairedCounts(*rng.multinomial(150, [0.6, 0.05, 0.3, 0.05]).tolist())).p_value
        adjusted = holm(p_values)
        found += adjusted.pop("planted") < 0.05
        false += min(adjusted.values()) < 0.05
    assert false <= (0.05 + slack(0.05)) * RUNS
    assert uncorrected > 0.4 * RUNS
    assert found > 0.9 * RUNS


def selected(rng, n: int = 2000):
    """(true rate, propensities, events, labelled): risky decisions are rarely carried out, so rarely labelled."""
    risk = rng.random(n)
    events = rng.random(n) < 0.05 + 0.5 * risk
    chances = np.clip(1 - risk, 0.1, 0.9)
    return float((0.05 + 0.5 * risk).mean()), chances, events, rng.random(n) < chances


def test_weighting_by_the_chance_of_a_label_undoes_the_selection_and_bounds_always_hold():
    rng = np.random.default_rng(15)
    weighted, plain, inside = [], [], 0
    for _ in range(300):
        _, chances, events, labelled = selected(rng)
        sums = PropensitySums()
        for k, (chance, event, seen) in enumerate(zip(chances.tolist(), events.tolist(), labelled.tolist(), strict=True)):
            sums.add(str(k), chance, event if seen else None)
        weighted.append(sums.interval())
        plain.append(wilson_interval(int(events[labelled].sum()), int(labelled.sum())))
        limits = bounds(int(events[labelled].sum()), int(labelled.sum()), len(events))
        inside += limits.interval_lower <= 0.3 <= limits.interval_upper
        assert limits.lower <= events.mean() <= limits.upper
        assert sums.horvitz_thompson() == pytest.approx(weighted[-1].estimate, abs=0.12)
    assert covered(weighted, 0.3) > 0.95 - slack(0.95, 300)
    assert covered(plain, 0.3) < 0.1  # what was allowed is safer than what was not
    assert inside == 300


@pytest.mark.skipif(not RECORDINGS.exists(), reason="the recordings are not part of the project")
def test_the_airline_recordings_keep_their_known_rates_by_task():
    """181 actions of 82 conversations of 29 tasks, 4 trials a task: a task goes well or badly as a whole."""
    actions = [json.loads(line) for line in RECORDINGS.read_text("utf-8").splitlines()]
    by_task: dict[int, list[dict]] = defaultdict(list)
    for action in actions:
        by_task[action["task"]].append(action)
    assert (len(actions), len(by_task), len({a["run"] for a in actions})) == (181, 29, 82)

    expected, reward = ClusterSums(), ClusterSums()
    for action in actions:
        expected.add(str(action["task"]), float(action["action_expected"]))
    for task, taken in by_task.items():
        ended = {action["run"]: action["run_reward"] for action in taken}
        assert len(ended) <= 4
        reward.add_many(str(task), len(ended), sum(ended.values()))
    for sums, known in ((expected, KNOWN_EXPECTED), (reward, KNOWN_REWARD)):
        weights, values = sums.arrays()
        found = dict(zip(by_task, zip(values.astype(int).tolist(), weights.astype(int).tolist(), strict=True), strict=True))
        assert found == known
        robustly, plain = cluster_proportion(sums), wilson_interval(int(values.sum()), int(weights.sum()))
        assert robustly.estimate == pytest.approx(plain.estimate)
        assert robustly.upper - robustly.lower > 1.2 * (plain.upper - plain.lower)
        assert not wideness(sums).wide
    assert wideness(expected).design_effect > 4  # 181 actions are worth fewer than 45


def test_the_airline_example_keeps_the_known_rates_of_its_tasks():
    sums, tasks = ClusterSums(), []
    for line in (EXAMPLE / "outcomes.jsonl").read_text("utf-8").splitlines():
        outcome = json.loads(line)
        task = outcome["request_id"].split("-")[1]
        sums.add(task, float(outcome["expected"]))
        tasks.append(int(task))
    weights, values = sums.arrays()
    for task, n, events in zip(dict.fromkeys(tasks), weights.tolist(), values.tolist(), strict=True):
        assert KNOWN_EXPECTED[task] == (events, n)
    assert sums.totals.n == 87 and len(weights) == 16
    assert not wideness(sums).wide


KNOWN_EXPECTED = {
    0: (0, 14), 1: (1, 1), 2: (14, 14), 4: (0, 8), 5: (3, 4), 6: (1, 4), 8: (1, 4), 9: (1, 6), 10: (0, 4), 13: (0, 16),
    14: (3, 7), 16: (1, 1), 17: (0, 3), 20: (4, 7), 21: (0, 1), 22: (1, 3), 25: (0, 9), 26: (6, 11), 28: (12, 17),
    29: (0, 6), 30: (5, 5), 32: (0, 6), 33: (5, 7), 34: (11, 11), 37: (0, 1), 40: (0, 1), 41: (0, 2), 45: (2, 2),
    46: (3, 6),
}  # fmt: skip
"""(actions that the task's reference solution has, actions), as the recordings give them."""
KNOWN_REWARD = {
    0: (0, 4), 1: (1, 1), 2: (1, 4), 4: (0, 3), 5: (1, 2), 6: (1, 4), 8: (0, 1), 9: (0, 1), 10: (0, 3), 13: (2, 4),
    14: (0, 4), 16: (1, 1), 17: (0, 3), 20: (4, 4), 21: (0, 1), 22: (0, 3), 25: (0, 4), 26: (2, 4), 28: (0, 4),
    29: (0, 3), 30: (2, 3), 32: (0, 4), 33: (0, 4), 34: (3, 4), 37: (0, 1), 40: (0, 1), 41: (0, 2), 45: (2, 2),
    46: (2, 3),
}  # fmt: skip
"""(conversations that ended right, conversations with at least one action)."""
