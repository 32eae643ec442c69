"""What a backtest tells decisions apart by: two values that differ are never one."""

from __future__ import annotations

import pytest

from streams.backtest.case import reading


@pytest.mark.parametrize(
    ("one", "other"), [(10_000_001, 10_000_002), (1234567.89, 1234567.9), (1, "01"), (None, "null"), (True, 1)]
)
def test_values_that_differ_are_slices_of_their_own(one: object, other: object) -> None:
    of = reading(["evidence.account"], "subject_id").dimensions["evidence.account"]
    assert of({"evidence": {"account": one}}) != of({"evidence": {"account": other}})


def test_a_number_is_the_same_however_it_was_written() -> None:
    of = reading(["evidence.account"], "subject_id").dimensions["evidence.account"]
    assert of({"evidence": {"account": 2.0}}) == of({"evidence": {"account": 2}}) == "2"
