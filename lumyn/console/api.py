"""The HTTP API's description, for whoever has logged in: a browser sends no key to `/docs`."""

from __future__ import annotations

from typing import Final

from markupsafe import Markup
from starlette.responses import Response

from lumyn.api.answers import json_answer
from lumyn.api.spec import description, page
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit


def show(visit: Visit) -> Response:
    """Every endpoint with an example."""
    text = page(description(visit.request.app.state.api), "docs_body", render.url("openapi.json"))
    return render.html("api", visit=visit, here="", body=Markup(text))  # noqa: S704 - escaped where it was made


def document(visit: Visit) -> Response:
    """The same for programs."""
    return json_answer(description(visit.request.app.state.api))


PAGES: Final = (Page("/api", "read", show), Page("/openapi.json", "read", document))
