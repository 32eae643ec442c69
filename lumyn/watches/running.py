"""Watching: round after round until it is told to stop, with metrics and health served beside it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lumyn.home import Home
from lumyn.watches.check import check_all
from schemas.errors import BadConfig, LumynError

if TYPE_CHECKING:
    from lumyn.metrics import WatchMetrics
    from lumyn.metrics_server import Readiness

Round = list[dict[str, Any]]


def watch_on(
    home: Home,
    every_s: float,
    *,
    times: int | None = None,
    metrics_host: str = "127.0.0.1",
    metrics_port: int = 0,
    say: Callable[[str], None],
    tell: Callable[[Round], None],
) -> Round:
    """Check all watches again and again; `tell` gets each round, `say` what changed. Returns the last round.

    A round that fails is said and counted, and the next one is made all the same: what was told before stays, and its
    time grows old. Raises what the last of `times` rounds did; `BadConfig`, `StorageUnavailable` for the port.
    """
    metrics, readiness = _served(home, metrics_host, metrics_port)
    last: Round = []
    states: dict[str, tuple[Any, ...]] = {}
    with _until_stopped() as stopped:
        done = 0
        while not stopped.is_set():
            begun = time.monotonic()
            done += 1
            try:
                last = check_all(home)
            except LumynError as error:
                if done == times:
                    raise
                say(f"this round failed: {error}")
                if metrics is not None and readiness is not None:
                    metrics.failed(error.code)
                    readiness.ready("watches", False)
            else:
                _changes(last, states, say)
                tell(last)
                if metrics is not None and readiness is not None:
                    metrics.checked(last)
                    readiness.ready("watches", True)
            if done == times:
                break
            stopped.wait(max(0.0, every_s - (time.monotonic() - begun)))
    return last


def _changes(results: Round, states: dict[str, tuple[Any, ...]], say: Callable[[str], None]) -> None:
    """Say what is in another state than the last time."""
    for one in results:
        now = (one["state"], one["target_state"])
        before = states.get(one["name"])
        states[one["name"]] = now
        if before is not None and before != now:
            say(f"{one['name']}: {_state(one)}")
    for name in states.keys() - {one["name"] for one in results}:
        del states[name]


def _state(one: Mapping[str, Any]) -> str:
    target = f"; target {one['target_state']}: {one['target_says']}" if one["target_state"] is not None else ""
    return f"{one['state']}: {one['says']}{target}"


def _served(home: Home, host: str, port: int) -> tuple[WatchMetrics | None, Readiness | None]:
    if port == 0:
        return None, None
    try:
        from lumyn.metrics import WatchMetrics
    except ImportError as error:
        raise BadConfig(f"`--metrics-port` needs {error.name}", help="pip install 'lumyn-streams[kafka]'") from None
    from lumyn.metrics_server import MetricsServer, Readiness

    metrics, readiness = WatchMetrics(home.settings.tenant), Readiness()
    readiness.ready("watches", False)
    MetricsServer(host, port, metrics.exposition, readiness)
    return metrics, readiness


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """Set by SIGTERM and Ctrl-C: the round that is under way is ended first. The handlers that were, are put back."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {name: signal.signal(name, lambda *_: stopped.set()) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stopped
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
