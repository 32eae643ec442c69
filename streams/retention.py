"""What retention may have taken from a partition: a prefix, older than its topic keeps. All else was removed."""

from __future__ import annotations

from streams.log import Log
from streams.reading import request_offset
from streams.topics import CONTROL, RECEIPTS, REQUESTS, TOPICS


class Held:
    """From which request offset on a partition's requests and receipts are still held."""

    def __init__(self, log: Log, partition: int, now_ms: int) -> None:
        self._now_ms = now_ms
        self._first = {REQUESTS: log.begin(REQUESTS, partition), RECEIPTS: log.end(REQUESTS, partition)}
        receipts = log.read(RECEIPTS, partition, 0, 1)
        if receipts:
            self._first[RECEIPTS] = request_offset(receipts[0]) or 0
        control = log.read(CONTROL, 0, 0, 1)
        self._oldest_ms = control[0].time_ms if control else now_ms

    def holds_from(self, topic: str, offset: int) -> bool:
        """Whether requests of this offset and later should still be there; those before may have expired."""
        return offset >= self._first[topic]

    def expired(self, topic: str, offset: int, time_ms: int | None = None) -> bool:
        """Whether the message of a request's offset is gone because of its age.

        `time_ms` is when it was appended; where nobody knows any more, it is not older than the log's first policy.
        """
        retention_ms = TOPICS[topic].retention_ms
        if retention_ms is None or self.holds_from(topic, offset):
            return False
        return self._now_ms - (self._oldest_ms if time_ms is None else time_ms) > retention_ms
