"""Bursts of labels by one labeller, counted as a plain recount would."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.suspects import BURST_MS, _fullest


@given(st.lists(st.integers(0, 6 * BURST_MS), max_size=40))
def test_the_fullest_ten_minutes_around_each_label(times: list[int]) -> None:
    times.sort()
    found = _fullest(times)
    for time in times:
        starts = [start for start in times if start <= time <= start + BURST_MS]
        assert found[time] == max(sum(start <= other <= start + BURST_MS for other in times) for start in starts)
