"""Behaviour rates: what is said to be inconsistent seldom is wrong, however often one looks, and what differs is found."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import UsageError
from streams.behaviour import Tally, consistency, enough, intervals, needed, parse_reported, whatever_failed
from streams.statistics.power import runs_to_see


def tally(event: int, other: int, failed: int = 0) -> Tally:
    return Tally(Counter({"bad": event, "fine": other}), Counter({"exit 1": failed}) if failed else Counter())


def stops_wrongly(rate: float, report: str, runs: int, rng: random.Random) -> bool:
    """Whether a run that is looked at after each answer is ended for a report of the same rate."""
    reported = parse_reported(report)
    seen = Tally()
    for _ in range(runs):
        seen.outcomes["bad" if rng.random() < rate else "fine"] += 1
        if enough(seen, "bad", reported, None) is not None:
            return True
    return False


@pytest.mark.parametrize("report", ["30%", "300000 of 1000000"])
def test_looking_after_every_run_calls_a_true_report_false_in_fewer_than_one_of_twenty(report: str) -> None:
    """The report is exact, so that all the error is the sample's."""
    rng = random.Random(20240613)
    wrong = sum(stops_wrongly(0.3, report, 120, rng) for _ in range(100))
    assert wrong <= 5, wrong


def test_a_report_that_is_a_sample_itself_may_err_too() -> None:
    rng = random.Random(20240614)
    wrong = 0
    for _ in range(100):
        times = sum(rng.random() < 0.05 for _ in range(60))
        wrong += stops_wrongly(0.05, f"{times} of 60", 60, rng)
    assert wrong <= 5, wrong


def test_a_report_of_another_rate_is_found_out() -> None:
    rng = random.Random(5)
    reported = parse_reported("2 of 400")
    found = 0
    for _ in range(20):
        seen = Tally()
        for _ in range(100):
            seen.outcomes["bad" if rng.random() < 0.3 else "fine"] += 1
            if enough(seen, "bad", reported, None):
                found += 1
                break
    assert found == 20


def test_more_often_and_more_rarely_are_told_apart() -> None:
    assert consistency(tally(60, 40), "bad", parse_reported("1%")).why.startswith("it happens more often")
    assert consistency(tally(0, 400), "bad", parse_reported("90 of 100")).why.startswith("it happens more rarely")
    assert consistency(tally(0, 0, 5), "bad", parse_reported("1%")).consistent is None
    one = consistency(tally(1, 0), "bad", parse_reported("1 of 1"))
    assert one.consistent is True and one.reported is not None and one.reported.upper == 1


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 20))
def test_bounds_hold_whatever_failed_and_needed_never_raises(event: int, other: int, failed: int) -> None:
    seen = tally(event, other, failed)
    found = whatever_failed(seen, "bad")
    if found is not None:
        assert found.lower == event / seen.runs and found.upper == (event + failed) / seen.runs
    need = needed(seen, "bad", None, watched=True)
    assert need.runs is None or need.runs >= 1
    assert (need.runs is None) == (event + other == 0)
    watched, fixed = intervals(seen, watched=True), intervals(seen, watched=False)
    if seen.answered:
        assert [row[:2] for row in watched] == [row[:2] for row in fixed]
        assert all(w[2].lower <= f[2].lower + 0.02 and w[2].upper >= f[2].upper - 0.02
                   for w, f in zip(watched, fixed, strict=True))  # fmt: skip


@pytest.mark.parametrize(("text", "rate"), [("3 of 200", 0.015), ("3/200", 0.015), ("1.5%", 0.015), ("0.015", 0.015),
                                            ("100%", 1.0), (" 1 ", 1.0), ("0 of 5", 0.0)])  # fmt: skip
def test_reports_as_people_write_them(text: str, rate: float) -> None:
    assert parse_reported(text).rate == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "of", "3 of", "3 of 0", "4 of 3", "-1%", "101%", "1.2", "nan", "1e3", "٣ of ٤"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_reported(text)


@pytest.mark.parametrize("watched", [True, False])
def test_what_was_never_seen_has_one_upper_bound_wherever_it_is_told(watched: bool) -> None:
    seen = Tally(Counter({"other": 100, "bad": 0}))
    need = needed(seen, "bad", None, watched=watched)
    (told,) = (interval for name, _, interval in intervals(seen, watched=watched) if name == "bad")
    assert need.rate == told.upper and need.runs == runs_to_see(told.upper)
