"""Backtest reports: pages of their own, opened in a sandbox in which nothing runs and nothing is loaded."""

from __future__ import annotations

from typing import Final

from markupsafe import escape
from starlette.responses import HTMLResponse, Response

from lumyn import reports
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit

SANDBOX: Final = (
    "sandbox allow-same-origin; default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Of the console's own origin, so that a link from it back takes the session's cookie (SameSite=Strict) along; without

`allow-scripts` and `allow-forms` nothing is there that could make use of it.
"""


def sandboxed(page: str, where: str, words: str) -> Response:
    """A page that somebody else's template made: whatever is in it, nothing of it runs. It begins with a link back."""
    link = f'<nav class="back"><a href="{escape(where)}">← {escape(words)}</a></nav>'
    head, body, rest = page.partition("<body>")
    told = f"{head}{body}\n{link}{rest}" if body else f"{link}\n{page}"
    return HTMLResponse(told, headers={**render.HEADERS, "content-security-policy": SANDBOX})


def list_(visit: Visit) -> Response:
    """The reports that are kept."""
    found = reports.kept(visit.home.path, visit.principal.tenant)
    return render.html("reports", visit=visit, here="backtests", found=found)


def show(visit: Visit) -> Response:
    """One report."""
    page = reports.read(visit.home.path, visit.principal.tenant, visit.request.path_params["name"])
    return sandboxed(page.decode("utf-8", "replace"), render.url("backtests"), "Backtests")


PAGES: Final = (Page("/backtests", "read", list_), Page("/backtests/{name}", "read", show))
