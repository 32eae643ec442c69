"""Backtest reports: pages of their own, opened in a sandbox in which nothing runs and nothing is loaded."""

from __future__ import annotations

from typing import Final

from starlette.responses import HTMLResponse, Response

from lumyn import reports
from lumyn.console import render
from lumyn.console.app import Page
from lumyn.console.visit import Visit

SANDBOX: Final = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def sandboxed(page: str | bytes) -> Response:
    """A page that somebody else's template made: whatever is in it, nothing of it runs."""
    return HTMLResponse(page, headers={**render.HEADERS, "content-security-policy": SANDBOX})


def list_(visit: Visit) -> Response:
    """The reports that are kept."""
    found = reports.kept(visit.home.path, visit.principal.tenant)
    return render.html("reports", visit=visit, here="backtests", found=found)


def show(visit: Visit) -> Response:
    """One report."""
    return sandboxed(reports.read(visit.home.path, visit.principal.tenant, visit.request.path_params["name"]))


PAGES: Final = (Page("/backtests", "read", list_), Page("/backtests/{name}", "read", show))
