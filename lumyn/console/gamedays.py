"""Game days: those that were held at this home, with how they came out, and one's report."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.gamedays.past import all_of, load
from lumyn.gamedays.report import facts, headline

_SHOWN: Final = 200


def list_(visit: Visit) -> Response:
    """The newest first."""
    found = all_of(visit.home.settings)
    rows = [(one, *_counts(one["report"])) for one in found[:_SHOWN]]
    return render.html("gamedays", visit=visit, here="incidents", rows=rows, of=len(found), most=_SHOWN)


def _counts(report: dict[str, list[dict[str, bool]]]) -> tuple[int, int]:
    """How many of what must hold did, and of how many."""
    judged = [*report["expectations"], *report["invariants"]]
    return sum(one["holds"] for one in judged), len(judged)


def show(visit: Visit) -> Response:
    """One report."""
    kept = load(visit.home.settings, visit.request.path_params["gameday"])
    report = kept["report"]
    return render.html(
        "gameday", visit=visit, here="incidents", kept=kept, report=report, headline=headline(report),
        facts=facts(report),
    )  # fmt: skip


PAGES: Final = (Page("/gamedays", "read", list_), Page("/gamedays/{gameday}", "read", show))
