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
    told = error.as_dict()
    value = _members(error.code, code, told.pop("message")) | told
    headers = {}
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = 'Bearer realm="lumyn"'
    if isinstance(error, TooLarge):
        headers["connection"] = "close"  # what is still on its way is not read
    return Response(encode(value), code, media_type=PROBLEM, headers=headers)


def _members(code: str, status: int, detail: str) -> dict[str, object]:
    """What every problem has: a title that is the same for each of its kind, and what happened this time."""
    kind = {"type": f"urn:lumyn:error:{code}", "title": code.replace("_", " "), "status": status}
    return {**kind, "detail": detail, "code": code}


async def _told(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LumynError)
    return problem(error)


async def _http_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "http_error")
    value = _members(code, error.status_code, str(error.detail).lower())
    return Response(encode(value), error.status_code, media_type=PROBLEM, headers=dict(error.headers or {}))


async def _parameter_problem(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[0]
    text = str(found["msg"])
    return problem(BadInput(text[:1].lower() + text[1:], where=".".join(map(str, found["loc"]))))


async def _internal_problem(_request: Request, error: Exception) -> Response:
    value = _members("internal", 500, f"internal error: {type(error).__name__}")
    return Response(encode(value), 500, media_type=PROBLEM)
