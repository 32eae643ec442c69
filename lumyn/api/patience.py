"""How long a client may take to send a request whole and to read its answer; a connection that takes longer is closed.

uvicorn bounds only the rest between two requests; without this a client that sends a byte a minute stays for good.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S: Final = 30.0
ANSWER_S: Final = 60.0
_LATE: Final = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


if TYPE_CHECKING:
    _Protocol = H11Protocol
else:
    _Protocol = object


class _Patience(_Protocol):
    """A mixin over uvicorn's protocols: a clock that runs while something is owed by the client."""

    request_s = REQUEST_S
    answer_s = ANSWER_S
    _owed: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            self._stop()  # the request is here, whole
        elif self._owed is None:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.answer_s, self.transport.abort)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _expect(self) -> None:
        self._stop()
        self._owed = self.loop.call_later(self.request_s, self._late)

    def _stop(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None

    def _late(self) -> None:
        self._owed = None
        if self.transport.is_closing():
            return
        answered = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answered:
            self.transport.write(_LATE)
        self.transport.close()


def protocol(request_s: float = REQUEST_S, answer_s: float = ANSWER_S) -> type[asyncio.Protocol]:
    """The protocol class for `uvicorn.Config(http=...)`: on httptools where that is installed (extra `fast`)."""
    base: Any = H11Protocol
    with suppress(ImportError):
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as base
    return type("PatientProtocol", (_Patience, base), {"request_s": request_s, "answer_s": answer_s})
