"""What workers tell, as Prometheus metrics. The one module that knows prometheus-client; loaded only to serve them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from lumyn import __version__
from schemas.record import ENGINE
from streams.observe import Observer

disable_created_metrics()  # type: ignore[no-untyped-call]
_BREAKER_STATES = ("closed", "half-open", "open")
_WAITS_S = (0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15, 60)
_CALLS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's kind, what it says, its labels (whose values are few) and, of a histogram, its bounds."""

    kind: type[Counter] | type[Gauge] | type[Histogram]
    says: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] | None = None


METRICS: Mapping[str, Metric] = {
    "lumyn_decisions_total": Metric(Counter, "Requests answered, by what became of them.", ("outcome", "verdict")),
    "lumyn_decision_latency_seconds": Metric(
        Histogram, "From the log's append of a request to the commit of its answer.", bounds=_WAITS_S
    ),
    "lumyn_partition_lag": Metric(Gauge, "Requests that wait, in each partition owned.", ("partition",)),
    "lumyn_batch_requests": Metric(Histogram, "Requests taken in at once.", bounds=_SIZES),
    "lumyn_commit_seconds": Metric(Histogram, "One transaction, written and committed.", bounds=_CALLS_S),
    "lumyn_memory_recall_seconds": Metric(
        Histogram, "One question to the memory, for a whole batch.", ("available",), _CALLS_S
    ),
    "lumyn_memory_breaker": Metric(Gauge, "1 for the state that the memory's breaker is in.", ("state",)),
    "lumyn_memory_version": Metric(Gauge, "The label version last asked of (decide) or applied (labels)."),
    "lumyn_memory_version_timestamp_seconds": Metric(Gauge, "When that was, in Unix seconds."),
    "lumyn_control_version": Metric(Gauge, "The version of the control state in use."),
    "lumyn_control_stale": Metric(Gauge, "1: cut off from control for too long, every decision is ABSTAIN."),
    "lumyn_dead_letters_total": Metric(Counter, "Messages that could not be used, by reason.", ("reason",)),
    "lumyn_ready": Metric(Gauge, "1: this part stands; /readyz wants all of them.", ("part",)),
    "lumyn_events_total": Metric(Counter, "The worker's log events, by name.", ("name",)),
    "lumyn_troubles_total": Metric(Counter, "What went wrong and is being handled, by name.", ("name",)),
    "lumyn_http_requests_total": Metric(Counter, "HTTP answers, by route and status.", ("method", "route", "status")),
    "lumyn_http_request_seconds": Metric(
        Histogram, "From a request's head to the end of its answer.", ("method", "route"), _CALLS_S
    ),
    "lumyn_build_info": Metric(Gauge, "Which build this is.", ("worker", "engine", "version")),
}


_OF_WATCH = ("tenant", "watch")
_OF_WINDOW = (*_OF_WATCH, "window")

WATCH_METRICS: Mapping[str, Metric] = {
    "lumyn_watch_rate": Metric(Gauge, "Share of the window's decisions that the query finds.", _OF_WINDOW),
    "lumyn_watch_lower": Metric(Gauge, "Lower end of its 95% interval (Wilson).", _OF_WINDOW),
    "lumyn_watch_upper": Metric(Gauge, "Upper end of its 95% interval (Wilson).", _OF_WINDOW),
    "lumyn_watch_count": Metric(Gauge, "Decisions in the window; 0: nothing is known of the rate.", _OF_WINDOW),
    "lumyn_watch_events": Metric(Gauge, "Those of them that the query finds.", _OF_WINDOW),
    "lumyn_watch_burn": Metric(Gauge, "The rate as a multiple of the one that may be.", _OF_WINDOW),
    "lumyn_watch_alert": Metric(Gauge, "1: beyond its threshold in both windows, and not by chance.", _OF_WATCH),
    "lumyn_watch_state": Metric(Gauge, "1 for the state that the watch is in.", (*_OF_WATCH, "state")),
    "lumyn_watch_target": Metric(Gauge, "1 for the state that its target is in.", (*_OF_WATCH, "state")),
    "lumyn_watch_checked_timestamp_seconds": Metric(Gauge, "When the watches were last checked, in Unix seconds."),
    "lumyn_watch_failures_total": Metric(Counter, "Rounds that could not be made, by the error's code.", ("code",)),
    "lumyn_build_info": METRICS["lumyn_build_info"],
}


