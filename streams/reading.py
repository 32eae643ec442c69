"""Reading a partition: as a stream with flat memory, and finding what speaks of a request's offset.

In the embedded log a receipt stands at its request's offset. In Kafka transaction markers take offsets of their own, so
records and receipts are found by the place that they name; both are in the order of their requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeGuard

from schemas.canonical import decode_trusted
from streams.log import Log, Message, TransactionalLog
from streams.topics import RECEIPTS

_PAGE_BYTES = 8 * 1024 * 1024
_FIRST_PAGE, _LEAST = 64, 16
MOST_AT_ONCE = 2000


def messages(log: Log, topic: str, partition: int, offset: int = 0, most: int = MOST_AT_ONCE) -> Iterator[Message]:
    """All messages from an offset on. Pages hold `most` messages, fewer where messages are large: memory stays flat."""
    limit = min(most, _FIRST_PAGE)
    while page := log.read(topic, partition, offset, limit):
        yield from page
        offset = page[-1].offset + 1
        size = sum(len(message.value) for message in page)
        limit = max(_LEAST, min(most, _PAGE_BYTES * len(page) // max(size, 1)))


def all_messages(log: Log, topic: str) -> Iterator[Message]:
    """All messages of a topic, partition after partition."""
    for partition in range(log.partitions(topic)):
        yield from messages(log, topic, partition, log.begin(topic, partition))


def object_in(message: Message) -> dict[str, Any]:
    """The object in a message; an empty one when its bytes are no object."""
    try:
        value = decode_trusted(message.value)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def is_embedded(log: Log) -> TypeGuard[TransactionalLog]:
    """Whether this is the embedded log: every offset holds a message, and Lumyn alone writes to it."""
    return hasattr(log, "transaction")


def request_offset(message: Message) -> int | None:
    """The request's offset that a receipt or record speaks of; None when it names no place."""
    value = object_in(message)
    place = value.get("source" if message.topic == RECEIPTS else "log")
    offset = place.get("offset") if isinstance(place, dict) else None
    return offset if isinstance(offset, int) and not isinstance(offset, bool) else None


def first_from(log: Log, topic: str, partition: int, least: int, order: Callable[[Message], int | None]) -> int:
    """The offset of the first message whose `order` is at least `least`; the end, when there is none.

    `order` must not fall along the partition; a message that has none counts as behind.
    """
    low, high = log.begin(topic, partition), log.end(topic, partition)
    while low < high:
        middle = (low + high) // 2
        page = log.read(topic, partition, middle, 1)
        found = order(page[0]) if page else None
        if found is not None and found < least:
            low = page[0].offset + 1
        else:
            high = middle
    return low


def ends_of(log: Log, topic: str) -> tuple[int, ...]:
    """Each partition's end. Kafka is asked for all of them at once."""
    ask = getattr(log, "ends", None)
    return tuple(ask(topic)) if ask is not None else tuple(log.end(topic, p) for p in range(log.partitions(topic)))


def at_time(log: Log, topic: str, partition: int, time_ms: int) -> int:
    """The first offset appended at or after a time; the end, when there is none. Kafka is asked, it keeps an index."""
    ask = getattr(log, "at_time", None)
    if ask is not None:
        return int(ask(topic, partition, time_ms))
    return first_from(log, topic, partition, time_ms, lambda message: message.time_ms)


def start_of(log: Log, topic: str, partition: int, offset: int) -> int:
    """Where the receipts or records of requests from an offset on begin."""
    if offset <= 0:
        return 0
    if topic == RECEIPTS and is_embedded(log):
        return offset
    return first_from(log, topic, partition, offset, request_offset)


def at_offset(log: Log, topic: str, partition: int, offset: int) -> Message | None:
    """The message at an offset."""
    page = log.read(topic, partition, offset, 1)
    return page[0] if page and page[0].offset == offset else None


def of_request(log: Log, topic: str, partition: int, offset: int) -> Message | None:
    """The receipt or record of a request's offset."""
    for message in log.read(topic, partition, start_of(log, topic, partition, offset), 1):
        if request_offset(message) == offset:
            return message
    return None


def last_of(log: Log, topic: str, partition: int) -> Message | None:
    """The newest message."""
    end, step = log.end(topic, partition), 1
    while end > 0:
        start = max(0, end - step)
        page = log.read(topic, partition, start, step)
        if page:
            return page[-1]
        if start == 0:
            return None
        step *= 4
    return None
