"""A short way for the one endpoint that must be fast: the framework's routing costs as much as a decision.

The endpoint is registered with the others, which describes it and declares its access; this middleware calls the same
function with the same checks, without looking through the table of routes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Final

from fastapi import Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from lumyn.access.http import principal_of
from lumyn.api.problems import problem
from schemas.errors import LumynError

PATH: Final = "/v1/decisions"
ROLE: Final = "decide"
_ROUTE: Final = SimpleNamespace(path=PATH)
Endpoint = Callable[[Request], Awaitable[Response]]


class DecideLane:
    """ASGI middleware: `POST /v1/decisions` goes to `app.state.decide`, everything else on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        scope["route"] = _ROUTE
        request = Request(scope, receive)
        endpoint: Endpoint = scope["app"].state.decide
        try:
            principal_of(request, ROLE)
            answer = await endpoint(request)
        except LumynError as error:
            answer = problem(error)
        await answer(scope, receive, send)
