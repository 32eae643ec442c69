"""One request offset of a log under verification: what the topics hold about it, and whether that can be."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.checkpoint import RequestLeaf
from streams.integrity import Check
from streams.leaves import CODES, GAP, OUTCOMES, request_entry, request_leaf
from streams.log import Log, Message
from streams.prior_records import PriorRecords
from streams.reading import at_offset, object_in, of_request
from streams.retention import Held
from streams.topics import RECEIPTS, RECORDS, REQUESTS
from streams.verify import Leaf, canonical_digest, has_body


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked under a name: a decision's id, or a place in the log where something is wrong."""

    name: str
    checks: list[Check]
    decision: bool = False
    record: Mapping[str, Any] | None = None
    """The record, where it has a place in the log."""

    @property
    def failed(self) -> list[Check]:
        """The checks that did not hold."""
        return [check for check in self.checks if not check.ok]


@dataclass(frozen=True, slots=True)
class Slot:
    """What the log holds about a request's offset that has no record."""

    offset: int
    request: Message | None
    receipt: Message | None
    leaf: Leaf | None


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition under verification. `position`: requests below it were decided when the verification began."""

    log: Log
    topic: str
    number: int
    held: Held
    prior: PriorRecords
    position: int
    dead: Container[Any]
    """The places of requests that became dead letters."""
    damaged: Container[str]
    """Ids of records that were told of already."""

    def request(self, offset: int, seen: Message | None) -> Message | None:
        """The request of an offset; looked up again where the stream ended before it came."""
        if seen is None and self.held.holds_from(REQUESTS, offset):
            return at_offset(self.log, REQUESTS, self.number, offset)
        return seen

    def receipt(self, offset: int, seen: Message | None) -> Message | None:
        """The receipt of a request's offset; looked up again likewise."""
        if seen is None and self.held.holds_from(RECEIPTS, offset):
            return of_request(self.log, RECEIPTS, self.number, offset)
        return seen

    def record(self, offset: int) -> Message | None:
        """The record of a request's offset, looked up again: on Kafka it may show later than its receipt."""
        return of_request(self.log, RECORDS, self.number, offset)


def expects_record(slot: Slot) -> bool:
    """Whether a receipt or a signed leaf says that a record was made."""
    if slot.receipt is not None and object_in(slot.receipt).get("outcome") == "decided":
        return True
    return slot.leaf is not None and slot.leaf[0][:1] == CODES["decided"]


def check_unrecorded(partition: Partition, slot: Slot) -> Finding | None:
    """What is wrong with an offset that has no record: a retry, a dead letter, nothing at all, or a decision gone."""
    if slot.receipt is not None:
        return _with_receipt(partition, slot, slot.receipt)
    if slot.leaf is not None:
        return _with_leaf(partition, slot, *slot.leaf)
    if slot.request is not None and slot.offset < partition.position:
        return _with_request(partition, slot, slot.request)
    return None


def _with_receipt(partition: Partition, slot: Slot, message: Message) -> Finding | None:
    place, receipt = f"{RECEIPTS}/{partition.number}/{message.offset}", object_in(message)
    name, outcome = receipt.get("decision_id"), receipt.get("outcome")
    checks = [_body(partition, slot, receipt)]
    if slot.leaf is not None:
        checks.append(_signed_receipt(receipt, *slot.leaf))
    if outcome == "decided":
        if name in partition.damaged:
            return None
        checks.append(Check("record", False, f"its receipt ({place}) is there, the record is gone"))
        return Finding(str(name), _failed(checks), decision=True)
    if outcome in ("duplicate", "conflict"):
        checks.append(_first(partition, receipt, place))
        if name not in partition.damaged and checks[-1].name == "record" and not checks[-1].ok:
            return Finding(str(name), _failed(checks))
    elif outcome != "rejected" or (partition.topic, partition.number, slot.offset) not in partition.dead:
        checks.append(Check("receipt", False, "it is neither a decision's nor a dead letter's"))
    failed = _failed(checks)
    return Finding(place, failed) if failed else None


