"""The report: a finished run as plain data, from which text, Markdown, HTML and JSON are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.ids import iso_time
from schemas.verdict import VERDICTS
from streams.backtest.bars import Bar, bars_hash
from streams.backtest.case import HOUR_MS, band_order
from streams.backtest.causes import CAUSES
from streams.backtest.intervals import Intervals, intervals
from streams.backtest.known import changes, known
from streams.backtest.measures import MEASURES, Value, Weights, measured
from streams.backtest.run import Run
from streams.backtest.tally import Pair, Tally
from streams.policy import CompiledPolicy

SCHEMA: Final = "lumyn.backtest/1"
_POINTS = 48
"""Points that a curve over time has at most."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run was asked, beside its candidates: said in the report as it is."""

    source: str
    memory: str
    asked: Mapping[str, Any]
    """`from`, `to`, `query`, `limit`, `sample`, `by`, `cluster` as given."""
    weights: Weights
    strata: Mapping[str, int] | None
    """Of a sample: how many decisions there are of each recorded verdict."""
    bars: tuple[Bar, ...]


def make_report(
    run: Run, candidates: Sequence[CompiledPolicy], setting: Setting, gaps: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Everything that is to say of a run."""
    found = [
        _candidate(tally, policy, run, setting) for tally, policy in zip(run.tallies, candidates, strict=True)
    ]
    return {
        "schema": SCHEMA,
        "passed": all(bar["holds"] is True for candidate in found for bar in candidate["bars"]),
        "range": _range(run, setting, gaps),
        "memory": setting.memory,
        "require": {"bars": [bar.text for bar in setting.bars], "hash": bars_hash(setting.bars)},
        "candidates": found,
    }


def _range(run: Run, setting: Setting, gaps: Mapping[str, Any] | None) -> dict[str, Any]:
    seen = run.seen
    return {
        "source": setting.source,
        "asked": dict(setting.asked),
        "first": None if seen.first_ms is None else iso_time(seen.first_ms),
        "last": None if seen.last_ms is None else iso_time(seen.last_ms),
        "read": seen.read,
        "decisions": seen.taken,
        "root": run.root.text(),
        "verdicts": _by_verdict(seen.verdicts),
        "labelled": {"total": sum(seen.labelled.values()), **dict(sorted(seen.labelled.items()))},
        "engines": dict(sorted(seen.engines.items())),
        "policies": [
            {"hash": hash_, "name": name, "from": iso_time(first), "decisions": count}
            for hash_, (name, first, count) in sorted(seen.policies.items(), key=lambda item: item[1][1])
        ],
        "refused": dict(sorted(seen.refused.items())),
        "named": _named(seen.named),
        "repeated": run.runs.repeated(),
        "gaps": None if gaps is None else dict(gaps),
        "sample": None if setting.strata is None else {"strata": dict(setting.strata), "weights": setting.weights},
    }


def _candidate(tally: Tally, policy: CompiledPolicy, run: Run, setting: Setting) -> dict[str, Any]:
    weights = setting.weights
    figures = intervals(tally, weights)
    tested = changes(tally.slices) if weights is None else {}
    return {
        "policy": policy.name,
        "version": policy.version,
        "hash": policy.policy_hash,
        "compared": tally.compared,
        "design_effect": figures.design_effect,
        "flips": figures.measure("flips"),
        "stricter": figures.measure("stricter"),
        "milder": figures.measure("milder"),
        "other_reasons": _weighted(tally.other_reasons, weights),
        "matrix": _matrix(tally, weights),
        "causes": _causes(tally, weights),
        "outcomes": known(figures),
        "rules": _rules(figures, policy),
        "slices": {name: _slice(values, name, figures, tested) for name, values in sorted(tally.slices.items())},
        "time": _time(figures, run),
        "top": tally.top,
        "coverage": {
            "compared": tally.compared,
            "labelled": sum(number for (_, _, meaning), number in tally.matrix.items() if meaning is not None),
            "errored": sum(tally.errors.values()) - tally.errors["unexplained"],
            "errors": dict(sorted(tally.errors.items())),
            "out_of_policy": tally.out_of_policy,
            "by_default": _weighted(tally.by_default, weights),
            "named": _named(tally.named),
        },
        "bars": [judged(bar, figures) for bar in setting.bars],
    }


def judged(bar: Bar, figures: Intervals) -> dict[str, Any]:
    """Whether a candidate meets a bar. `holds` is None where nothing was observed: that is no pass."""
    tally, weights = figures.tally, figures.weights
    value, before = measured(bar.measure, tally, weights), measured(bar.measure, tally, weights, baseline=True)
    told: dict[str, Any] = {"bar": bar.text, "means": bar.measure.means, "of": value.seen[1]}
    told |= {"holds": None, "value": None, "baseline": None}
    if value.rate is None or (bar.from_baseline and before.rate is None):
        return told
    found = value.count if bar.counts else value.rate
    if bar.side != "estimate":
        found = figures.measure(bar.measure.name)[bar.side]
    base = before.count if bar.counts else before.rate or 0.0
    return told | {"holds": bar.holds(found, base), "value": found, "baseline": base, "counts": bar.counts}


def _weighted(counts: Mapping[tuple[str], int], weights: Weights) -> float:
    return Value({old: (number, number) for (old,), number in counts.items()}, weights).count


def _matrix(tally: Tally, weights: Weights) -> list[dict[str, Any]]:
    cells: Counter[tuple[str, str]] = Counter()
    for (old, new, _), number in tally.matrix.items():
        cells[old, new] += number
    return [
        {"old": old, "new": new, "count": Value({old: (number, 0)}, weights).count, "seen": number}
        for (old, new), number in sorted(cells.items(), key=lambda item: tuple(map(VERDICTS.index, item[0])))
    ]


def _causes(tally: Tally, weights: Weights) -> list[dict[str, Any]]:
    out = []
    for cause in CAUSES:
        flips = {old: 0 for _, old, _ in tally.causes}
        reasons = dict(flips)
        for (name, old, new), number in tally.causes.items():
            if name == cause:
                (flips if old != new else reasons)[old] += number
        if any(flips.values()) or any(reasons.values()):
            out.append(
                {
                    "cause": cause,
                    "flips": Value({old: (number, 0) for old, number in flips.items()}, weights).count,
                    "other_reasons": Value({old: (number, 0) for old, number in reasons.items()}, weights).count,
                }
            )
    return out


def _rules(figures: Intervals, policy: CompiledPolicy) -> list[dict[str, Any]]:
    """Every rule that fired before or after, and those of the candidate that never did, in the policy's order."""
    tally = figures.tally
    mine = [rule.id for rule in policy.rules]
    names = [*mine, *sorted(set(tally.rules) - set(mine))]
    harmful = {(old, new): number for (old, new, meaning), number in tally.matrix.items() if meaning == "harmful"}
    return [_rule(name, name in mine, figures, harmful) for name in names]


def _rule(
    name: str, is_mine: bool, figures: Intervals, harmful: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    tally, weights = figures.tally, figures.weights
    cases = tally.rules.get(name, Counter())

    def share(side: int, wanted: Iterable[str | None], among: Iterable[str | None]) -> Value:
        strata: dict[str, tuple[int, int]] = {}
        for case, number in cases.items():
            if case[side] == "matched" and case[4] in among:
                part, whole = strata.get(case[2], (0, 0))
                strata[case[2]] = (part + (number if case[4] in wanted else 0), whole + number)
        return Value(strata, weights)

    def recall(side: int) -> Value:
        strata = {old: (0, 0) for old, _ in harmful}
        for (old, _), number in harmful.items():
            strata[old] = (0, strata[old][1] + number)
        for case, number in cases.items():
            if case[side] == "matched" and case[4] == "harmful":
                part, whole = strata[case[2]]
                strata[case[2]] = (part + number, whole)
        return Value(strata, weights)

    def fired(side: int, how: str) -> float:
        counts: Counter[tuple[str]] = Counter()
        for case, number in cases.items():
            if case[side] == how:
                counts[(case[2],)] += number
        return _weighted(counts, weights)

    caused = {(old, new): n for (rule, old, new), n in tally.blamed.items() if rule == name}
    return {
        "rule": name,
        "in_candidate": is_mine,
        "fired_before": fired(0, "matched"),
        "fired_after": fired(1, "matched"),
        "unknown_before": fired(0, "indeterminate"),
        "unknown_after": fired(1, "indeterminate"),
        "flips": sum(Value({old: (n, 0)}, weights).count for (old, _), n in caused.items()),
        "flips_by": [
            {"old": old, "new": new, "count": Value({old: (n, 0)}, weights).count}
            for (old, new), n in sorted(caused.items())
        ],
        "precision_before": figures.of(share(0, ("harmful",), ("harmful", "fine"))),
        "precision_after": figures.of(share(1, ("harmful",), ("harmful", "fine"))),
        "recall_before": figures.of(recall(0)),
        "recall_after": figures.of(recall(1)),
    }


def _slice(
    values: Mapping[str, Counter[Pair]],
    name: str,
    figures: Intervals,
    tested: Mapping[tuple[str, str], dict[str, Any]],
) -> list[dict[str, Any]]:
    rows = []
    for value, pairs in values.items():
        tally = Tally(matrix=pairs)
        flips = measured(MEASURES["flips"], tally, figures.weights)
        rows.append(
            {
                "value": value,
                "compared": flips.of,
                "seen": tally.compared,
                "flips": figures.of(flips),
                "outcomes": {
                    key: {
                        "before": figures.of(measured(MEASURES[key], tally, figures.weights, baseline=True)),
                        "after": figures.of(measured(MEASURES[key], tally, figures.weights)),
                    }
                    for key in ("failures_caught", "fine_allowed")
                },
                "change": tested.get((name, value)),
            }
        )
    if name == "amount":
        return sorted(rows, key=lambda row: band_order(row["value"]))
    return sorted(rows, key=lambda row: (-row["compared"], row["value"]))


def _time(figures: Intervals, run: Run) -> dict[str, Any]:
    """Rates over time, in at most 48 points of equal length; and when each policy first decided."""
    tally = figures.tally
    if not tally.hours:
        return {"hours": 0, "points": [], "releases": []}
    first, last = min(tally.hours), max(tally.hours)
    each = tally.hours_each * -(-(last - first + tally.hours_each) // (_POINTS * tally.hours_each))
    points: dict[int, Counter[Pair]] = {}
    for hour, pairs in tally.hours.items():
        points.setdefault((hour - first) // each, Counter()).update(pairs)
    return {
        "hours": each,
        "points": [_point(first + place * each, pairs, figures) for place, pairs in sorted(points.items())],
        "releases": [
            {"at": iso_time(ms), "name": name, "hash": hash_}
            for hash_, (name, ms, _) in sorted(run.seen.policies.items(), key=lambda item: item[1][1])
        ],
    }


def _point(hour: int, pairs: Counter[Pair], figures: Intervals) -> dict[str, Any]:
    tally, weights = Tally(matrix=pairs), figures.weights
    return {
        "at": iso_time(hour * HOUR_MS),
        "compared": tally.compared,
        "flips": figures.of(measured(MEASURES["flips"], tally, weights)),
        "before": {v: measured(MEASURES[f"verdict.{v}"], tally, weights, baseline=True).rate for v in VERDICTS},
        "after": {v: measured(MEASURES[f"verdict.{v}"], tally, weights).rate for v in VERDICTS},
    }


def _by_verdict(counts: Mapping[str, int]) -> dict[str, int]:
    return {verdict: counts[verdict] for verdict in VERDICTS if counts.get(verdict)}


def _named(named: Iterable[tuple[str, str, str]]) -> list[dict[str, str]]:
    return [{"kind": kind, "place": place, "message": message} for kind, place, message in named]
