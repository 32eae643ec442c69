"""The tail of a topic: what is appended from now on, to all of its partitions, asked for again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from streams.log import Log, Message
from streams.reading import messages


class Tail(Protocol):
    """For one thread at a time."""

    def news(self) -> Iterator[Message]:
        """What is there and was not given yet, each partition in its order. Raises `StorageUnavailable`."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


def tail_of(log: Log, topic: str) -> Tail:
    """The tail from a topic's present end on. Kafka follows all partitions with one reader of its own."""
    own: Callable[[str], Tail] | None = getattr(log, "tail", None)
    return ReadTail(log, topic) if own is None else own(topic)


class ReadTail:
    """A tail by reading one partition after another, where a read costs little."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._positions = {p: log.end(topic, p) for p in range(log.partitions(topic))}

    def news(self) -> Iterator[Message]:
        for partition, position in list(self._positions.items()):
            for message in messages(self._log, self._topic, partition, position):
                self._positions[partition] = message.offset + 1
                yield message

    def close(self) -> None:
        """Nothing is held."""
