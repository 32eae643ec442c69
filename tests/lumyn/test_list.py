"""`lumyn list`: what is shown is all there is, or it is said that it is not; money is shown as it was recorded."""

from __future__ import annotations

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from schemas.query import describe, parse_query

pytest_plugins = ("inside_plugin",)


@pytest.mark.parametrize("json", [(), ("--json",)])
@pytest.mark.parametrize(
    ("limit", "shown", "told"), [((), 20, True), (("--limit", 21), 21, False), (("--limit", 3), 3, True)]
)
def test_a_list_that_ends_before_the_decisions_do_says_so(
    inside: Inside, json: tuple[str, ...], limit: tuple[object, ...], shown: int, told: bool
) -> None:
    for _ in range(21):
        sdk.decide(refund(100))
    done = inside.run("list", *limit, *json)
    assert done.stdout.count("refunds") == shown
    assert (done.stderr == f"the newest {shown} are shown, and there are more; `--limit` shows them\n") is told
    assert bool(done.stderr) is told


def test_what_a_query_leaves_out_is_not_more(inside: Inside) -> None:
    for amount in (100, 300, 310):
        sdk.decide(refund(amount))
    assert "more" not in inside.run("list", "--limit", 1, "--query", "verdict=ALLOW").stderr
    assert "there are more" in inside.run("list", "--limit", 1, "--query", "verdict=ESCALATE").stderr


@pytest.mark.parametrize("command", [("list",), ("backtest", "--policy", "policy.yml")])
def test_a_very_long_query_is_told_by_its_beginning_its_end_and_what_is_left_out(
    inside: Inside, command: tuple[str, ...]
) -> None:
    sdk.decide(refund(100))
    terms = " OR ".join(f"amount={number}" for number in range(4998))
    query = f"({terms}) AND (created_at > '2020-01-01' OR verdict=ALLOW)"
    whole = describe(parse_query(query, now_ms=0))
    line = next(one for one in inside.run(*command, "--query", query).stderr.splitlines() if one.startswith("query: "))
    told = line.removeprefix("query: ")
    assert len(told) < 1000
    beginning, count, end = told.split(" … ")
    assert whole.startswith(beginning) and whole.endswith(end) and "2020-01-01T00:00:00" in end
    assert count == f"({len(whole) - len(beginning) - len(end):,} characters left out; it has 5,000 terms)"
    short = inside.run(*command, "--query", "amount IN (1, 100)")
    assert "query: amount IN (1, 100)\n" in short.stderr


@pytest.mark.parametrize(("amount", "text"), [(1234567.89, "1234567.89"), (12345.67, "12345.67"), (1e-7, "1e-7"), (300, "300")])
def test_no_digit_of_an_amount_is_left_out(inside: Inside, amount: float, text: str) -> None:
    sdk.decide(refund(amount))
    assert f"| {text} USD |" in inside.run("list").stdout.replace("  ", "")


def test_a_time_that_has_not_come_yet_is_told(inside: Inside) -> None:
    sdk.decide(refund(100))
    later = inside.run("list", "--query", "verdict = ALLOW AND created_at > '2999-01-01 23:00'").stderr
    assert "note: 2999-01-01T23:00:00.000Z has not come yet; a time without a day is today's (UTC)" in later
    assert "has not come" not in inside.run("list", "--query", "created_at > '00:00' AND created_at < '2999-01-01'").stderr
