"""A backtest's report as one HTML file: no script, nothing loaded from anywhere, everything recorded escaped."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import PackageLoader, Template

from lumyn import backtest_plot as plot
from lumyn.backtest_words import (
    SHOWN,
    bar_row,
    change,
    fired,
    interval,
    is_unsound,
    notes,
    number,
    outcome_lines,
    rate,
    share,
)
from lumyn.pages import FOLD, page_environment
from schemas.canonical import encode
from schemas.verdict import VERDICTS

_VALUES = 20


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = page_environment(
        PackageLoader("lumyn", ""),
        number=number, rate=rate, interval=interval, share=share, bar_row=bar_row, change=change, fired=fired,
        outcome_lines=outcome_lines, plot=plot, fact=_fact, verdicts=VERDICTS, shown=SHOWN, most_values=_VALUES,
        fold=FOLD,
    )  # fmt: skip
    return environment.get_template("backtest.html.j2")


def as_html(report: Mapping[str, Any]) -> str:
    """The whole page."""
    return _template().render(
        report=report,
        notes=list(notes(report)),
        unsound=is_unsound(report),
    )


def _fact(fact: Mapping[str, Any]) -> str:
    """A fact of a trace: `chargeback_risk gte 0.8: 0.91`."""
    want = encode(fact["want"]).decode()
    told = "missing" if fact.get("missing") else encode(fact.get("value")).decode()
    return f"{'not ' if fact.get('not') else ''}{fact['fact']} {fact['op']} {want}: {told}"
