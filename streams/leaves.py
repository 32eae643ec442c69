"""A checkpoint's leaves: 33 bytes for one offset, a code for what is there and the sha256 of the leaf's JSON."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from schemas.canonical import encode
from schemas.checkpoint import EventLeaf, GapLeaf, RequestLeaf
from schemas.digests import digest
from schemas.seal import stored_of
from streams.log import Message
from streams.topics import full_name

LEAF_BYTES = 33
GAP = b"-"
EVENT = b"e"
CODES = {"decided": b"d", "duplicate": b"u", "conflict": b"c", "rejected": b"r"}
OUTCOMES = {code: outcome for outcome, code in CODES.items()}


def request_leaf(receipt: Mapping[str, Any]) -> RequestLeaf:
    """A receipt's leaf. Raises `KeyError`, `TypeError` when it is none."""
    source = receipt["source"]
    return {
        "topic": source["topic"],
        "partition": source["partition"],
        "offset": source["offset"],
        "outcome": receipt["outcome"],
        "body_digest": receipt["body_digest"],
        "decision_id": receipt["decision_id"],
        "record_digest": receipt["record_digest"],
    }


def record_leaf(record: Mapping[str, Any]) -> RequestLeaf:
    """The same leaf from the record alone: it outlives the receipt and the request."""
    return request_leaf(
        {
            "source": record["log"],
            "outcome": "decided",
            "body_digest": digest(encode(stored_of(record)["request"], finite=True)),
            "decision_id": record["decision_id"],
            "record_digest": record["record_digest"],
        }
    )


def request_entry(leaf: RequestLeaf) -> bytes:
    """The 33 bytes of what became of a request. Raises `KeyError` for an outcome that there isn't."""
    return CODES[leaf["outcome"]] + _sha256(leaf)


def event_entry(prefix: str, message: Message) -> bytes:
    """The 33 bytes of a message of `control`, `labels` or `ledger`."""
    leaf: EventLeaf = {
        "topic": full_name(prefix, message.topic),
        "partition": message.partition,
        "offset": message.offset,
        "time_ms": message.time_ms,
        "key": None if message.key is None else digest(message.key),
        "value": digest(message.value),
    }
    return EVENT + _sha256(leaf)


def gap_entry(topic: str, partition: int, offset: int) -> bytes:
    """The 33 bytes of an offset that holds nothing; `topic` is the full name."""
    leaf: GapLeaf = {"topic": topic, "partition": partition, "offset": offset}
    return GAP + _sha256(leaf)


def split(leaves: bytes) -> list[bytes]:
    """The leaves one by one."""
    return [leaves[at : at + LEAF_BYTES] for at in range(0, len(leaves), LEAF_BYTES)]


def _sha256(leaf: Any) -> bytes:
    return hashlib.sha256(encode(leaf)).digest()
