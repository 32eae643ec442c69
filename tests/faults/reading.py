"""Reading topics as a stranger would: the plain client, read_committed, from the beginning, none of the product's code."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_INVALID, Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

Place = tuple[str, int]
_TIMEOUT_S = 30.0
_WITHOUT_END = ("label-requests", "label-receipts", "labels", "dead-letters")
_SPLIT = ("requests", "records", "receipts")


@dataclass(frozen=True, slots=True)
class Message:
    """A message as the broker holds it; `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None


@dataclass
class Snapshot:
    """Everything that the topics of a prefix hold, and how far the groups say they are."""

    prefix: str
    partitions: int
    topics: dict[str, dict[int, list[Message]]]
    """By short name and partition, in order of offsets."""
    ends: dict[tuple[str, int], int]
    """The offset after the last message or marker, by short name and partition."""
    hidden: list[tuple[str, int]] = field(default_factory=list)
    """Where an open transaction hides what comes after it."""
    positions: dict[tuple[str, int], int] = field(default_factory=dict)
    """The groups' committed positions in `requests` and `label-requests`."""

    def of(self, topic: str) -> list[Message]:
        """A topic's messages, partition by partition."""
        return [message for _, messages in sorted(self.topics[topic].items()) for message in messages]


def _consumer(address: str, group: str, **more: Any) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "check.crcs": True,
            "log_level": 0,
            **more,
        }
    )


def read_to_end(address: str, starts: Mapping[Place, int], timeout_s: float = _TIMEOUT_S) -> list[Message]:
    """What committed messages there are from offsets on, by place and offset, up to each partition's end."""
    consumer = _consumer(address, f"reading-{uuid.uuid4().hex}")
    out: list[Message] = []
    try:
        consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in starts.items()])
        open_places = set(starts)
        deadline = time.monotonic() + timeout_s
        while open_places:
            assert time.monotonic() < deadline, f"{sorted(open_places)} could not be read within {timeout_s:g} s"
            for message in consumer.consume(1000, 0.1):
                place = (message.topic(), message.partition())
                error = message.error()
                if error is None:
                    _, time_ms = message.timestamp()
                    out.append(Message(*place, message.offset(), time_ms, message.key(), message.value()))
                    deadline = time.monotonic() + timeout_s
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_places.discard(place)
                else:
                    assert error.retriable() or error.code() in _PASSING, error.str()
    finally:
        consumer.close()
    return sorted(out, key=lambda m: (m.topic, m.partition, m.offset))


_PASSING = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def committed(address: str, group: str, places: Iterable[Place]) -> dict[Place, int]:
    """A group's committed positions; 0 where there is none."""
    consumer = _consumer(address, group)
    deadline = time.monotonic() + _TIMEOUT_S
    asked = [TopicPartition(*place) for place in places]
    try:
        while True:
            try:
                found = consumer.committed(asked, timeout=_TIMEOUT_S)
                break
            except KafkaException as error:  # a coordinator that is moving, or starting
                assert error.args[0].retriable() or error.args[0].code() in _PASSING, error
                assert time.monotonic() < deadline, error
                time.sleep(0.1)
    finally:
        consumer.close()
    for one in found:
        assert one.error is None, one.error.str()
    return {(one.topic, one.partition): 0 if one.offset == OFFSET_INVALID else one.offset for one in found}


def ends(address: str, places: Iterable[Place], *, read_committed: bool) -> dict[Place, int]:
    """Where each partition ends, for those who see committed messages only, or for all."""
    level = IsolationLevel.READ_COMMITTED if read_committed else IsolationLevel.READ_UNCOMMITTED
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
    deadline = time.monotonic() + _TIMEOUT_S
    while True:
        try:
            found = admin.list_offsets(asked, isolation_level=level, request_timeout=_TIMEOUT_S)
            return {(place.topic, place.partition): future.result().offset for place, future in found.items()}
        except KafkaException:  # a leader that is moving, or starting
            assert time.monotonic() < deadline
            time.sleep(0.2)


def read_everything(address: str, prefix: str, partitions: int) -> Snapshot:
    """Everything that is committed, from the beginning of every partition."""
    counts = {**dict.fromkeys(_SPLIT, partitions), **dict.fromkeys(_WITHOUT_END, 1)}
    places = [(f"{prefix}.{topic}", p) for topic, count in counts.items() for p in range(count)]
    stable, high = ends(address, places, read_committed=True), ends(address, places, read_committed=False)
    topics: dict[str, dict[int, list[Message]]] = {t: {p: [] for p in range(n)} for t, n in counts.items()}
    short = {f"{prefix}.{topic}": topic for topic in counts}
    for message in read_to_end(address, dict.fromkeys(places, 0)):
        topics[short[message.topic]][message.partition].append(message)
    positions: dict[tuple[str, int], int] = {}
    for topic, group in (("requests", "decide"), ("label-requests", "labels")):
        asked = [(f"{prefix}.{topic}", p) for p in range(counts[topic])]
        found = committed(address, f"{prefix}.{group}", asked)
        positions |= {(topic, p): position for (_, p), position in found.items()}
    return Snapshot(
        prefix,
        partitions,
        topics,
        {(short[topic], p): end for (topic, p), end in high.items()},
        [(short[topic], p) for topic, p in places if stable[(topic, p)] < high[(topic, p)]],
        positions,
    )
