"""What a label is worth: trust times decay, in numbers that every store gets alike."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory_service.worth import LEAST_WORTH, decay, oldest_that_counts, worth, worths

DAY_MS = 86_400_000
HALF_LIVES = st.integers(1, 36_500 * DAY_MS)
AGES = st.integers(-DAY_MS, 3 * 36_500 * DAY_MS)


@given(AGES, HALF_LIVES)
def test_it_is_a_half_to_the_power_of_the_age_in_half_lives(age_ms, half_life_ms):
    expected = 0.5 ** (max(0, age_ms) / half_life_ms)
    assert decay(age_ms, half_life_ms) == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(st.integers(0, 60), HALF_LIVES)
def test_whole_half_lives_are_exact(count, half_life_ms):
    assert decay(count * half_life_ms, half_life_ms) == math.ldexp(1, -count)


@given(AGES, st.integers(0, 10**11), HALF_LIVES)
def test_older_is_never_worth_more(age_ms, more, half_life_ms):
    assert decay(age_ms + more, half_life_ms) <= decay(age_ms, half_life_ms) <= 1


@pytest.mark.parametrize("age_ms", [0, -1, -DAY_MS])
def test_what_was_said_after_the_question_is_not_old(age_ms):
    assert decay(age_ms, DAY_MS) == 1


@given(st.integers(10, 20), HALF_LIVES)
def test_the_oldest_that_counts_is_worth_a_half_and_one_that_is_older_less(twentieths, half_life_ms):
    trust = twentieths * 5
    oldest = oldest_that_counts(trust, half_life_ms)
    assert worth(trust, oldest, half_life_ms) >= LEAST_WORTH - 1e-12
    assert worth(trust, oldest + 1, half_life_ms) < LEAST_WORTH + 1e-12


def test_full_trust_counts_for_one_half_life_to_the_millisecond_and_half_trust_while_it_is_new():
    assert (oldest_that_counts(100, 30 * DAY_MS), oldest_that_counts(50, 30 * DAY_MS)) == (30 * DAY_MS, 0)


def test_without_a_half_life_trust_alone_counts():
    assert worth(35, 10**15, None) == 0.35


def test_full_worths_are_left_out_so_that_nothing_is_weighed_where_nothing_need_be():
    assert worths([(100, 0), (100, -5)], DAY_MS) == () == worths([(100, 10**12)], None)
    assert worths([(100, 0), (50, DAY_MS)], DAY_MS) == (1.0, 0.25)
