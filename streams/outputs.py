"""What the decide step writes beside the record: receipts and dead letters."""

from __future__ import annotations

import base64

from schemas.canonical import encode_plain
from schemas.digests import digest
from schemas.errors import LumynError
from schemas.receipt import Outcome
from schemas.request import Request, envelope_in
from streams.log import Append, Message
from streams.topics import DEAD_LETTERS, RECEIPTS


def receipt(
    topic: str,
    message: Message,
    request: Request | None,
    outcome: Outcome,
    decision_id: str | None = None,
    record_digest: str | None = None,
) -> Append:
    """The receipt of a request's offset. Only a decided one carries the idempotency key: the first one counts."""
    value = {
        "source": {"topic": topic, "partition": message.partition, "offset": message.offset},
        "tenant": request.tenant if request else None,
        "request_id": request.request_id if request else None,
        "body_digest": _body_digest(message, request, outcome),
        "outcome": outcome,
        "decision_id": decision_id,
        "record_digest": record_digest,
    }
    key = request.key if request is not None and outcome == "decided" else None
    return Append(RECEIPTS, encode_plain(value), key, message.partition)


def _body_digest(message: Message, request: Request | None, outcome: Outcome) -> str:
    """What the receipt names: what a record holds, where there is one; else what is in the log, perhaps in clear."""
    if request is None:
        return digest(message.value)
    if outcome != "decided" and request.clear_digest is not None and envelope_in(message.value) is None:
        return request.clear_digest
    return request.body_digest


def dead_letter(topic: str, message: Message, error: LumynError) -> Append:
    """The message as it came, byte for byte, with the reason why it could not be decided."""
    value = {
        "source": {"topic": topic, "partition": message.partition, "offset": message.offset},
        "reason": error.code,
        "detail": str(error),
        "payload_base64": base64.b64encode(message.value).decode("ascii"),
    }
    return Append(DEAD_LETTERS, encode_plain(value), message.key)
