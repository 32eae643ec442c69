"""The HTTP app: the SDK's operations as endpoints, errors as RFC 9457 problem+json."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumyn import sdk
from lumyn.api.answers import json_answer
from lumyn.api.memory import add_memory
from lumyn.config import LumynConfig
from lumyn.lookup import find_record, sound_record
from lumyn.wiring import existing_home, open_home
from schemas.canonical import decode, encode
from schemas.errors import (
    BadInput,
    Erased,
    KeyMissing,
    LumynError,
    NotFound,
    OnHold,
    RequestConflict,
    StorageUnavailable,
    TooLarge,
    UsageError,
)
from schemas.limits import MAX_BODY_BYTES
from schemas.seal import OpenRecord

_BATCH_BYTES = 64 * MAX_BODY_BYTES
_STATUS: tuple[tuple[type[LumynError], int], ...] = (
    (NotFound, 404),
    (Erased, 410),
    (OnHold, 409),
    (RequestConflict, 409),
    (TooLarge, 413),
    (BadInput, 422),
    (UsageError, 400),
    (StorageUnavailable, 503),
    (KeyMissing, 503),
)


def make_app(config: LumynConfig) -> FastAPI:
    """The app of one configuration. It has no keys yet: serve it on loopback only."""
    app = FastAPI(title="Lumyn Streams", version="0.1.0", docs_url="/docs", redoc_url=None)
    app.add_middleware(_BodyLimit)
    app.add_exception_handler(LumynError, _problem)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _parameter_problem)
    app.add_exception_handler(Exception, _internal_problem)
    _decisions(app, config)
    _look(app, config)
    add_memory(app, config)
    _health(app, config)
    return app


def _decisions(app: FastAPI, config: LumynConfig) -> None:
    @app.post("/v1/decisions", status_code=200, summary="Decide one request")
    async def decide(request: Request) -> Response:
        body = await request.body()
        return json_answer(await run_in_threadpool(sdk.decide, body, config))

    @app.post("/v1/decisions:batch", summary="Decide many; a bad one yields its error in its place")
    async def batch(request: Request) -> Response:
        bodies = decode(await request.body(), where="body", limit=_BATCH_BYTES)
        if not isinstance(bodies, list):
            raise BadInput("the body is a JSON array of requests", where="body")
        results = await run_in_threadpool(sdk.decide_many, bodies, config)
        return json_answer([{"error": r.as_dict()} if isinstance(r, LumynError) else r for r in results])

    @app.post("/v1/decisions/{decision_id}/labels", status_code=201, summary="Label a decision")
    async def label(decision_id: str, request: Request) -> Response:
        body = decode(await request.body(), where="body")
        if not isinstance(body, dict) or not isinstance(body.get("label"), str):
            raise BadInput("`label` is missing: failure, success, note or retracted", where="body")
        settle = body.pop("settle", False)
        if not isinstance(settle, bool):
            raise BadInput("`settle` must be true or false", where="body")
        unknown = sorted(set(body) - {"label", "summary", "should", "event_id", "actor"})
        if unknown:
            raise BadInput(f"unknown key `{unknown[0]}`", where="body")
        wrong = [name for name, value in body.items() if value is not None and not isinstance(value, str)]
        if wrong:
            raise BadInput(f"`{wrong[0]}` must be text", where="body")
        event = await run_in_threadpool(
            lambda: sdk.label(
                decision_id,
                body["label"],
                summary=body.get("summary") or "",
                should=body.get("should"),
                event_id=body.get("event_id"),
                actor=body.get("actor"),
                settle=settle,
                config=config,
            )
        )
        return json_answer(event, 201)


def _look(app: FastAPI, config: LumynConfig) -> None:
    @app.get("/v1/decisions", summary="List decisions, newest first, by a query")
    def list_(query: str | None = None, limit: int = 50) -> Response:
        from dataclasses import asdict

        from lumyn.searching import search

        rows = search(
            existing_home(config), query, limit=max(1, min(limit, 1000)), newest_first=True, say=lambda text: None
        )
        return json_answer({"decisions": [asdict(row) for row in rows]})

    @app.get("/v1/decisions/{decision_id}", summary="One record")
    def get(decision_id: str) -> Response:
        raw, record = sound_record(existing_home(config), decision_id)
        opened = isinstance(record, OpenRecord)
        return Response(encode(dict(record)) if opened else raw, media_type="application/json")

    @app.get("/v1/decisions/{decision_id}/events", summary="Its labels and notes")
    def events(decision_id: str) -> Response:
        return json_answer(sdk.show(decision_id, config)["events"])

    @app.post("/v1/decisions/{decision_id}/explain", summary="Plain English from the record alone")
    def explain(decision_id: str) -> Response:
        _, record = find_record(existing_home(config), decision_id)
        return json_answer({"decision_id": record["decision_id"], "explanation": sdk.explain(decision_id, config)})

    @app.get("/v1/decisions/{decision_id}/verify", summary="Check the whole record")
    def verify(decision_id: str) -> Response:
        from lumyn.checkpointing import home_chain
        from streams.verify import verify_record

        home = existing_home(config)
        raw, record = find_record(home, decision_id)
        chain = home_chain(home, check_leaves=False)
        checks = verify_record(home.log, home.agent.control(), raw, record, chain=chain)
        return json_answer(
            {
                "decision_id": record["decision_id"],
                "ir_hash": record["ir_hash"],
                "verified": all(c.ok for c in checks),
                "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
            }
        )


def _health(app: FastAPI, config: LumynConfig) -> None:
    @app.get("/healthz", summary="The process lives")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="The log can be used")
    def readyz() -> dict[str, Any]:
        home = open_home(config)
        return {"status": "ready", "control_version": home.agent.control().version}


async def _problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LumynError)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    value = {"type": f"urn:lumyn:error:{error.code}", "title": error.message, "status": status, **error.as_dict()}
    return Response(encode(value), status, media_type="application/problem+json")


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    value = {"type": "about:blank", "title": str(error.detail).lower(), "status": error.status_code}
    return Response(
        encode(value), error.status_code, media_type="application/problem+json", headers=dict(error.headers or {})
    )


async def _parameter_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    text = str(problem["msg"])
    return await _problem(request, BadInput(text[:1].lower() + text[1:], where=".".join(map(str, problem["loc"]))))


async def _internal_problem(_request: Request, error: Exception) -> Response:
    value = {"type": "about:blank", "title": f"internal error: {type(error).__name__}", "status": 500}
    return Response(encode(value), 500, media_type="application/problem+json")


class _BodyLimit:
    """Stops reading a body at the limit, whatever its headers claim."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = _BATCH_BYTES if scope["path"].endswith(":batch") else MAX_BODY_BYTES + 1024
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLarge(f"the body has more than {limit} bytes", where="body")
            return message

        await self._app(scope, limited, send)
