"""The topics: their names, partitions and cleanup."""

from __future__ import annotations

from dataclasses import dataclass

DAY_MS = 24 * 3600 * 1000

REQUESTS = "requests"
RECORDS = "records"
RECEIPTS = "receipts"
LABEL_REQUESTS = "label-requests"
LABELS = "labels"
CONTROL = "control"
SHADOW = "shadow"
DEAD_LETTERS = "dead-letters"
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, slots=True)
class Topic:
    """`partitions` None means N, the same for all such topics; `retention_ms` None means kept."""

    name: str
    partitions: int | None
    compacted: bool = False
    retention_ms: int | None = None


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(REQUESTS, None, retention_ms=90 * DAY_MS),
        Topic(RECORDS, None, compacted=True),
        Topic(RECEIPTS, None, retention_ms=7 * DAY_MS),
        Topic(LABEL_REQUESTS, 1, retention_ms=90 * DAY_MS),
        Topic(LABELS, 1),
        Topic(CONTROL, 1),
        Topic(SHADOW, None, retention_ms=30 * DAY_MS),
        Topic(DEAD_LETTERS, 1, retention_ms=90 * DAY_MS),
        Topic(CHECKPOINTS, 1),
    )
}
DEFAULT_PARTITIONS = 8


def full_name(prefix: str, topic: str) -> str:
    """The name on the wire and in records: PREFIX.name."""
    return f"{prefix}.{topic}"
