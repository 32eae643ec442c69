"""`GET /v1/audit`: who changed keys, policies, switches and labels."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from lumyn.access.http import guard_of
from lumyn.access.trail import MOST_READ, SOURCES, trail
from lumyn.api.answers import json_answer
from lumyn.api.homes import home_of, sender
from lumyn.api.spec import endpoint
from schemas.canonical import decode, encode
from schemas.errors import LumynError, UsageError

_Limit = Annotated[int, Query(ge=1, le=1000)]


def add_audit(app: FastAPI) -> None:
    """Add the endpoint."""

    @app.get("/v1/audit", **endpoint("Who changed what, newest first", "admin", "AuditPage"))
    def audit(request: Request, limit: _Limit = 100, cursor: str | None = None, actor: str | None = None) -> Response:
        below = _below(cursor)
        found: list[dict[str, Any]] = []
        more = False
        for read, one in enumerate(trail(home_of(request), guard_of(request).store, sender(request), below)):
            if len(found) == limit or read == MOST_READ:
                more = True
                break
            below[one.source] = one.number
            if one.entry is not None and actor in (None, one.entry.get("actor")):
                found.append({"source": one.source, "number": one.number, **one.entry})
        return json_answer({"entries": found, "next_cursor": _cursor(below) if more else None})


def _cursor(below: Mapping[str, int]) -> str:
    return base64.urlsafe_b64encode(encode(dict(below))).decode().rstrip("=")


def _below(cursor: str | None) -> dict[str, int]:
    """Where each source goes on. Raises `UsageError`."""
    if cursor is None:
        return {}
    try:
        raw = base64.b64decode(cursor[:256] + "=" * (-len(cursor[:256]) % 4), altchars=b"-_", validate=True)
        found = decode(raw, where="cursor")
    except (ValueError, binascii.Error, LumynError):
        found = None
    sound = isinstance(found, dict) and all(
        name in SOURCES and isinstance(at, int) and not isinstance(at, bool) and at >= 0 for name, at in found.items()
    )
    if not sound or not isinstance(found, dict):
        raise UsageError("this is no cursor", where="cursor", help="use `next_cursor` as it came")
    return found
