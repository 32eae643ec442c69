"""Callbacks: a decision that was not waited for is sent to its asker's address, signed.

Only to hosts that the configuration lists: otherwise a key's holder could have this server call whatever it can reach.
Redirects are not followed. Delivery is tried a few times from this process's memory and then given up; what became of a
request can always be asked at its `Location`.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from lumyn.config import Settings
from schemas.canonical import encode
from schemas.errors import BadInput, Forbidden, LumynError, StorageUnavailable

HEADER: Final = "callback-url"
SIGNATURE: Final = "X-Lumyn-Signature"
_TIMEOUT_S: Final = 10.0
_PAUSES_S: Final = (0.0, 1.0, 5.0, 25.0)
_DECIDED_WITHIN_S: Final = 60.0
_MOST_WAITING: Final = 1000


def checked_url(url: str, settings: Settings) -> SplitResult:
    """A callback's address, when the configuration lists its host. Raises `BadInput`, `Forbidden`."""
    try:
        parts = urlsplit(url)
        origin = f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        raise BadInput("this is no address", where=HEADER) from None
    plain = not (parts.username or parts.password or parts.fragment) and url.isascii() and url.isprintable()
    if parts.scheme not in ("http", "https") or not parts.hostname or not plain or " " in url:
        raise BadInput("a callback's address is https://HOST/PATH", where=HEADER)
    listed = {one.lower() for one in settings.callback_hosts}
    if origin not in listed if parts.scheme == "https" else f"http://{origin}" not in listed:
        raise Forbidden(
            f"callbacks to `{origin}` are not allowed here", where=HEADER,
            help='the operator lists hosts in lumyn.toml: [serve] callback_hosts = ["hooks.example.com"]',
        )  # fmt: skip
    if not settings.callback_secret:
        raise StorageUnavailable("callbacks can't be signed: LUMYN_CALLBACK_SECRET is not set", where=HEADER)
    return parts


def signature(secret: str, time_s: int, body: bytes) -> str:
    """`t=TIME,v1=HEX`: HMAC-SHA256 under the secret, of the time, a point and the body."""
    mac = hmac.digest(secret.encode(), f"{time_s}.".encode() + body, hashlib.sha256).hex()
    return f"t={time_s},v1={mac}"


class Callbacks:
    """Waits for decisions and sends them, off the event loop."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="callback")
        self._waiting = 0

    def send(self, to: SplitResult, secret: str, state: Callable[[], dict[str, Any]]) -> None:
        """Send what `state` says once it is not pending any more. Raises `StorageUnavailable` when too many wait."""
        if self._waiting >= _MOST_WAITING:
            raise StorageUnavailable(f"{self._waiting} callbacks are waiting already", where=HEADER)
        self._waiting += 1
        self._pool.submit(self._run, to, secret, state).add_done_callback(self._done)

    def _done(self, _: object) -> None:
        self._waiting -= 1

    def _run(self, to: SplitResult, secret: str, state: Callable[[], dict[str, Any]]) -> None:
        until = time.monotonic() + _DECIDED_WITHIN_S
        found: dict[str, Any] = {"status": "pending"}
        while found["status"] == "pending" and time.monotonic() < until:
            with suppress(LumynError):
                found = state()
            if found["status"] == "pending":
                time.sleep(0.05)
        body = encode(found, finite=True)
        for pause in _PAUSES_S:
            time.sleep(pause)
            if deliver(to, secret, body):
                return

    def close(self) -> None:
        """Let go of the threads; what was not sent is not."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def deliver(to: SplitResult, secret: str, body: bytes) -> bool:
    """One try; whether it was taken (2xx)."""
    kind = http.client.HTTPSConnection if to.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(to.hostname), to.port, timeout=_TIMEOUT_S)
    headers = {"Content-Type": "application/json", SIGNATURE: signature(secret, int(time.time()), body)}
    try:
        connection.request("POST", (to.path or "/") + (f"?{to.query}" if to.query else ""), body, headers)
        return 200 <= connection.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
