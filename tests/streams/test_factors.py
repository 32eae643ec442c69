"""Factors: what does not matter is seldom called telling, what does is, and ids and numbers are known for what they are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.factor_changes import changes
from streams.factor_drift import compared_factors
from streams.factors import OTHER, Observed, categories, names
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


def stretches(*parts: tuple[str, int, int]) -> list[Observed]:
    """A factor `v` in stretches of (value, decisions, how many of them are of the event), a millisecond apart."""
    out: list[Observed] = []
    for value, count, events in parts:
        out += [Observed(len(out) + at, f"s{at}", at < events, {"v": value}) for at in range(count)]
    return out


def test_what_comes_back_is_a_change_and_ends_what_was_before_it() -> None:
    """A policy that is rolled back: what follows is not the bad version's."""
    observed = stretches(("v1", 60, 2), ("v2", 50, 25), ("v1", 90, 3))
    found = {(one.value, one.again): (one.at_ms, one.before, one.after) for one in changes(observed)[0]}
    assert found == {("v2", False): (60, (2, 60), (25, 50)), ("v1", True): (110, (25, 50), (3, 90))}


def test_values_that_take_turns_are_no_changes() -> None:
    """Two models behind one address, as load has it: each is new once, and neither is left."""
    rng = random.Random(43)
    for share in (0.5, 0.2, 0.02):
        observed = [Observed(at, "s", False, {"v": "b" if rng.random() < share else "a"}) for at in range(2000)]
        assert [one.again for one in changes(observed)[0]] == [False]


def test_versions_have_a_before_and_after_however_many_and_though_they_are_numbers() -> None:
    days = stretches(*((f"202401{day:02}", 20, 12 if day == 17 else 1) for day in range(1, 26)))
    found, left_out = changes(days)
    assert left_out == [] and len(found) == 24
    assert {(found[0].value, found[1].value)} <= {("20240117", "20240118"), ("20240118", "20240117")}
    many = stretches(*((f"build-{number}", 20, 1) for number in range(80)))
    assert len(changes(many)[0]) == 79
    lags = [Observed(at, "s", False, {"lag": str(at * 7 % 90)}) for at in range(900)]
    assert changes(lags) == ([], ["lag"])


def test_decisions_of_one_moment_are_not_cut_by_the_order_of_their_ids() -> None:
    rng = random.Random(44)
    observed = [Observed(5, "s", value == "b", {"v": value}) for value in rng.sample(["a"] * 30 + ["b"] * 20, 50)]
    (found,) = changes([Observed(1, "s", False, {"v": "a"}), *observed])[0]
    assert (found.value, found.before, found.after) == ("b", (0, 31), (20, 20))


def test_bins_of_long_numbers_are_told_apart() -> None:
    """A version such as 20240117 has eight digits, a time in milliseconds thirteen."""
    for start in (20_240_100, 1_733_000_000_000, 0.1):
        binned = categories([str(start + (at * 37 % 100) / (10 if start < 1 else 1)) for at in range(300)])
        assert binned is not None and len(set(binned)) == 10
    binned = categories([str(20_240_100 + at % 100) for at in range(300)]) or []
    assert binned[:12] == ["up to 20240110"] * 11 + ["over 20240110 to 20240120"], "a bin says where it begins"
    assert binned[99] == "over 20240190"


def test_a_version_that_is_a_number_is_called_new_in_the_window() -> None:
    observed = stretches(*((str(20_240_101 + day), 20, 1) for day in range(20)))
    told, _ = compared_factors(observed, 380, with_bad=False)
    assert told[0]["new"] == ["20240120"] and told[0]["median"] is not None


def test_a_policy_of_one_version_and_two_contents_is_two() -> None:
    def observed(hash_: str) -> list[Observed]:
        return [Observed(at, "s", False, {"policy": "p@0", "policy_hash": "x" if at < 20 else hash_}) for at in range(40)]

    assert names(observed("x")) == ["policy"]
    assert names(observed("y")) == ["policy", "policy_hash"]
    assert [(one.factor, one.value) for one in changes(observed("y"))[0]] == [("policy_hash", "y")]
