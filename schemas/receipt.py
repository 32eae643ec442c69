"""The receipt: what became of one request offset. Exactly one for each."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.record import LogRef

Outcome = Literal["decided", "duplicate", "conflict", "rejected"]


@with_config({"extra": "forbid", "strict": True, "title": "Receipt"})
class Receipt(TypedDict):
    """Callers wait on it; the idempotency window is rebuilt from it."""

    source: LogRef
    tenant: str | None
    request_id: str | None
    body_digest: str
    outcome: Outcome
    decision_id: str | None
    record_digest: str | None


@with_config({"extra": "forbid", "strict": True, "title": "DeadLetter"})
class DeadLetter(TypedDict):
    """A message that could not be decided, kept byte for byte.

    One with the reason `resent` notes that a letter, its source, was sent again: where and by whom is in `detail`.
    """

    source: LogRef
    reason: str
    detail: str
    payload_base64: str


ADAPTER: TypeAdapter[Receipt] = TypeAdapter(Receipt)
DEAD_LETTER: TypeAdapter[DeadLetter] = TypeAdapter(DeadLetter)