class _Exposed:
    """Metrics of a table, in a registry of their own. A metric is there from its first value on."""

    def __init__(self, worker: str, table: Mapping[str, Metric]) -> None:
        self._table = table
        self._registry = CollectorRegistry()
        self._making = threading.Lock()
        self._made: dict[str, Any] = {}
        self._children: dict[tuple[str, ...], Any] = {}
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._of("lumyn_build_info", worker, ENGINE, __version__).set(1)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All metrics in the format that an `Accept` header asks for, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def _of(self, name: str, *labels: str) -> Any:
        """A metric, or its child for label values: kept, since finding one costs more than counting."""
        child = self._children.get((name, *labels))
        if child is None:
            with self._making:
                metric = self._made.get(name)
                if metric is None:
                    metric = self._made[name] = self._make(name, self._table[name])
                child = self._children[(name, *labels)] = metric.labels(*labels) if labels else metric
        return child

    def _make(self, name: str, metric: Metric) -> Any:
        if metric.bounds is not None:
            return Histogram(name, metric.says, metric.labels, registry=self._registry, buckets=metric.bounds)
        return metric.kind(name, metric.says, metric.labels, registry=self._registry)

    def _gone(self, name: str, *labels: str) -> None:
        """There is nothing to say of it any more."""
        if self._children.pop((name, *labels), None) is not None:
            self._made[name].remove(*labels)


class Metrics(_Exposed, Observer):
    """One worker's metrics: an index worker says nothing of decisions, and no alert takes a zero for a measurement."""

    def __init__(self, worker: str) -> None:
        """`worker` is the kind of worker: decide, labels, index, ..."""
        super().__init__(worker, METRICS)
        self._partitions: set[int] = set()

    def decided(self, outcome: str, verdict: str | None, latency_s: float, decision_id: str | None) -> None:  # noqa: ARG002
        self._of("lumyn_decisions_total", outcome, verdict or "").inc()
        self._of("lumyn_decision_latency_seconds").observe(latency_s)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """An HTTP request; `route` is the template, so that its values are few."""
        self._of("lumyn_http_requests_total", method, route, str(status)).inc()
        self._of("lumyn_http_request_seconds", method, route).observe(seconds)

    def batch(self, size: int) -> None:
        self._of("lumyn_batch_requests").observe(size)

    def committed(self, seconds: float, messages: int) -> None:  # noqa: ARG002
        self._of("lumyn_commit_seconds").observe(seconds)

    def recalled(self, seconds: float, available: bool, count: int) -> None:  # noqa: ARG002
        self._of("lumyn_memory_recall_seconds", str(available).lower()).observe(seconds)

    def breaker(self, state: str) -> None:
        for name in _BREAKER_STATES:
            self._of("lumyn_memory_breaker", name).set(name == state)

    def dead_letter(self, reason: str) -> None:
        self._of("lumyn_dead_letters_total", reason).inc()

    def lag(self, waiting: Mapping[int, int]) -> None:
        for partition, messages in waiting.items():
            self._of("lumyn_partition_lag", str(partition)).set(messages)
        for partition in self._partitions - set(waiting):  # another worker's to tell of now
            self._gone("lumyn_partition_lag", str(partition))
        self._partitions = set(waiting)

    def ready(self, part: str, stands: bool) -> None:
        self._of("lumyn_ready", part).set(stands)

    def memory_version(self, version: int) -> None:
        self._of("lumyn_memory_version").set(version)
        self._of("lumyn_memory_version_timestamp_seconds").set(time.time())

    def control_version(self, version: int, stale: bool) -> None:
        self._of("lumyn_control_version").set(version)
        self._of("lumyn_control_stale").set(stale)

    def event(self, name: str, **facts: Any) -> None:  # noqa: ARG002
        self._of("lumyn_events_total", name).inc()

    def trouble(self, name: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:  # noqa: ARG002
        self._of("lumyn_troubles_total", name).inc()


class WatchMetrics(_Exposed):
    """What watches measure (`lumyn.watches.check`): a rate that is not known is not there."""

    def __init__(self, tenant: str) -> None:
        super().__init__("watch", WATCH_METRICS)
        self._tenant = tenant
        self._told: set[tuple[str, ...]] = set()

    def checked(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Tell a round of all watches: what none of them says any more is taken out."""
        now: dict[tuple[str, ...], float] = {}
        for one in results:
            whose = (self._tenant, one["name"])
            for window, seen in one["windows"].items():
                for part in ("rate", "lower", "upper", "count", "events", "burn"):
                    if seen[part] is not None and (seen["count"] or part in ("count", "events")):
                        now[f"lumyn_watch_{part}", *whose, window] = seen[part]
            now["lumyn_watch_alert", *whose] = float(one["alert"])
            now["lumyn_watch_state", *whose, one["state"]] = 1
            if one["target_state"] is not None:
                now["lumyn_watch_target", *whose, one["target_state"]] = 1
        for key in self._told - now.keys():
            self._gone(*key)
        for (name, *labels), value in now.items():
            self._of(name, *labels).set(value)
        self._told = set(now)
        self._of("lumyn_watch_checked_timestamp_seconds").set(time.time())

    def failed(self, code: str) -> None:
        """A round could not be made."""
        self._of("lumyn_watch_failures_total", code).inc()
