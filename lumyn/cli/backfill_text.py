"""A backfill's report as text for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lumyn.backtest_words import rate
from lumyn.cli.backtest_text import Rows, Table, escaped, markdown_table
from lumyn.cli.output import one_line, table

_WAYS = ("recorded", "would be", "direction", "decisions", "what became of them")
_MONEY = ("recorded", "would be", "direction", "currency", "decisions", "amount recorded", "amount now")
_UNDOING = {
    "nothing_was_done": "was denied or left undecided: nothing to take back",
    "left_to_a_person": "was escalated: what the person did is not known here",
    "reversible": "was allowed, and can be taken back (as you said)",
    "irreversible": "was allowed, and can't be taken back (as you said)",
    "not_said": "was allowed; whether it can be taken back was not said (--reversible TYPE)",
}


def as_text(report: Mapping[str, Any]) -> str:
    """For a terminal."""
    return "\n\n".join(_sections(report, table, lambda title: title))


def as_markdown(report: Mapping[str, Any]) -> str:
    """For a page or a pull request."""
    return "\n\n".join(_sections(report, markdown_table, lambda title: f"### {escaped(title)}"))


def _sections(report: Mapping[str, Any], table_: Table, heading: Any) -> Iterator[str]:
    yield _head(report)
    ways: Rows = [
        (way["recorded"], way["would_be"], way["direction"], str(way["decisions"]), _outcomes(way["outcomes"]))
        for way in report["ways"]
    ]
    if ways:
        yield f"{heading('which way')}\n\n{table_(_WAYS, ways)}"
    money: Rows = [
        (row["from"], row["to"], row["direction"], row["currency"], str(row["decisions"]), row["recorded"],
         row["would_be"] or "")
        for row in report["money"]
    ]  # fmt: skip
    if money:
        yield f"{heading('how much money')}\n\n{table_(_MONEY, money)}"
    if report["money_not_comparable"]:
        said = "; ".join(f"{why}: {number}" for why, number in report["money_not_comparable"].items())
        yield one_line(f"not in these sums: {said}")
    if report["differ"]:
        affected = report["affected"]
        yield f"affected: {affected['subjects']} subjects, {affected['most_of_one']} decisions of one at the most"
        undoing: Rows = [(_UNDOING[kind], str(number)) for kind, number in report["undoing"].items()]
        yield f"{heading('what can be taken back')}\n\n{table_(('the action', 'decisions'), undoing)}"
    if report["states"]:
        said = ", ".join(f"{number} {state}" for state, number in report["states"].items())
        yield f"in the ledger: {said}"


def _head(report: Mapping[str, Any]) -> str:
    range_, against = report["range"], report["against"]
    figure = report["rate"]
    share = "" if figure["rate"] is None else f" ({rate(figure['rate'])}; {rate(figure['lower'])} to "
    share += "" if figure["rate"] is None else f"{rate(figure['upper'])})"
    lines = [
        f"backfill: {report['job']}{'' if report['written'] else ' (not in the ledger)'}",
        f"against: {against['kind']} {against['name']}, {against['digest']}",
        f"range: {range_['first']} to {range_['last']}, {range_['decisions']} decisions, {range_['root']}",
        f"compared: {report['compared']}; differ: {report['differ']}{share}",
    ]
    if report["not_compared"]:
        said = ", ".join(f"{kind}: {number}" for kind, number in report["not_compared"].items())
        lines.append(f"not compared: {said}")
    if report.get("outputs_of_no_decision"):
        lines.append(f"outputs of no decision in this range: {report['outputs_of_no_decision']}")
    return "\n".join(one_line(line) for line in lines)


def _outcomes(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())
