"""The live view: server-sent events from the feed; without JavaScript a page that asks again."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lumyn.console import render
from lumyn.console.decisions import find_page
from lumyn.console.feed import RATE_S, TICK_S, WINDOW_S, Feed
from lumyn.console.page import Page
from lumyn.console.visit import Visit
from schemas.errors import StorageUnavailable
from streams.log import Log

VIEWERS: Final = 64
STREAM_S: Final = 30.0
"""A stream ends after this long and the browser opens the next: a login that ended, ends it too."""
_STUCK_S: Final = 10.0
_SHOWN: Final = 20

_lock = threading.Lock()
_feeds: dict[int, tuple[Log, Feed]] = {}
_viewers = 0


def feed_of(log: Log) -> Feed:
    """The one feed of a log in this process."""
    with _lock:
        known = _feeds.get(id(log))
        if known is None or known[0] is not log:
            for name, (_, feed) in list(_feeds.items()):
                feed.close()
                del _feeds[name]
            known = _feeds[id(log)] = (log, Feed(log))
        return known[1]


def page(visit: Visit) -> Response:
    """The live view."""
    return render.html(
        "live", visit=visit, here="live", found=find_page(visit, None, None, None, _SHOWN), window_s=WINDOW_S,
        rate_s=RATE_S, shown=_SHOWN,
    )  # fmt: skip


def stream(visit: Visit) -> Response:
    """The stream itself."""
    feed = feed_of(visit.home.log)
    feed.frame(visit.principal.tenant)
    if _viewers >= VIEWERS:
        raise StorageUnavailable(f"{VIEWERS} views are open already", help="close one, or reload the page instead")
    return EventStream(feed, visit.principal.tenant)


class EventStream(Response):
    """Frames until `STREAM_S` are over. Who does not read them is dropped: nothing is kept for him."""

    def __init__(self, feed: Feed, tenant: str) -> None:
        super().__init__(headers=dict(render.HEADERS), media_type="text/event-stream")
        del self.headers["content-length"]
        self._feed = feed
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        global _viewers
        _viewers += 1
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._send(send, b"retry: 1000\n\n")
            until, last = time.monotonic() + STREAM_S, -1
            while time.monotonic() < until and not gone.done():
                frame = await run_in_threadpool(self._feed.frame, self._tenant)
                if frame.number != last:
                    last = frame.number
                    await self._send(send, frame.data)
                await asyncio.wait({gone}, timeout=TICK_S / 2)
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (TimeoutError, StorageUnavailable):
            return
        finally:
            _viewers -= 1
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone

    async def _send(self, send: Send, data: bytes) -> None:
        await asyncio.wait_for(send({"type": "http.response.body", "body": data, "more_body": True}), _STUCK_S)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


PAGES: Final = (Page("/live", "read", page), Page("/live/stream", "read", stream))
