"""The Log protocol: partitioned, ordered, durable topics, and the one transaction that deciding needs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from streams.subject_keys import SubjectKeys


@dataclass(frozen=True, slots=True)
class Append:
    """A message to append. Without a partition the key chooses it (murmur2), without a key the value does."""

    topic: str
    value: bytes
    key: bytes | None = None
    partition: int | None = None


class Message(NamedTuple):
    """A message in the log; `time_ms` is the log's append time, which callers can't forge."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes


class PartitionWriter(Protocol):
    """The one owner of an input partition. Opening another fences this one: its next commit raises `Fenced`."""

    @property
    def position(self) -> int:
        """The next input offset to decide: everything below it is committed."""
        ...

    def commit(self, outputs: Sequence[Append], position: int) -> list[Message]:
        """Append the outputs and move the position, all or nothing. Raises `Fenced`, `StorageUnavailable`."""
        ...

    def close(self) -> None:
        """Give the partition up."""
        ...


class Log(Protocol):
    """A partitioned log. Topic names are without prefix. Readers see committed messages only."""

    @property
    def prefix(self) -> str:
        """What stands before every topic's name."""
        ...

    @property
    def keys(self) -> SubjectKeys:
        """What opens the sealed messages in it."""
        ...

    @property
    def epoch(self) -> str:
        """Which log this is: one made anew under the same name is another, and what was derived is of no use."""
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; fixed for the log's life."""
        ...

    def append(self, appends: Sequence[Append]) -> list[Message]:
        """Append in order, durably, all or nothing; returns the messages with their places and times."""
        ...

    def read(self, topic: str, partition: int, offset: int, limit: int = 1000) -> list[Message]:
        """Up to `limit` messages from an offset on, in order; those removed by retention are passed over."""
        ...

    def begin(self, topic: str, partition: int) -> int:
        """The first offset still held (the end, when none is)."""
        ...

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next message will get."""
        ...

    def committed(self, group: str, topic: str, partition: int) -> int:
        """A group's position in a partition; 0 when it has none."""
        ...

    def latest(self, topic: str, key: bytes) -> Message | None:
        """The newest message with a key."""
        ...

    def writer(self, group: str, topic: str, partition: int) -> PartitionWriter:
        """Open the one writer of an input partition, fencing any older one."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


class Transaction(Protocol):
    """Appends and positions that become visible together. The embedded log offers it to decide in one commit."""

    def append(self, appends: Sequence[Append]) -> list[Message]:
        """Append within the transaction; places and times are final if it commits."""
        ...

    def position(self, group: str, topic: str, partition: int) -> int:
        """A group's position as this transaction sees it."""
        ...

    def move(self, group: str, topic: str, partition: int, position: int) -> None:
        """Move a group's position with the transaction."""
        ...


class TransactionalLog(Log, Protocol):
    """A log that can append a request and decide it in one transaction (the embedded one)."""

    def with_key(self, topic: str, key: bytes) -> list[Message]:
        """All messages with a key, in order."""
        ...

    def keys_from(self, topic: str, prefix: bytes, limit: int) -> list[bytes]:
        """Distinct keys that start with a prefix, in order, at most `limit`."""
        ...

    def transaction(self) -> AbstractContextManager[Transaction]:
        """Hold the write lock; commit at the end, roll back on any exception."""
        ...
