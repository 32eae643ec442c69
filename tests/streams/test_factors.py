"""Factors: what does not matter is seldom called telling, what does is, and ids and numbers are known for what they are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.factor_drift import compared_factors
from streams.factors import OTHER, Observed, categories, changes
from streams.outcome import ABSENT
from streams.request_factors import PRESENT, request_factors, request_kinds


def history(rng: random.Random, n: int, telling: bool) -> list[Observed]:
    """Decisions with three factors of noise and one that changes in the middle, and matters or not."""
    out = []
    for at in range(n):
        version = "v2" if at >= n // 2 else "v1"
        chance = 0.5 if telling and version == "v2" else 0.1
        factors = {
            "version": version,
            "region": rng.choice("abc"),
            "tier": rng.choice("xy"),
            "lag": f"{rng.uniform(0, 9):.4f}",
        }
        out.append(Observed(at, f"s{at}", rng.random() < chance, factors))
    return out


def test_noise_is_called_telling_in_about_one_of_twenty_histories_at_most() -> None:
    rng = random.Random(41)
    alarms = 0
    for _ in range(200):
        told, _ = compared_factors(history(rng, 200, telling=False), 100, with_bad=True)
        alarms += any(one["separates"]["p_adjusted"] < 0.05 for one in told)
    assert alarms <= 16, alarms


def test_what_matters_is_ranked_first_and_dated() -> None:
    rng = random.Random(42)
    first = dated = 0
    for _ in range(30):
        observed = history(rng, 200, telling=True)
        told, _ = compared_factors(observed, 100, with_bad=True)
        first += told[0]["factor"] == "version"
        found, left_out = changes(observed)
        dated += (found[0].factor, found[0].at_ms) == ("version", 100) and found[0].p_adjusted < 0.05
        assert left_out == ["lag"]
    assert first >= 28 and dated >= 28


def test_a_change_is_compared_up_to_the_changes_beside_it() -> None:
    observed = [Observed(at, "s", at >= 30, {"v": f"v{at // 10}"}) for at in range(40)]
    found = {one.value: (one.before, one.after) for one in changes(observed)[0]}
    assert found == {"v1": ((0, 10), (0, 10)), "v2": ((0, 10), (0, 10)), "v3": ((0, 10), (10, 10))}


def test_ids_are_left_out_numbers_are_binned_and_rare_values_are_one() -> None:
    assert categories([f"id-{at}" for at in range(100)]) is None
    binned = categories([str(at / 7) for at in range(100)])
    assert binned is not None and len(set(binned)) == 10
    assert max(binned.count(one) for one in set(binned)) <= 12
    many = categories([f"v{min(at // 3, 70)}" for at in range(400)])
    assert many is not None and OTHER in many and len(set(many)) == 50
    assert categories(["a", ABSENT, "b"]) == ["a", ABSENT, "b"]
    assert categories(["nan", "inf", *map(str, range(30)), *map(str, range(30))]) is not None


def test_of_a_request_ids_and_names_are_told_as_there_or_not_and_numbers_only_where_they_are_binned() -> None:
    assert request_kinds(["f"] * 3 + ["m"] * 4) == ["f"] * 3 + ["m"] * 4
    assert request_kinds(["Ann", "Bea", "Cem"]) is None
    assert request_kinds(["Ann", "Bea", "Cem", ABSENT]) == [PRESENT] * 3 + [ABSENT]
    assert request_kinds([str(at) for at in range(5)]) is None, "five account numbers"
    numbers = [str(at / 3) for at in range(40)]
    assert request_kinds([*numbers, "n/a"]) == [*numbers, "n/a"]
    assert request_kinds(["code-7", ABSENT, ABSENT]) == [PRESENT, ABSENT, ABSENT]


def test_what_cant_be_read_is_not_called_absent() -> None:
    observed = [Observed(at, "s", at < 4, {"evidence.g": "f" if at % 2 else "m"}) for at in range(20)]
    closed = [Observed(at, "s", True, {}, readable=False) for at in range(20, 30)]
    told, _ = compared_factors(observed + closed, 10, with_bad=True)
    assert [value["value"] for value in told[0]["values"]] == ["f", "m"] and told[0]["separates"]["association"] < 0.2


@given(st.dictionaries(st.text(max_size=130), st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner), max_leaves=20)))
def test_any_request_has_few_short_factors(fields: dict[str, object]) -> None:
    request = {"action": {"type": "x", **fields}, "evidence": fields, "context": {"mode": "inline", "inline": fields}}
    found = request_factors({"request": request}) or {}
    assert len(found) <= 3 * 64 and all(len(name) < 120 and len(value) <= 64 for name, value in found.items())
    assert "action.type" not in found


@given(st.lists(st.one_of(st.text(max_size=4), st.floats().map(str), st.integers().map(str)), max_size=60))
def test_any_values_have_categories_or_none(given_: list[str]) -> None:
    found = categories(given_)
    assert found is None or len(found) == len(given_)
    observed = [Observed(at, "s", at % 2 == 0, {"f": value}) for at, value in enumerate(given_)]
    changes(observed)
    compared_factors(observed, len(observed) // 2, with_bad=True)


@pytest.mark.parametrize("with_bad", [True, False])
def test_nothing_observed_is_nothing_told(with_bad: bool) -> None:
    assert compared_factors([], 0, with_bad=with_bad) == ([], [])
    assert changes([]) == ([], [])
