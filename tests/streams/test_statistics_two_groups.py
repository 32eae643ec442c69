"""Two groups: Fisher's test is scipy's, and the association is unbiased where there is none."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from schemas.errors import BadInput
from streams.statistics.drift import drift
from streams.statistics.two_groups import association, fisher

COUNTS = st.integers(0, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(COUNTS, COUNTS)
def test_fishers_test_is_scipys(first: tuple[int, int], second: tuple[int, int]) -> None:
    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    assert fisher(first, second).p_value == pytest.approx(float(stats.fisher_exact(table)[1]), abs=1e-9)


def test_counts_that_are_none_are_refused() -> None:
    with pytest.raises(BadInput):
        fisher((3, 2), (0, 1))


def test_what_tells_apart_wholly_is_one_and_noise_is_near_nothing() -> None:
    assert association({"a": 40}, {"b": 30}) == pytest.approx(1.0)
    assert association({"a": 40}, {"a": 30}) == 0
    rng = random.Random(3)
    pairs = [tuple(Counter(str(rng.randrange(20)) for _ in range(60)) for _ in range(2)) for _ in range(40)]
    corrected = sum(association(*pair) for pair in pairs) / 40
    plain = sum((drift(*pair).chi_squared / 120) ** 0.5 for pair in pairs) / 40
    assert corrected < 0.15 < 0.35 < plain
    assert association({"a": 30, "b": 10}, {"a": 10, "b": 30}) > 0.4
