"""`lumyn rate changes`: the input that moved in an incident's window comes first, noise does not."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from schemas.ids import iso_time

pytest_plugins = ("inside_plugin",)


def asked(number: int, rng: random.Random, **provenance: Any) -> dict[str, Any]:
    body = refund(20, user=f"usr_{number}")
    body["provenance"] = {
        "model": "m-1", "region": rng.choice(["eu", "us", "ap"]), "trace_id": f"t-{number:06d}",
        "index": {"lag_s": round(rng.uniform(0, 5), 3)}, **provenance,
    }  # fmt: skip
    return body


def now() -> str:
    """A time that nothing was decided at: a millisecond as `--to` is included whole."""
    time.sleep(0.01)
    said = iso_time(int(time.time() * 1000))
    time.sleep(0.01)
    return said


@pytest.fixture
def window(inside: Inside) -> tuple[str, str]:
    """60 decisions before, 40 in a window with a new tool schema, an index that lags, and failures, 20 after."""
    rng = random.Random(11)
    number = 0
    for _ in range(60):
        inside.decide(asked(number := number + 1, rng, tool_schema="sha256:old"))
    start = now()
    for turn in range(40):
        body = asked(number := number + 1, rng, tool_schema="sha256:new" if turn % 2 else "sha256:old")
        body["provenance"]["index"]["lag_s"] = round(rng.uniform(40, 60), 3)
        made = inside.decide(body)
        if turn % 2 and turn > 4:
            sdk.label(str(made["decision_id"]), "failure", actor="ann")
    end = now()
    for _ in range(20):
        inside.decide(asked(number := number + 1, rng, tool_schema="sha256:much-later"))
    return start, end


def test_what_tells_bad_from_good_comes_first(inside: Inside, window: tuple[str, str]) -> None:
    start, end = window
    told = inside.json("rate", "changes", "--from", start, "--to", end, "--since", "2020-01-01", "--bad", "label=failure",
                       "--json")  # fmt: skip
    assert (told["before"]["n"], told["window"]["n"], told["window"]["events"]) == (60, 40, 18)
    ranked = [one["factor"] for one in told["factors"]]
    assert ranked[0] == "provenance.tool_schema" and told["ranked_by"] == "separates"
    first = told["factors"][0]
    assert first["new"] == ["sha256:new"] and first["separates"]["association"] > 0.8
    assert first["separates"]["p_adjusted"] < 1e-6
    lag = next(one for one in told["factors"] if one["factor"] == "provenance.index.lag_s")
    assert lag["median"][0] < 5 < 40 < lag["median"][1] and lag["differs"]["psi"] > lag["differs"]["psi_expected"]
    region = next(one for one in told["factors"] if one["factor"] == "provenance.region")
    assert region["separates"]["association"] < 0.5 and region["differs"]["p_adjusted"] > 0.05
    assert told["not_compared"] == ["provenance.trace_id"]
    assert "much-later" not in str(told)
    text = inside.run("rate", "changes", "--from", start, "--to", end, "--since", "2020-01-01", "--bad", "label=failure")
    assert "new: sha256:new" in text.stdout and "median" in text.stdout and "trace_id" in text.stderr


def test_without_a_word_on_what_is_bad_the_largest_change_comes_first(inside: Inside, window: tuple[str, str]) -> None:
    start, end = window
    told = inside.json("rate", "changes", "--from", start, "--to", end, "--since", "2020-01-01", "--json")
    assert told["ranked_by"] == "differs" and told["factors"][0]["factor"] == "provenance.index.lag_s"
    assert told["factors"][0]["separates"] is None


def test_the_mix_of_traffic_is_a_factor(inside: Inside) -> None:
    for number in range(20):
        inside.decide(refund(20, user=f"a{number}"))
    start = now()
    for number in range(20):
        body = refund(20, user=f"b{number}")
        body["action"]["type"] = "refund" if number % 4 == 0 else "credit_note"
        inside.decide(body)
    (first, *_) = inside.json("rate", "changes", "--from", start, "--since", "2020-01-01", "--json")["factors"]
    assert first["factor"] == "action_type" and first["new"] == ["credit_note"]
    assert first["differs"]["p_adjusted"] < 0.001


def test_an_empty_side_is_said_and_not_compared(inside: Inside, window: tuple[str, str]) -> None:
    done = inside.run("rate", "changes", "--from", "2020-01-01", "--bad", "label=failure")
    assert "one of them is empty" in done.stderr
    told = inside.json("rate", "changes", "--from", "2020-01-01", "--bad", "label=failure", "--json")
    assert told["before"]["n"] == 0 and all(one["differs"] is None for one in told["factors"])
    assert told["factors"][0]["factor"] == "provenance.tool_schema"


def test_tenants_never_meet(inside: Inside, window: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_TENANT", "other")
    inside.decide(refund(1))
    told = inside.json("rate", "changes", "--from", window[0], "--since", "2020-01-01", "--json")
    assert (told["before"]["n"], told["window"]["n"], told["factors"]) == (0, 1, [])


@pytest.mark.parametrize("more", [
    ("--from", "3:10"), ("--from", "2024-13-01"), ("--from", "2999-01-01"), ("--from", "2024-02-01", "--to", "2024-01-01"),
    ("--from", "2024-02-01", "--since", "2024-03-01"), ("--from", "2024-02-01", "--bad", "x"), (),
])  # fmt: skip
def test_misuse_is_exit_2(inside: Inside, more: tuple[str, ...]) -> None:
    inside.decide(refund(1))
    assert inside.run("rate", "changes", *more, code=2).stdout == ""
