"""The attestation: a signed statement that the decision logic was, or was not, the same throughout a period."""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

SCHEMA: Final = "lumyn.attestation/1"

_CLOSED: Any = {"extra": "forbid", "strict": True}


@with_config(_CLOSED)
class Document(TypedDict):
    """A policy document. Several may have the same logic: comments, layout and the version number don't decide."""

    version: str
    hash: str


@with_config(_CLOSED)
class Seen(TypedDict):
    """A decision, and the log's time of its request."""

    decision_id: str
    at: str


@with_config(_CLOSED)
class Logic(TypedDict):
    """Decisions that one rule graph made, on one engine, for requests that asked for the same policy.

    `asked` is null for requests that name no policy: the active one, or the caller's file, decided.
    """

    asked: str | None
    policy: str
    ir_hash: str
    engine: str
    documents: list[Document]
    decisions: int
    verdicts: dict[str, int]
    first: Seen
    last: Seen


@with_config(_CLOSED)
class Covered(TypedDict):
    """What the log's own checkpoints say about the attested decisions; `head` is the newest one's digest."""

    head: str | None
    decisions: int
    not_covered: int


@with_config(_CLOSED)
class Memory(TypedDict):
    """What the logic was asked beside: the memory that decisions used, which changes as outcomes are labelled."""

    epoch: str
    from_version: int
    to_version: int
    decisions: int
    changed_verdict: int


@with_config(_CLOSED)
class Difference(TypedDict):
    """The logic for requests that asked for one policy, in both environments: `ir_hash engine`, sorted."""

    asked: str | None
    here: list[str]
    there: list[str]
    same: bool


@with_config(_CLOSED)
class Compared(TypedDict):
    """Another attestation that this one was compared with, named by its statement's digest."""

    statement: str
    key_id: str
    environment: str
    period: list[str]
    same: bool
    logic: list[Difference]


@with_config({"extra": "forbid", "strict": True, "title": "AttestationStatement"})
class Statement(TypedDict):
    """What is signed. Times are the log's, in UTC; the period is [`start`, `end`).

    `records` is the sha256 over the `record_digest`s of all attested decisions, a line each, in the order of the log:
    partition, then offset. `unchanged` means one `ir_hash` on one engine for each policy that was asked for. Decisions
    of the engine `verified_by` were decided again; those of others were checked by their digests alone.
    """

    schema: Literal["lumyn.attestation/1"]
    environment: str
    tenant: str
    log: str
    start: str
    end: str
    made_at: str
    verified_by: str
    decisions: int
    records: str
    logic: list[Logic]
    unchanged: bool
    kill_switch: int
    internal_error: int
    memory: list[Memory]
    checkpoints: Covered
    compared: Compared | None
    key_id: str


@with_config(_CLOSED)
class Source(TypedDict):
    """A policy document in full; its hash and logic are in the statement."""

    name: str
    hash: str
    source: str


@with_config({"extra": "forbid", "strict": True, "title": "Attestation"})
class Attestation(TypedDict):
    """The whole document. The signature is over the statement's canonical bytes (RFC 8785), Ed25519, base64."""

    statement: Statement
    public_key: str
    signature: str
    policies: NotRequired[list[Source]]


ADAPTER: TypeAdapter[Attestation] = TypeAdapter(Attestation)
