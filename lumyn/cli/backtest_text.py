"""A backtest's report as text for a terminal and as Markdown: the same tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lumyn.backtest_words import SHOWN, bar_row, change, fired, flip_row, interval, number, outcome_lines, share
from lumyn.cli.output import one_line, table
from schemas.verdict import VERDICTS

_VALUES = 12

Rows = Sequence[Sequence[str]]
Table = Callable[[Sequence[str], Rows], str]
Heading = Callable[[int, str], str]


def as_text(report: Mapping[str, Any]) -> str:
    """For a terminal."""
    return _made(report, table, lambda level, text: text if level > 1 else f"{text}\n{'=' * len(text)}")


def as_markdown(report: Mapping[str, Any]) -> str:
    """For a pull request or a page."""
    return _made(report, markdown_table, lambda level, text: f"{'#' * (level + 1)} {escaped(text)}")


def _made(report: Mapping[str, Any], table_: Table, heading: Heading) -> str:
    blocks = [_range_lines(report)]
    for place, candidate in enumerate(report["candidates"], start=1):
        several = f" {place} of {len(report['candidates'])}" if len(report["candidates"]) > 1 else ""
        blocks.append(heading(1, one_line(f"candidate{several}: {candidate['policy']}@{candidate['version']}")))
        for title, text in _sections(candidate, table_):
            blocks.append(f"{heading(2, title)}\n\n{text}" if title else text)
    return "\n\n".join(blocks)


def _range_lines(report: Mapping[str, Any]) -> str:
    range_, require = report["range"], report["require"]
    seen = f"{range_['first']} to {range_['last']}" if range_["first"] else "nothing that could be read"
    lines = [
        f"range: {range_['source']}, {seen}",
        f"decisions: {range_['decisions']}; with an outcome: {range_['labelled']['total']}",
        f"memory: {report['memory']}",
        f"root: {range_['root']}",
    ]
    if range_["sample"] is not None:
        strata = ", ".join(
            f"{verdict} {range_['verdicts'].get(verdict, 0)} of {size}"
            for verdict, size in range_["sample"]["strata"].items()
        )
        lines.append(f"sample: {strata}; every figure is weighted back to all of them")
    if require["bars"]:
        lines.append(f"bars: {require['hash']}")
    return "\n".join(one_line(line) for line in lines)


def _sections(candidate: Mapping[str, Any], table_: Table) -> Iterable[tuple[str, str]]:
    yield "", _headline(candidate)
    if candidate["bars"]:
        yield "bars", table_(("bar", "value", "baseline", "met"), [bar_row(bar) for bar in candidate["bars"]])
    yield "old verdict down, candidate's across", _matrix(candidate["matrix"], table_)
    if candidate["causes"]:
        rows = [(one["cause"], number(one["flips"]), number(one["other_reasons"])) for one in candidate["causes"]]
        yield "why", table_(("cause", "flips", "other reasons only"), rows)
    if candidate["outcomes"]:
        rows = [
            (name.replace("_", " "), interval(one["before"]), interval(one["after"]))
            for name, one in candidate["outcomes"]["figures"].items()
        ]
        text = table_(("figure", "recorded", "candidate"), rows)
        yield "where the outcome is known", "\n\n".join([text, *outcome_lines(candidate["outcomes"])])
    rules = [
        (
            rule["rule"] + ("" if rule["in_candidate"] else " (not in the candidate)"),
            fired(rule, "before"),
            fired(rule, "after"),
            number(rule["flips"]),
            share(rule["precision_after"]),
            share(rule["recall_after"]),
        )
        for rule in candidate["rules"]
    ]
    if rules:
        yield "rules", table_(("rule", "fired before", "after", "flips it causes", "precision", "recall"), rules)
    for name, values in candidate["slices"].items():
        if len(values) > 1:
            cut = [
                (one["value"], number(one["compared"]), interval(one["flips"]), change(one["change"]))
                for one in values[:_VALUES]
            ]
            yield f"by {name}", table_((name, "decisions", "flips", "right more / less often"), cut)
    if candidate["top"]:
        yield "the flips that matter most", table_(
            ("decision_id", "old", "new", "amount", "uncertainty", "known", "cause", "reasons"),
            [flip_row(flip) for flip in candidate["top"][:SHOWN]],
        )


def _headline(candidate: Mapping[str, Any]) -> str:
    coverage = candidate["coverage"]
    lines = [
        f"compared: {coverage['compared']}; flips: {interval(candidate['flips'])}",
        f"stricter: {interval(candidate['stricter'])}; milder: {interval(candidate['milder'])}; "
        f"same verdict for other reasons: {number(candidate['other_reasons'])}",
        f"with an outcome: {coverage['labelled']}; not comparable: {coverage['errored']}; of another policy: "
        f"{coverage['out_of_policy']}"
        + ("" if coverage["by_default"] is None else f"; by default, no rule spoke: {number(coverage['by_default'])}"),
    ]
    if coverage.get("without_memory"):
        lines.append(f"evaluated while the memory was away: {coverage['without_memory']}")
    return "\n".join(lines)


def _matrix(cells: Sequence[Mapping[str, Any]], table_: Table) -> str:
    used = [v for v in VERDICTS if any(v in (cell["old"], cell["new"]) for cell in cells)]
    counts = {(cell["old"], cell["new"]): cell["count"] for cell in cells}
    return table_(
        ("old \\ new", *used), [(old, *(number(counts.get((old, new), 0)) for new in used)) for old in used]
    )


def markdown_table(head: Sequence[str], rows: Rows) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(map(escaped, head)) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(escaped, row)) + " |" for row in rows)])


def escaped(text: str) -> str:
    """Recorded text can't be Markdown, HTML or another row: what either acts on is written as an entity."""
    return "".join(_ENTITIES.get(char, char) for char in one_line(text))


_ENTITIES = {char: f"&#{ord(char)};" for char in "&<>|`*_[]()#!~\\$@"} | {"_": "\\_"}
