"""Watches: saved queries as rates, where each stands, and what its last rounds measured."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.watches.store import history, list_watches, watch_named

_ROUNDS: Final = 120
_MARKS: Final = {"alert": "!", "ok": "✓", "no_data": "–"}


def list_(visit: Visit) -> Response:
    """The tenant's watches with their last round."""
    home = visit.home
    found = [(watch, next(iter(history(home, watch.name, limit=1)), None)) for watch in list_watches(home)]
    return render.html("watches", visit=visit, here="watches", found=found, marks_of=_MARKS)


def show(visit: Visit) -> Response:
    """One watch."""
    watch = watch_named(visit.home, visit.request.path_params["name"]).watch
    rounds = history(visit.home, watch.name, limit=_ROUNDS)
    return render.html(
        "watch", visit=visit, here="watches", watch=watch, rounds=rounds[::-1], line=curve(rounds), marks_of=_MARKS,
        stands=stands,
    )  # fmt: skip


def stands(last: dict[str, Any]) -> str:
    """How a round is shown: as an alarm, as what is well, or as neither; not knowing is not well."""
    if last["alert"] or last["target_state"] == "missed":
        return "alarm"
    is_well = last["state"] in ("ok", "none") and last["target_state"] in ("met", None)
    return "told" if is_well and (last["state"], last["target_state"]) != ("none", None) else "neither"


def curve(rounds: list[dict[str, Any]]) -> tuple[str, float]:
    """The short window's rate over the rounds as an SVG path on 120 x 40, and the rate at its top."""
    rates = [one["windows"]["short"]["rate"] for one in rounds]
    top = max([rate for rate in rates if rate is not None], default=0.0) or 1.0
    parts, pen = [], "M"
    for place, rate in enumerate(rates):
        if rate is None:
            pen = "M"  # nothing was known then: no line is drawn through it
            continue
        parts.append(f"{pen}{120 * place / max(1, len(rates) - 1):.1f} {39 - 37 * rate / top:.1f}")
        pen = "L"
    return "".join(parts), top


PAGES: Final = (Page("/watches", "read", list_), Page("/watches/{name}", "read", show))
