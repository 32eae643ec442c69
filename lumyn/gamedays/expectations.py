"""What a scenario expects, read: `ALLOW where amount_usd > 500 == 0`, a request's verdict, a switch that contains.

    TEXT  = FIGURE ["where" QUERY] OPERATOR BOUND        a bar of `lumyn backtest --require` over what a query finds
    FIGURE = ALLOW | DENY | ESCALATE | ABSTAIN | decisions | a figure of a backtest, such as flips.DENY_to_ALLOW
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from lumyn.gamedays.scenario import During, Expected
from schemas.errors import BadQuery, LumynError, ScenarioInvalid
from schemas.query import Query, parse_query
from schemas.verdict import VERDICTS
from streams.backtest.bars import Bar, parse_bar
from streams.backtest.measures import MEASURES, Measure
from streams.local_log import wall_clock_ms
from streams.policy.findings import Findings, Mark
from streams.policy.read import Fields, Unreadable, choice, each, fields_of, items_of, number, word
from streams.policy.source import Entries, Items, Node, Scalar
from streams.policy.suggest import listed

_BAR = re.compile(r"(?s)\s*(.*?)(?:\s+where\s+(.*?))?\s*((?:<=|>=|==|!=|<|>)\s*[^<>=!]*)")
_TEXT = re.compile(r"(?s).+")
_EXAMPLE = "`ALLOW where amount_usd > 500 == 0`"
_KINDS = ("that", "never", "request", "contained")
_BESIDE = ("during", "from", "to", "why")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "that": (),
    "never": ("where",),
    "request": ("verdict", "not", "reasons"),
    "contained": ("let_through", "within_s"),
}
MEASURED: Final[Mapping[str, Measure]] = {
    **MEASURES,
    **{verdict: MEASURES[f"verdict.{verdict}"] for verdict in VERDICTS},
    "decisions": Measure("decisions", "decisions", lambda old, new, _: True, lambda old, new, _: True),
}
"""The figures of a backtest, verdicts by their bare names, and `decisions`: how many a query finds."""


def expected_of(
    node: Node,
    faults: Mapping[str, During],
    switches: tuple[str, ...],
    range_of: Callable[[Fields], During],
    request_of: Callable[[Node], int | str],
    out: Findings,
) -> Expected:
    """One expectation. Raises `Unreadable`, when what is wrong with it was said."""
    if isinstance(node, Scalar):
        bar, query = _bar_of(node.text, _start(node), out)
        return Expected(text=node.text.strip(), mark=node.mark, bar=bar, query=query)
    if not isinstance(node, Entries) or not any(key.text in _KINDS for key, _ in node.entries):
        out.error(node.mark, f"an expectation is text, such as {_EXAMPLE}, or names {listed(_KINDS)}")
        raise Unreadable
    kind = next(key.text for key, _ in node.entries if key.text in _KINDS)
    fields = fields_of(node, f"an expectation with `{kind}`", (kind, *_OPTIONS[kind], *_BESIDE), out)
    during = _during(fields, faults, range_of, out)
    why = each(fields, "why", lambda one: word(one, "`why`", _TEXT, "text", out)) or ""
    value = fields.found[kind][1]
    given: dict[str, Any] = {"mark": fields.mark_of(kind), "during": during, "why": why}
    if kind == "that":
        text = word(value, "`that`", _TEXT, "text", out)
        bar, query = _bar_of(text, _start(value), out)
        return Expected(text=text.strip(), bar=bar, query=query, **given)
    if kind == "never":
        verdict = choice(value, "`never`", VERDICTS, out)
        where = each(fields, "where", lambda one: word(one, "`where`", _TEXT, "a query", out))
        text = verdict if where is None else f"{verdict} where {where}"
        bar, query = _bar_of(f"{text} == 0", fields.mark_of("where"), out)
        return Expected(text=f"never {text}", bar=bar, query=query, **given)
    if kind == "request":
        return _of_request(request_of(value), fields, given, out)
    name = word(value, "`contained`", _TEXT, "the name of a switch's step", out)
    if name not in switches:
        there = f"there are {listed(switches)}" if switches else "no step puts a switch on"
        out.error(value.mark, f"no step `{name}` puts a kill switch on; {there}")
    let = each(fields, "let_through", lambda one: number(one, "`let_through`", out)) or 0
    within = each(fields, "within_s", lambda one: number(one, "`within_s`", out))
    said = f"{name} lets {let:g} decisions through at most"
    if within is not None:
        said += f", and denies within {within:g} s"
    return Expected(text=said, contained=name, let_through=int(let), within_s=within, **given)


def _start(node: Node) -> Mark:
    """Where a text itself begins: after its quote."""
    quote = isinstance(node, Scalar) and not node.plain
    return Mark(node.mark.line, node.mark.column + 1) if quote else node.mark


def _of_request(request: int | str, fields: Fields, given: dict[str, Any], out: Findings) -> Expected:
    wanted = each(fields, "verdict", lambda one: _verdicts(one, "`verdict`", out)) or ()
    never = each(fields, "not", lambda one: _verdicts(one, "`not`", out)) or ()
    reasons = each(fields, "reasons", lambda one: _words(one, out)) or ()
    if not fields.found.keys() & {"verdict", "not", "reasons"}:
        out.error(fields.mark, "an expectation of a request has `verdict`, `not` or `reasons`")
        raise Unreadable
    if wanted and never:
        out.error(fields.mark_of("not"), "`verdict` and `not` exclude each other")
    verdicts = wanted or tuple(one for one in VERDICTS if one not in never)
    said = f"request {request} is {' or '.join(verdicts)}" if wanted or never else f"request {request}"
    if reasons:
        said += f" because of {', '.join(reasons)}"
    return Expected(text=said, request=request, verdicts=verdicts, reasons=reasons, **given)


def _during(
    fields: Fields, faults: Mapping[str, During], range_of: Callable[[Fields], During], out: Findings
) -> During:
    node = fields.get("during")
    if node is None:
        return range_of(fields)
    if "from" in fields.found or "to" in fields.found:
        out.error(fields.mark_of("during"), "`during` and `from`, `to` exclude each other")
    name = each(fields, "during", lambda one: word(one, "`during`", _TEXT, "a fault's name", out))
    if name is None:
        return During()
    if name not in faults:
        there = f"there are {listed(faults)}" if faults else "there are no faults"
        out.error(node.mark, f"no fault is called `{name}`; {there}")
    return faults.get(name, During())


def _bar_of(text: str, mark: Mark, out: Findings) -> tuple[Bar, Query | None]:
    found = _BAR.fullmatch(text)
    if found is None:
        out.error(mark, f"an expectation ends with an operator and a bound, such as {_EXAMPLE}")
        raise Unreadable
    figure, where, bound = found.groups()
    try:
        bar = parse_bar(f"{figure} {bound}", MEASURED)
        return bar, parse_query(where, now_ms=wall_clock_ms()) if where is not None else None
    except LumynError as error:
        help_ = error.help.splitlines()[0] if error.help and not error.help.startswith("here:") else None
        begin = found.start(2) if isinstance(error, BadQuery) else found.start(1)
        message = error.message.splitlines()[0] + (f"; {help_}" if help_ else "")
        out.error(_within(mark, text, begin, error), message)
        raise Unreadable from None


def check_text(text: str) -> None:
    """Raises `ScenarioInvalid` when a text is no expectation."""
    out = Findings("--expect")
    with suppress(Unreadable):
        _bar_of(text, Mark(1, 1), out)
    if out.failed:
        raise ScenarioInvalid(out.errors())


def _within(mark: Mark, text: str, begin: int, error: LumynError) -> Mark:
    """The column inside a text that stands on one line; else the text's own place."""
    column = re.search(r":(\d+)$", error.where or "")
    if column is None or "\n" in text:
        return mark
    return Mark(mark.line, mark.column + begin + int(column[1]) - 1)


def _verdicts(node: Node, what: str, out: Findings) -> tuple[str, ...]:
    items = node.items if isinstance(node, Items) else (node,)
    return tuple(choice(item, what, VERDICTS, out) for item in items)


def _words(node: Node, out: Findings) -> tuple[str, ...]:
    items = items_of(node, "`reasons`", out) if isinstance(node, Items) else (node,)
    return tuple(word(item, "a reason code", _TEXT, "a reason code", out) for item in items)
