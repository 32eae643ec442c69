"""What agents tell whoever watches them: metrics and structured logs are written by implementations of `Observer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Observer:
    """Hears of everything and does nothing; subclasses override what they want. Durations are seconds."""

    def decided(self, outcome: str, verdict: str | None, latency_s: float, decision_id: str | None) -> None:
        """One request was answered and committed; latency is from the log's append time of the request."""

    def batch(self, size: int) -> None:
        """A batch was taken in."""

    def committed(self, seconds: float, messages: int) -> None:
        """A transaction took effect."""

    def recalled(self, seconds: float, available: bool, count: int) -> None:
        """Memory was asked for a batch."""

    def breaker(self, state: str) -> None:
        """The memory's circuit breaker is `closed`, `open` or `half-open`."""

    def dead_letter(self, reason: str) -> None:
        """A message could not be decided."""

    def lag(self, waiting: Mapping[int, int]) -> None:
        """How many requests wait, by partition: of all that this worker owns now, and of no others."""

    def ready(self, part: str, stands: bool) -> None:
        """Whether a part stands that the worker can't do its work without: `control`, `partitions`, `labels`, ..."""

    def memory_version(self, version: int) -> None:
        """The memory version that the last batch used."""

    def control_version(self, version: int, stale: bool) -> None:
        """The control version that the last batch used."""

    def event(self, name: str, **facts: Any) -> None:
        """Something worth a line in the log: `worker_started`, `partition_opened`, `commit_failed`, ..."""

    def trouble(self, name: str, error: BaseException, facts: Mapping[str, Any] | None = None) -> None:
        """Something went wrong and is being handled."""
