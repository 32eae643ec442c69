"""A behaviour rate in words and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lumyn.backtest_words import share
from lumyn.cli.output import one_line, out, say, table

_BAR = 30
_MOST_OUTCOMES = 20
_MOST_CHANGES = 20


def bar(part: float) -> str:
    """A share as a bar."""
    return "█" * round(part * _BAR) or ("▏" if part else "")


def list_text(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print samples, one a line. The agent stands last: however long its path is, it pushes nothing out of sight."""
    head = ("rate_id", "created_at", "decision_id", "event", "seen", "rate, 95%", "agent")
    out(table(head, [
        (row["rate_id"], row["created_at"][:19] + "Z", row["decision_id"], one_line(row["event"] or ""),
         f"{row['seen']} of {row['answered']}" if row["event"] is not None else f"{row['answered']} answered",
         share(row), one_line(row["agent"]))
        for row in rows
    ]))  # fmt: skip


def sample_text(told: Mapping[str, Any]) -> None:
    """Print a sample of runs."""
    asked = told["asked"]
    out(f"rate {told['rate_id']}: {asked['agent']} on decision {told['decision_id']}")
    stopped = f"; stopped early: {told['stopped']}" if told["stopped"] else ""
    out(f"runs: {told['runs']} of {asked['runs']}, {told['answered']} with an outcome{one_line(stopped)}")
    out("")
    if told["outcomes"]:
        method = told["outcomes"][0]["method"]
        out(table((asked["outcome"], "runs", f"rate, 95% ({method})", ""), [
            (one_line(row["outcome"]) + (" *" if row["outcome"] == asked["event"] else ""), str(row["runs"]),
             share(row), bar(row["rate"]))
            for row in told["outcomes"]
        ]))  # fmt: skip
    for why, count in told["failures"].items():
        out(f"no outcome: {count} x {one_line(why)}")
    if told["event"] is not None:
        _event_text(told["event"])
    _metadata_text(told)


def _event_text(event: Mapping[str, Any]) -> None:
    out("")
    seen = share(event) or "nothing is known"
    out(f"* `{one_line(event['outcome'])}`: {event['runs']} times, {seen}")
    if event["whatever_failed"] is not None:
        ends = event["whatever_failed"]
        out(f"  whatever the runs without an outcome would have said: {ends['lower']:.1%} to {ends['upper']:.1%}")
    fits = event["reported"]
    if fits is not None and fits["consistent"] is not None:
        word = "consistent" if fits["consistent"] else "NOT consistent"
        out(f"  {word} with the report ({one_line(fits['text'])}): {fits['why']}")
    need = event["needed"]
    if need["runs"] is None:
        out("  how many runs would show it is not known: nothing was observed")
        return
    runs = "1 run" if need["runs"] == 1 else f"{need['runs']} runs"
    if need["basis"] == "upper bound":
        out(f"  it was not seen: its rate is at most {need['rate']:.2%}, so at least {runs} would show it")
    else:
        shows = "shows" if need["runs"] == 1 else "show"
        out(f"  at the {need['basis']} rate, {need['rate']:.2%}, {runs} {shows} it with a chance of 95%")


def _metadata_text(told: Mapping[str, Any]) -> None:
    rows = [
        (one_line(name), one_line(field["recorded"] or ""), one_line(one["value"]), str(one["runs"]), str(one["event"]))
        for name, field in told["metadata"].items()
        for one in field["values"]
    ]
    if rows:
        out("")
        out(table(("provider metadata", "recorded then", "now", "runs", "with the event"), rows))
    for name in told["changed_since_recorded"]:
        say(f"`{one_line(name)}` is another one than when the decision was made: this samples the agent as it is now")


def traffic_text(told: Mapping[str, Any]) -> None:
    """Print a rate in recorded traffic."""
    of = f" like {told['like']} (similarity {told['similarity']:g} or more)" if told["like"] else ""
    out(f"{told['decisions']} decisions{of}")
    rows = told["bands"] or told["outcomes"][:_MOST_OUTCOMES]
    if rows:
        out(table((told["outcome"], "decisions", "rate, 95%", ""), [
            (one_line(row["outcome"]), str(row["events"]), share(row), bar(row["rate"])) for row in rows
        ]))  # fmt: skip
    more = [] if told["bands"] else told["outcomes"][_MOST_OUTCOMES:]
    if more:
        of = sum(row["events"] for row in more)
        out(f"and {len(more)} more values, of {of} decisions: `--json` has them all")
    event = told["event"]
    if event is None:
        say("`--event OUTCOME` or `--bad QUERY` names what to estimate, before and after each change")
        return
    out("")
    named = event["bad"] if event["bad"] is not None else event["outcome"]
    seen = share(event) or "nothing is known"
    out(f"`{one_line(named)}`: {event['events']} times, {seen}, {event['subjects']} subjects")
    for warning in event["warnings"]:
        say(f"note: {warning}")
    if told["changes"]:
        out("")
        out(table(("from", "what changed", "before", "after", "p (Holm)"), [
            (one["at"][:19] + "Z", _change(one), _counted(one["before"]), _counted(one["after"]),
             f"{one['p_adjusted']:.2g}")
            for one in told["changes"][:_MOST_CHANGES]
        ]))  # fmt: skip
        if len(told["changes"]) > _MOST_CHANGES:
            say(f"the {_MOST_CHANGES} most telling changes are shown; `--json` has more")
    if told["not_compared"]:
        names = ", ".join(map(one_line, told["not_compared"]))
        say(f"another value nearly each time, or measured, so without a before and after: {names}")


def _change(one: Mapping[str, Any]) -> str:
    return f"{one_line(one['factor'])} = {one_line(one['value'])}{' (again)' if one['again'] else ''}"


def _counted(figure: Mapping[str, Any]) -> str:
    return f"{figure['events']} of {figure['n']}, {share(figure)}"
