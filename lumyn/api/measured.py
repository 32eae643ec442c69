"""`/metrics`, and the middleware that counts and times every answer by its route."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumyn.api.homes import sender
from lumyn.api.spec import endpoint


def add_metrics(app: FastAPI) -> None:
    """Add the endpoint. The figures are of all tenants together, so only the operator's keys may read them."""
    from lumyn.metrics import Metrics

    app.state.metrics = Metrics("serve")
    app.add_middleware(Measured, metrics=app.state.metrics)

    @app.get("/metrics", **endpoint("Prometheus metrics of this process", "read", None))
    def metrics(request: Request) -> Response:
        sender(request).require_operator("what /metrics tells")
        text, content_type = app.state.metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})


class Measured:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, metrics: Any) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "none")  # a path that has none could be anything
            self._metrics.answered(_method(scope["method"]), route, status, time.perf_counter() - start)


def _method(name: str) -> str:
    return name if name in ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH") else "other"
