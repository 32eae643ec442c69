"""Idempotency: the first decision of a request_id, found through the receipts, within the window."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.canonical import decode_trusted
from schemas.errors import IntegrityError
from schemas.limits import IDEMPOTENCY_WINDOW_MS
from schemas.receipt import Receipt
from schemas.request import Request
from streams.decide import Decision
from streams.log import TransactionalLog
from streams.topics import RECEIPTS, RECORDS


@dataclass(frozen=True, slots=True)
class PriorDecision:
    """An earlier decision of the same tenant and request_id."""

    decision_id: str
    body_digest: str
    canonical: bytes | None


class PriorDecisions:
    """Looks earlier decisions up in a log, and in what the running batch has decided."""

    def __init__(self, log: TransactionalLog) -> None:
        self._log = log
        self._now: dict[bytes, PriorDecision] = {}

    def find(self, request: Request, time_ms: int) -> PriorDecision | None:
        """The earlier decision, if there is one not older than the window."""
        key = request.key
        if key is None:
            return None
        if key in self._now:
            return self._now[key]
        message = self._log.latest(RECEIPTS, key)
        if message is None or time_ms - message.time_ms > IDEMPOTENCY_WINDOW_MS:
            return None
        receipt: Receipt = decode_trusted(message.value)
        assert receipt["decision_id"] is not None
        return PriorDecision(receipt["decision_id"], receipt["body_digest"], None)

    def remember(self, request: Request, decision: Decision) -> None:
        """A decision of the running batch."""
        if request.key is not None:
            found = PriorDecision(decision.record["decision_id"], request.body_digest, decision.canonical)
            self._now[request.key] = found

    def record(self, prior: PriorDecision) -> tuple[bytes, str]:
        """The first decision's record and its digest."""
        canonical = prior.canonical
        if canonical is None:
            message = self._log.latest(RECORDS, prior.decision_id.encode())
            if message is None:
                raise IntegrityError(f"decision {prior.decision_id} has a receipt but no record")
            canonical = message.value
        return canonical, decode_trusted(canonical)["record_digest"]
