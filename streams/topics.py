"""The topics: their names, partitions and cleanup."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import BadConfig

DAY_MS = 24 * 3600 * 1000
MIB = 1024 * 1024

REQUESTS = "requests"
RECORDS = "records"
RECEIPTS = "receipts"
LABEL_REQUESTS = "label-requests"
LABEL_RECEIPTS = "label-receipts"
LABELS = "labels"
CONTROL = "control"
SHADOW = "shadow"
DEAD_LETTERS = "dead-letters"
CHECKPOINTS = "checkpoints"
LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Topic:
    """`partitions` None means N, the same for all such topics; `retention_ms` None means kept.

    `max_bytes` is the largest message, in bytes.
    """

    name: str
    partitions: int | None
    compacted: bool = False
    retention_ms: int | None = None
    max_bytes: int = 4 * MIB


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(REQUESTS, None, retention_ms=90 * DAY_MS, max_bytes=MIB),  # a dead letter must hold it in base64
        Topic(RECORDS, None, compacted=True),
        Topic(RECEIPTS, None, retention_ms=7 * DAY_MS),
        Topic(LABEL_REQUESTS, 1, retention_ms=90 * DAY_MS, max_bytes=MIB),
        Topic(LABEL_RECEIPTS, 1, retention_ms=7 * DAY_MS),
        Topic(LABELS, 1),
        Topic(CONTROL, 1, max_bytes=9 * MIB),  # a policy document of the largest size, escaped
        Topic(SHADOW, None, retention_ms=30 * DAY_MS),
        Topic(DEAD_LETTERS, 1, retention_ms=90 * DAY_MS),
        Topic(CHECKPOINTS, 1),
        Topic(LEDGER, 1),
    )
}
DEFAULT_PARTITIONS = 8
EVENTS = (CONTROL, LABELS, LEDGER)
"""What people did: one partition each, kept for good, every event under a checkpoint."""


def full_name(prefix: str, topic: str) -> str:
    """The name on the wire and in records: PREFIX.name."""
    return f"{prefix}.{topic}"


def check_key(topic: str, key: bytes | None) -> None:
    """A compacted topic keeps the newest of each key, so each message there needs one. Raises `BadConfig`."""
    if key is None and topic in TOPICS and TOPICS[topic].compacted:
        raise BadConfig(f"a message for `{topic}` needs a key")
