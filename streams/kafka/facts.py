"""What the brokers tell, in plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Place = tuple[str, int]
"""(full topic name, partition)"""


MAX_MESSAGE_BYTES = 9 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as the broker gave it; `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    log_append_time: bool


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the cluster describes it."""

    name: str
    topic_id: str
    partitions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A consumer group as the cluster describes it: its state, how many members, and what they were assigned."""

    state: str
    members: int
    assigned: frozenset[Place]


@dataclass(frozen=True, slots=True)
class NewTopicSpec:
    """A topic to create; `config` in Kafka's own names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]
