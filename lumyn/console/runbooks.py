"""Runbooks: what there is, and what one would do with the answers given. Nothing is run here: a terminal runs it.

A run goes through commands that write to the process's own output, and asks before each; a server can't do that for
several people at once. What is shown is what `lumyn runbook run` then does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.responses import Response

from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from lumyn.incidents.incidents import Incidents
from lumyn.runbooks.book import Runbook
from lumyn.runbooks.preview import preview, run_command
from lumyn.runbooks.reading import read_runbook, runbooks
from schemas.errors import LumynError, NotFound


def books_of(visit: Visit) -> dict[str, Path]:
    """The runbooks that a visitor may see: the home's own are of who runs the installation."""
    return dict(runbooks(visit.home.path if visit.principal.operator else None))


def list_(visit: Visit) -> Response:
    """The runbooks; one that can't be read is named with what is wrong."""
    found: list[tuple[str, Runbook | None, str]] = []
    for name, path in books_of(visit).items():
        try:
            book = read_runbook(path)
        except LumynError as error:
            found.append((name, None, error.message))
        else:
            found.append((name, book, ""))
    return render.html("runbooks", visit=visit, here="incidents", found=found)


def show(visit: Visit) -> Response:
    """One, step by step, with the answers in the address in their places."""
    path = books_of(visit).get(visit.request.path_params["book"])
    if path is None:
        raise NotFound("there is no such runbook", help="the list shows what there is")
    book, asked = read_runbook(path), visit.query.get("incident", "").strip()
    known = {"actor": visit.home.settings.actor, "tenant": visit.principal.tenant}
    if asked:
        known["incident"] = Incidents(visit.home).show(asked).id
    steps = preview(book, visit.query, known)
    return render.html(
        "runbook", visit=visit, here="incidents", book=book, steps=steps, incident=known.get("incident", ""),
        command=run_command(book, steps, known.get("incident")),
    )  # fmt: skip


PAGES: Final = (Page("/runbooks", "read", list_), Page("/runbooks/{book}", "read", show))