def _failed(checks: list[Check]) -> list[Check]:
    return [check for check in checks if not check.ok]


def _body(partition: Partition, slot: Slot, receipt: dict[str, Any]) -> Check:
    request = partition.request(slot.offset, slot.request)
    if request is None:
        expired = partition.held.expired(REQUESTS, slot.offset)
        return Check("request", expired, "no request at its offset")
    same = has_body(partition.log, request, receipt.get("body_digest", ""))
    return Check("receipt", same, "its body_digest is not the digest of the request in the log")


def _first(partition: Partition, receipt: dict[str, Any], place: str) -> Check:
    """A retry's receipt names the first decision, and a duplicate's its digest, too."""
    name = receipt.get("decision_id")
    if name in partition.damaged:
        return Check("record", True)
    found = partition.prior.digest_of(name)
    if found is None:
        return Check("record", False, f"a retry's receipt ({place}) speaks of it, the record is gone")
    same = receipt["outcome"] == "conflict" or receipt.get("record_digest") == found
    return Check("receipt", same, "its record_digest is not the first decision's")


def _signed_receipt(receipt: dict[str, Any], leaf: bytes, number: int) -> Check:
    try:
        same = leaf == request_entry(request_leaf(receipt))
    except (KeyError, TypeError):
        same = False
    if leaf[:1] == GAP:
        why = f"nothing stood here when checkpoint {number} was signed: request and receipt were put in later"
    else:
        why = f"checkpoint {number} was signed for another receipt ({OUTCOMES.get(leaf[:1])}): this one was rewritten"
    return Check("checkpoint", same, "" if same else why)


def _with_leaf(partition: Partition, slot: Slot, leaf: bytes, number: int) -> Finding | None:
    """Receipt and record are not there; what was signed still says what there was."""
    place = f"{REQUESTS}/{partition.number}/{slot.offset}"
    outcome = OUTCOMES.get(leaf[:1])
    if outcome is None:
        if slot.request is None:
            return None
        why = f"nothing stood here when checkpoint {number} was signed: the request was put in later"
        return Finding(place, [Check("checkpoint", False, why)])
    if outcome == "decided":
        why = f"the decision that checkpoint {number} was signed for is gone"
        return Finding(place, [Check("record", False, why)], decision=True)
    decided_ms = slot.request.time_ms if slot.request is not None else None
    if not partition.held.expired(RECEIPTS, slot.offset, decided_ms):
        why = f"checkpoint {number} was signed for a receipt here ({outcome}), which is gone"
        return Finding(place, [Check("receipt", False, why)])
    if outcome == "rejected" and slot.request is not None and _rejected_leaf(partition, slot.request) != leaf:
        why = f"checkpoint {number} was signed for another request: this one was rewritten"
        return Finding(place, [Check("request", False, why)])
    return None


def _rejected_leaf(partition: Partition, request: Message) -> bytes:
    leaf: RequestLeaf = {
        "topic": partition.topic,
        "partition": partition.number,
        "offset": request.offset,
        "outcome": "rejected",
        "body_digest": canonical_digest(request),
        "decision_id": None,
        "record_digest": None,
    }
    return request_entry(leaf)


def _with_request(partition: Partition, slot: Slot, request: Message) -> Finding | None:
    """Decided, and nothing says how: its receipt must have expired, and it can't have been the first of its id."""
    place = f"{REQUESTS}/{partition.number}/{slot.offset}"
    if not partition.held.expired(RECEIPTS, slot.offset, request.time_ms):
        return Finding(place, [Check("receipt", False, "decided once, and its receipt is gone")])
    retry = object_in(request).get("request_id") is not None
    if not retry and (partition.topic, partition.number, slot.offset) not in partition.dead:
        return Finding(place, [Check("record", False, "decided once, and its record is gone")], decision=True)
    return None
