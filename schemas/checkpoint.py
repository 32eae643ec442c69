"""Checkpoints: signed, chained Merkle roots over ranges of the log, and the proof that one leaf is under a root.

The leaf at index i of a checkpoint speaks of offset `start` + i of its topic and partition. In the tree it is 33 bytes:
a code for what it speaks of, and the sha256 of its canonical JSON. The codes are under the root too, so that which
offsets were decisions is still known when receipts and requests have expired.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.receipt import Outcome

SCHEMA: Final = "lumyn.checkpoint/1"
PROOF_SCHEMA: Final = "lumyn.proof/1"

_CLOSED: Any = {"extra": "forbid", "strict": True}


@with_config(_CLOSED)
class RequestLeaf(TypedDict):
    """What became of a request. `body_digest` is the canonical body's (the bytes', where that was no request).

    All of a decided one's leaf can be made again from its record alone.
    """

    topic: str
    partition: int
    offset: int
    outcome: Outcome
    body_digest: str
    decision_id: str | None
    record_digest: str | None


@with_config(_CLOSED)
class EventLeaf(TypedDict):
    """A message of `control` or `labels`. `time_ms` is the log's; `key` and `value` are digests of the bytes."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: str | None
    value: str


@with_config(_CLOSED)
class GapLeaf(TypedDict):
    """Nothing stood at this offset: a transaction's marker, or what an aborted one left."""

    topic: str
    partition: int
    offset: int


@with_config(_CLOSED)
class Covered(TypedDict):
    """How far another topic was covered by then: its offsets below `end`, by the checkpoint with this digest."""

    end: int
    checkpoint: str | None


@with_config({"extra": "forbid", "strict": True, "title": "CheckpointStatement"})
class Statement(TypedDict):
    """What is signed. `previous` is the digest of the statement before it on the log, whatever its topic.

    It covers offsets [`start`, `end`) of a partition, `count` of which hold something; `up_to` is the log's time of the
    newest. `number` is dense from 0.
    """

    schema: Literal["lumyn.checkpoint/1"]
    number: int
    previous: str | None
    topic: str
    partition: int
    start: int
    end: int
    count: int
    root: str
    up_to: str
    control: Covered
    labels: Covered
    key_id: str


@with_config({"extra": "forbid", "strict": True, "title": "Checkpoint"})
class CheckpointEvent(TypedDict):
    """A message of `checkpoints`. The signature is over the statement's canonical bytes, Ed25519.

    `leaves` is base64 of the leaves, 33 bytes each; the root vouches for them.
    """

    statement: Statement
    public_key: str
    signature: str
    leaves: str


@with_config({"extra": "forbid", "strict": True, "title": "InclusionProof"})
class InclusionProof(TypedDict):
    """One decision's leaf, and the hashes beside its way to the root of a signed statement (RFC 9162, 2.1.3)."""

    schema: Literal["lumyn.proof/1"]
    statement: Statement
    public_key: str
    signature: str
    leaf: RequestLeaf
    path: list[str]


EVENT: TypeAdapter[CheckpointEvent] = TypeAdapter(CheckpointEvent)
PROOF: TypeAdapter[InclusionProof] = TypeAdapter(InclusionProof)
