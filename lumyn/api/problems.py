"""Refusals as RFC 9457 problem+json, each with the stable `code` of its error."""

from __future__ import annotations

import math

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from schemas.canonical import encode
from schemas.errors import (
    BadConfig,
    BadInput,
    DecisionPending,
    Erased,
    Forbidden,
    IrHashMismatch,
    KeyMissing,
    LumynError,
    NotFound,
    OnHold,
    PolicyConflict,
    RateLimited,
    RequestConflict,
    StorageUnavailable,
    TooLarge,
    Unauthorized,
    UsageError,
)

PROBLEM = "application/problem+json"
_STATUS: tuple[tuple[type[LumynError], int], ...] = (
    (Unauthorized, 401),
    (Forbidden, 403),
    (NotFound, 404),
    (Erased, 410),
    (OnHold, 409),
    (RequestConflict, 409),
    (PolicyConflict, 409),
    (IrHashMismatch, 409),
    (TooLarge, 413),
    (BadInput, 422),
    (RateLimited, 429),
    (UsageError, 400),
    (StorageUnavailable, 503),
    (KeyMissing, 503),
    (DecisionPending, 504),
    (BadConfig, 500),
)
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


def add_problems(app: FastAPI) -> None:
    """Every error of an app becomes a problem."""
    app.add_exception_handler(LumynError, _told)
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _parameter_problem)
    app.add_exception_handler(Exception, _internal_problem)


def problem(error: LumynError, status: int | None = None) -> Response:
    """A refusal as the client gets it."""
    code = status or next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    value = {"type": f"urn:lumyn:error:{error.code}", "title": error.message, "status": code, **error.as_dict()}
    headers = {}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="lumyn"'
    if isinstance(error, TooLarge):
        headers["connection"] = "close"  # what is still on its way is not read
    return Response(encode(value), code, media_type=PROBLEM, headers=headers)


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LumynError)
    return problem(error)


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    title = str(error.detail).lower()
    value = {
        "type": f"urn:lumyn:error:{code}", "title": title, "status": error.status_code, "code": code, "message": title,
    }  # fmt: skip
    return Response(encode(value), error.status_code, media_type=PROBLEM, headers=dict(error.headers or {}))


async def _parameter_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    text = str(found["msg"])
    return problem(BadInput(text[:1].lower() + text[1:], where=".".join(map(str, found["loc"]))))


async def _internal_problem(_request: Request, error: Exception) -> Response:
    title = f"internal error: {type(error).__name__}"
    value = {"type": "urn:lumyn:error:internal", "title": title, "status": 500, "code": "internal", "message": title}
    return Response(encode(value), 500, media_type=PROBLEM)
