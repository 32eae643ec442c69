"""Behaviour rates: how often an agent does something on one input, and whether that fits what was reported.

A run that gave no answer (it failed, hung, flooded) is no outcome: rates are of the answers, and beside them stand the
bounds that hold whatever the others would have been.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from schemas.errors import UsageError
from streams.statistics.estimate import LEVEL, Interval
from streams.statistics.power import runs_to_see
from streams.statistics.proportions import clopper_pearson, wilson_interval
from streams.statistics.selective import Bounds, bounds
from streams.statistics.sequences import proportion_sequence

LEAST_RATE = 1e-9
"""A rate below it counts as never: no number of runs is named for it."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What was reported: so many times `of` so many, or a rate that is claimed as such."""

    text: str
    rate: float
    times: int | None = None
    of: int | None = None


def parse_reported(text: str) -> Reported:
    """`3 of 200`, `1.5%` or `0.015`. Raises `UsageError`."""
    counts = re.fullmatch(r"\s*(\d{1,12})\s*(?:of|/)\s*(\d{1,12})\s*", text, re.ASCII)
    if counts:
        times, of = int(counts[1]), int(counts[2])
        if 0 <= times <= of and of > 0:
            return Reported(text, times / of, times, of)
        raise UsageError(f"`--reported`: {times} of {of} is no rate")
    share = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})\s*(%?)\s*", text, re.ASCII)
    rate = float(share[1]) / (100 if share[2] else 1) if share else -1.0
    if not 0 <= rate <= 1:
        raise UsageError(f"`--reported`: `{text}` is no rate", help="such as `3 of 200`, `1.5%` or 0.015")
    return Reported(text, rate)


@dataclass(slots=True)
class Tally:
    """The outcomes of runs so far, and why others gave none."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """Runs with an outcome."""
        return self.outcomes.total()

    @property
    def runs(self) -> int:
        """All runs."""
        return self.answered + self.failures.total()


@dataclass(frozen=True, slots=True)
class Consistency:
    """Whether measured and reported rate can be the same one. None: nothing was answered."""

    consistent: bool | None
    measured: Interval
    reported: Interval | None
    why: str


@dataclass(frozen=True, slots=True)
class Needed:
    """How many runs show it at least once with a chance of 95%. `runs` is None where it may never happen."""

    runs: int | None
    rate: float
    basis: str
    """`reported`, `measured`, or `upper bound`: then it is at least so many."""


def intervals(tally: Tally, *, watched: bool, level: float = LEVEL) -> list[tuple[str, int, Interval]]:
    """The histogram, the most frequent first. Where the size was not fixed beforehand (`watched`), Wilson's interval

    does not hold, and that of a confidence sequence does.
    """
    n = tally.answered
    make = _interval_of(watched)
    ranked = sorted(tally.outcomes.items(), key=lambda item: (-item[1], item[0]))
    return [(name, count, make(count, n, level)) for name, count in ranked]


def _interval_of(watched: bool) -> Callable[[int, int, float], Interval]:
    return proportion_sequence if watched else wilson_interval


def whatever_failed(tally: Tally, event: str, level: float = LEVEL) -> Bounds | None:
    """The bounds of the event's rate over all runs, whatever those without an answer would have said."""
    if not tally.failures or not tally.runs:
        return None
    return bounds(tally.outcomes[event], tally.answered, tally.runs, level)


def consistency(tally: Tally, event: str, reported: Reported, level: float = LEVEL) -> Consistency:
    """Whether there is a rate that fits both. It may be asked after every run: the error rate is kept all the same.

    A claimed rate is inconsistent when the confidence sequence excludes it. Counts have an error of their own: both
    intervals are made at 1 - alpha / 2 (Bonferroni), and are inconsistent when they have no rate in common.
    """
    n, seen = tally.answered, tally.outcomes[event]
    if reported.times is None or reported.of is None:
        measured, claimed = proportion_sequence(seen, n, level), None
        low = high = reported.rate
    else:
        half = (1 + level) / 2
        measured, claimed = proportion_sequence(seen, n, half), clopper_pearson(reported.times, reported.of, half)
        low, high = claimed.lower, claimed.upper
    if n == 0:
        return Consistency(None, measured, claimed, "no run gave an answer")
    if measured.lower > high:
        return Consistency(False, measured, claimed, "it happens more often than was reported")
    if measured.upper < low:
        return Consistency(False, measured, claimed, "it happens more rarely than was reported")
    return Consistency(True, measured, claimed, "one rate fits both")


def needed(tally: Tally, event: str, reported: Reported | None, *, watched: bool, level: float = LEVEL) -> Needed:
    """How many runs would show it. An upper bound is that of the interval which is told of the event (`intervals`)."""
    if reported is not None and reported.rate > LEAST_RATE:
        return Needed(_runs_to_see(reported.rate), reported.rate, "reported")
    seen, n = tally.outcomes[event], tally.answered
    if seen:
        return Needed(_runs_to_see(seen / n), seen / n, "measured")
    upper = _interval_of(watched)(0, n, level).upper
    return Needed(_runs_to_see(upper) if LEAST_RATE < upper < 1 else None, upper, "upper bound")


def _runs_to_see(rate: float) -> int:
    return 1 if rate >= 1 else runs_to_see(rate)


def enough(
    tally: Tally, event: str | None, reported: Reported | None, margin: float | None, level: float = LEVEL
) -> str | None:
    """Why no more runs are needed, or None. Sound however often it is asked, as it rests on confidence sequences."""
    if event is None or not tally.answered:
        return None
    if reported is not None:
        found = consistency(tally, event, reported, level)
        if found.consistent is False:
            return found.why
    if margin is not None:
        known = proportion_sequence(tally.outcomes[event], tally.answered, level)
        if (known.upper - known.lower) / 2 <= margin:
            return f"the rate is known to within {margin:g}"
    return None


def tally_of(runs: Iterable[tuple[str | None, str | None]]) -> Tally:
    """The tally of (outcome, or why there is none) pairs."""
    tally = Tally()
    for outcome, why in runs:
        if outcome is not None:
            tally.outcomes[outcome] += 1
        else:
            tally.failures[why or "no answer"] += 1
    return tally
