"""What workers tell: JSON lines on stderr, and metrics."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from schemas.errors import BadConfig, LumynError, UsageError
from schemas.ids import iso_time
from streams.observe import Observer

_LEVELS = ("debug", "info", "quiet")


class JsonLines(Observer):
    """One JSON object a line: time, worker, event, facts. Request contents and secrets are never among them."""

    def __init__(self, worker: str, level: str) -> None:
        if level not in _LEVELS:
            raise UsageError(f"unknown `--log {level}`", help=f"one of {', '.join(_LEVELS)}")
        self._worker = worker
        self._level = level
        self._lock = threading.Lock()

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        now = iso_time(time.time_ns() // 1_000_000)
        line = json.dumps({"at": now, "worker": self._worker, "event": event, **facts})
        with self._lock:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    def event(self, name: str, **facts: Any) -> None:
        if self._level != "quiet":
            self._write(name, facts)

    def trouble(self, name: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:
        told = error.as_dict() if isinstance(error, LumynError) else None
        told = told or {"code": type(error).__name__, "message": str(error)}
        self._write(name, {**(facts or {}), "error": told})

    def decided(self, outcome: str, verdict: str | None, latency_s: float, decision_id: str | None) -> None:
        if self._level == "debug":
            facts = {"outcome": outcome, "verdict": verdict, "decision_id": decision_id}
            self._write("decided", {**facts, "latency_ms": round(latency_s * 1000, 1)})


class Several(Observer):
    """Tells each of several observers everything, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def decided(self, outcome: str, verdict: str | None, latency_s: float, decision_id: str | None) -> None:
        for one in self._observers:
            one.decided(outcome, verdict, latency_s, decision_id)

    def batch(self, size: int) -> None:
        for one in self._observers:
            one.batch(size)

    def committed(self, seconds: float, messages: int) -> None:
        for one in self._observers:
            one.committed(seconds, messages)

    def recalled(self, seconds: float, available: bool, count: int) -> None:
        for one in self._observers:
            one.recalled(seconds, available, count)

    def breaker(self, state: str) -> None:
        for one in self._observers:
            one.breaker(state)

    def dead_letter(self, reason: str) -> None:
        for one in self._observers:
            one.dead_letter(reason)

    def lag(self, waiting: Mapping[int, int]) -> None:
        for one in self._observers:
            one.lag(waiting)

    def ready(self, part: str, stands: bool) -> None:
        for one in self._observers:
            one.ready(part, stands)

    def memory_version(self, version: int) -> None:
        for one in self._observers:
            one.memory_version(version)

    def control_version(self, version: int, stale: bool) -> None:
        for one in self._observers:
            one.control_version(version, stale)

    def event(self, name: str, **facts: Any) -> None:
        for one in self._observers:
            one.event(name, **facts)

    def trouble(self, name: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:
        for one in self._observers:
            one.trouble(name, error, facts)


def make_observer(worker: str, level: str, host: str, port: int) -> Observer:
    """The observer of a worker process: log lines, and on a port above 0 metrics and health, served from now on.

    Raises `UsageError`, `BadConfig` (no prometheus-client), `StorageUnavailable` (the port can't be had).
    """
    lines = JsonLines(worker, level)
    if port == 0:
        return lines
    try:
        from lumyn.metrics import Metrics
    except ImportError as error:
        raise BadConfig(f"`--metrics-port` needs {error.name}", help="pip install 'lumyn-streams[kafka]'") from None
    from lumyn.metrics_server import MetricsServer, Readiness

    metrics, readiness = Metrics(worker), Readiness()
    MetricsServer(host, port, metrics.exposition, readiness)
    return Several(lines, metrics, readiness)
