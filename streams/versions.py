"""Finding the event of a dense version in a topic whose offsets may have gaps (Kafka's transaction markers)."""

from __future__ import annotations

from schemas.canonical import decode_trusted
from schemas.errors import StorageUnavailable
from streams.log import Log, Message


def version_of(message: Message) -> int:
    """The dense version that an event carries. Raises `StorageUnavailable` for what is no event."""
    try:
        version = decode_trusted(message.value)["version"]
    except (ValueError, KeyError, TypeError):
        version = None
    if not isinstance(version, int):
        raise StorageUnavailable(
            "this is no label event: the topic has been written to by somebody else",
            where=f"{message.topic}/{message.partition}/{message.offset}",
            help="only the label agent may write to it; see the ACLs in docs/run-on-kafka.md",
        )
    return version


def offset_after(log: Log, topic: str, version: int) -> int:
    """The offset from which the events after a version are read, on partition 0. At most log2(n) small reads."""
    low, high = version, log.end(topic, 0)  # each event has an offset of its own, so none after it lies lower
    if low >= high:
        return low
    while low < high:
        middle = (low + high) // 2
        found = log.read(topic, 0, middle, 1)
        if found and version_of(found[0]) <= version:
            low = found[0].offset + 1
        else:
            high = middle
    return low


def last_version(log: Log, topic: str) -> int:
    """The newest event's version; 0 when there is none."""
    end = log.end(topic, 0)
    step = 1
    while end > 0:
        start = max(0, end - step)
        messages = log.read(topic, 0, start, step)
        if messages:
            return version_of(messages[-1])
        if start == 0:
            return 0
        step *= 4
    return 0
