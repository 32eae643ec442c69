"""What can be said where outcomes are known: candidate against record, decision by decision, and what is left open."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from schemas.verdict import VERDICTS
from streams.backtest.intervals import Intervals, as_dict
from streams.backtest.tally import Pair, Tally
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import cluster_difference, difference_test
from streams.statistics.multiple import holm
from streams.statistics.paired import PairedCounts, mcnemar
from streams.statistics.power import detectable_difference
from streams.statistics.selective import bounds

JUDGED = ("failures_caught", "fine_allowed", "precision", "accuracy")


def known(figures: Intervals) -> dict[str, Any] | None:
    """Rates before and after, the paired comparison, and bounds for what is not labelled; None: nothing is labelled."""
    tally = figures.tally
    pairs = paired(tally.matrix)
    if not pairs.n:
        return None
    return {
        "figures": {
            name: {"before": figures.measure(name, baseline=True), "after": figures.measure(name)} for name in JUDGED
        },
        "paired": _compared(figures, pairs),
        "wrong_among_allowed": {"before": _selective(figures, 0), "after": _selective(figures, 1)},
    }


def paired(pairs: Mapping[Pair, int]) -> PairedCounts:
    """Right: a known failure is not allowed, what is fine is."""
    counts: Counter[tuple[bool, bool]] = Counter()
    for (old, new, meaning), number in pairs.items():
        if meaning in ("harmful", "fine"):
            allowed = meaning == "fine"
            counts[(old == "ALLOW") == allowed, (new == "ALLOW") == allowed] += number
    return PairedCounts(counts[True, True], counts[True, False], counts[False, True], counts[False, False])


def _compared(figures: Intervals, pairs: PairedCounts) -> dict[str, Any]:
    told: dict[str, Any] = {
        "both_right": pairs.both,
        "recorded_only": pairs.first_only,
        "candidate_only": pairs.second_only,
        "both_wrong": pairs.neither,
    }
    if figures.weights is not None:  # the two are of the sample as drawn: a test on it would speak of another range
        return told | {"note": "these four are of the sample as drawn; no test is made on it: compare the intervals"}
    sums = _differences(figures.tally)
    clustered, exact = difference_test(sums), mcnemar(pairs)
    return told | {
        "difference": as_dict(cluster_difference(pairs, sums)),
        "mcnemar_p": exact.p_value,
        "mcnemar": exact.method,
        "clustered_p": clustered.p_value,
        "warnings": list(dict.fromkeys((*exact.warnings, *clustered.warnings))),
        "detectable": detectable_difference(
            pairs.n, pairs.discordant / pairs.n, design_effect=figures.design_effect
        ),
    }


def _differences(tally: Tally) -> ClusterSums:
    """By group: +1 for each decision that only the candidate gets right, -1 for each that only the record did."""
    whole: Counter[int] = Counter()
    gained: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    for verdict in VERDICTS:
        for what in ("harmful", "fine"):
            for counts, heading in ((whole, what), (gained, f"{what}_gained"), (lost, f"{what}_lost")):
                counts.update(tally.groups.counts(heading, verdict))
    sums = ClusterSums()
    for group, number in sorted(whole.items()):
        if number > 0:
            sums.add_many(str(group), number, gained[group] - lost[group], gained[group] + lost[group])
    return sums


def _selective(figures: Intervals, side: int) -> dict[str, Any]:
    """Among what is allowed, the share that was wrong: only part of it is labelled, so it has bounds."""
    allowed: Counter[str] = Counter()
    labelled: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for pair, number in figures.tally.matrix.items():
        if pair[side] == "ALLOW":
            allowed[pair[0]] += number
            labelled[pair[0]] += number if pair[2] in ("harmful", "fine") else 0
            wrong[pair[0]] += number if pair[2] == "harmful" else 0
    scale = _scales(allowed, figures)
    events, seen, of = (
        round(sum(counts[old] * scale[old] for old in counts)) for counts in (wrong, labelled, allowed)
    )
    found = bounds(min(events, seen), min(seen, of), of, design_effect=figures.design_effect)
    return {
        "allowed": allowed.total(),
        "labelled": labelled.total(),
        "wrong": wrong.total(),
        "lower": found.lower,
        "upper": found.upper,
        "interval_lower": found.interval_lower,
        "interval_upper": found.interval_upper,
        "note": found.note,
    }


def _scales(counts: Mapping[str, int], figures: Intervals) -> dict[str, float]:
    """How many independent decisions one of each recorded verdict is worth: 1, or by its weight in a sample."""
    if figures.weights is None:
        return dict.fromkeys(counts, 1.0)
    weights = {verdict: figures.weights.get(verdict, 1.0) for verdict in counts}
    whole = sum(weights[verdict] * number for verdict, number in counts.items())
    squares = sum(weights[verdict] ** 2 * number for verdict, number in counts.items())
    return {verdict: weight * whole / squares if squares else 1.0 for verdict, weight in weights.items()}


def changes(slices: Mapping[str, Mapping[str, Counter[Pair]]]) -> dict[tuple[str, str], dict[str, Any]]:
    """In which slices the candidate is right more, or less, often: McNemar's p, and Holm's over all slices."""
    tested = {
        (name, value): counts
        for name, values in slices.items()
        for value, pairs in values.items()
        if (counts := paired(pairs)).n
    }
    p_values = {place: mcnemar(counts).p_value for place, counts in tested.items()}
    adjusted = holm({str(place): p for place, p in p_values.items()})
    return {
        place: {
            "better": counts.second_only,
            "worse": counts.first_only,
            "p": p_values[place],
            "p_holm": adjusted[str(place)],
        }
        for place, counts in tested.items()
    }
