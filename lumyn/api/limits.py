"""How much of a body is read: up to a limit, whatever the headers claim; nothing of one that says it is larger."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lumyn.api.problems import problem
from schemas.errors import TooLarge
from schemas.limits import MAX_BODY_BYTES

BATCH_BYTES: Final = 64 * MAX_BODY_BYTES
POLICY_BYTES: Final = 4 * MAX_BODY_BYTES
_SMALL_BYTES: Final = MAX_BODY_BYTES + 1024


class BodyLimit:
    """ASGI middleware. Bodies are bounded by their path: batches, policies, all others."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = limit_of(scope["path"])
        if _claimed(scope) > limit:
            await problem(_too_large(limit))(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, limited, send)


def limit_of(path: str) -> int:
    """How many bytes of body a path takes."""
    if path.endswith(":batch"):
        return BATCH_BYTES
    return POLICY_BYTES if path.startswith("/v1/policies") else _SMALL_BYTES


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body has more than {limit} bytes", where="body")


def _claimed(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0
