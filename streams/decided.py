"""How far a partition's requests are decided, by what was written: for a group whose position was lost.

Kafka forgets the positions of a group that nobody was in for `offsets.retention.minutes`, and an operator can delete
or reset them. What has a receipt or a record is decided all the same, and must not be decided again.
"""

from __future__ import annotations

from streams.log import Log, Message
from streams.reading import request_offset
from streams.topics import RECEIPTS, RECORDS


def decided_up_to(log: Log, partition: int) -> int:
    """The request offset after the last one that has a receipt or, where receipts have expired, a record; else 0.

    Requests of a partition are decided in order, so everything below is decided. Raises `StorageUnavailable`.
    """
    newest = _last(log, RECEIPTS, partition) or _last(log, RECORDS, partition)
    offset = request_offset(newest) if newest is not None else None
    return 0 if offset is None else offset + 1


def _last(log: Log, topic: str, partition: int) -> Message | None:
    """The newest message of a partition; what stands after it may be transaction markers."""
    end = log.end(topic, partition)
    step = 2
    while end > 0:
        start = max(0, end - step)
        messages = log.read(topic, partition, start, step)
        if messages:
            return messages[-1]
        if start == 0:
            return None
        step *= 8
    return None
