"""Verify stored records: digests, policy, receipt, the request in the log, and deciding again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import LumynError
from schemas.ids import time_ms_of
from streams.control import ControlState
from streams.decide_agent import GROUP
from streams.integrity import Check, check_policy, check_record, check_reproduction, recorded_policy, recorded_request
from streams.log import Log, Message
from streams.outputs import receipt
from streams.topics import DEAD_LETTERS, RECEIPTS, RECORDS, REQUESTS, full_name


def verify_record(log: Log, control: ControlState, raw: bytes, record: Mapping[str, Any]) -> list[Check]:
    """Every check of a stored record, in the order in which they are made; a record whose own digests fail ends it."""
    checks = [_canonical(raw, record), *check_record(record)]
    if not all(check.ok for check in checks):
        return checks
    if not _in_log(log, record["log"]):
        return [*checks, Check("request", False, "its place is not in this log")]
    checks += [_receipt(log, record), _request(log, record), _order(log, record)]
    try:
        source = control.compiled(record["policy"]["hash"]).source
        checks += check_policy(record, source)
    except LumynError as error:
        return [*checks, Check("policy_hash", False, error.message)]
    if all(check.ok for check in checks):
        checks.append(check_reproduction(record, recorded_policy(record, source)))
    return checks


def _canonical(raw: bytes, record: Mapping[str, Any]) -> Check:
    try:
        same = raw == encode(record)
    except LumynError:
        same = False
    return Check("canonical", same, "" if same else "the stored bytes are not the record's canonical bytes")


def _in_log(log: Log, place: Mapping[str, Any]) -> bool:
    partition, offset = place["partition"], place["offset"]
    return bool(0 <= partition < log.partitions(REQUESTS) and 0 <= offset < log.end(RECEIPTS, partition))


def _receipt(log: Log, record: Mapping[str, Any]) -> Check:
    """The receipt was written with the record, and follows from it: a retry is answered by what it says."""
    place, request = record["log"], recorded_request(record)
    source = Message(REQUESTS, place["partition"], place["offset"], 0, request.key, request.canonical)
    written = receipt(place["topic"], source, request, "decided", record["decision_id"], record["record_digest"])
    expected = decode_trusted(written.value)
    for message in log.read(RECEIPTS, place["partition"], place["offset"], 1):
        if message.offset != place["offset"]:
            break
        found = _object(message)
        wrong = [name for name in {**expected, **found} if found.get(name) != expected.get(name, found)]
        if message.key != written.key:
            wrong.append("key")
        return Check("receipt", not wrong, f"the receipt has another {', '.join(wrong)}" if wrong else "")
    return Check("receipt", False, "no receipt for the record's offset")


def _request(log: Log, record: Mapping[str, Any]) -> Check:
    """The request in the log, where retention still holds it, is the record's, and so is its time."""
    place = record["log"]
    if place["topic"] != full_name(log.prefix, REQUESTS):
        return Check("request", False, f"the request's topic `{place['topic']}` is not this log's")
    messages = log.read(REQUESTS, place["partition"], place["offset"], 1)
    if not messages or messages[0].offset != place["offset"]:
        expired = place["offset"] < log.begin(REQUESTS, place["partition"])
        return Check("request", expired, "the request has expired" if expired else "no request at its offset")
    if messages[0].time_ms != time_ms_of(record["created_at"]):
        return Check("request", False, "the log's time of the request is not the record's")
    same = messages[0].value == recorded_request(record).canonical
    return Check("request", same, "" if same else "the log's request is not the record's")


def _order(log: Log, record: Mapping[str, Any]) -> Check:
    """The id finds this very record, and no second one."""
    found = log.latest(RECORDS, record["decision_id"].encode())
    same = found is not None and found.value == encode(record)
    return Check("record", same, "" if same else "the log holds another record under this id")


def verify_all(log: Log, control: ControlState, tenant: str | None = None) -> Iterator[tuple[str, list[Check]]]:
    """Yield (decision_id, checks) for every stored record, and for what should be in the log and is gone.

    With a `tenant`, sound records of others are passed over; one that fails is told whatever tenant it claims.
    """
    dead = {_place(_object(m).get("source")) for m in _messages(log, DEAD_LETTERS, 0, 0)}
    for partition in range(log.partitions(RECORDS)):
        seen: set[str] = set()
        for message in _messages(log, RECORDS, partition, 0):
            record = _object(message)
            if not isinstance(record.get("decision_id"), str):
                place = f"{message.topic}/{message.partition}/{message.offset}"
                yield place, [Check("record_digest", False, "the stored bytes are not a record any more")]
                continue
            seen.add(record["decision_id"])
            checks = verify_record(log, control, message.value, record)
            if tenant in (None, record.get("tenant")) or not all(check.ok for check in checks):
                yield record["decision_id"], checks
        yield from _gone(log, partition, seen, dead)


def _gone(log: Log, partition: int, records: set[str], dead: set[Any]) -> Iterator[tuple[str, list[Check]]]:
    """Every request below the reader's position has its receipt, and every receipt what it speaks of."""
    requests = _messages(log, REQUESTS, partition, 0)
    request = next(requests, None)
    expected = min(log.begin(REQUESTS, partition), log.begin(RECEIPTS, partition))
    for message in _messages(log, RECEIPTS, partition, 0):
        if message.offset > expected:
            yield _hole(partition, expected, message.offset)
        expected = message.offset + 1
        while request is not None and request.offset < message.offset:
            request = next(requests, None)
        place, receipt = f"{RECEIPTS}/{partition}/{message.offset}", _object(message)
        name, outcome = receipt.get("decision_id"), receipt.get("outcome")
        if outcome in ("decided", "duplicate", "conflict"):
            if name not in records:
                yield str(name), [Check("record", False, f"its receipt ({place}) is there, the record is gone")]
        elif outcome != "rejected" or _place(receipt.get("source")) not in dead:
            yield place, [Check("receipt", False, "it is neither a decision's nor a dead letter's")]
        same = (
            request is None or request.offset != message.offset or receipt.get("body_digest") == digest(request.value)
        )
        if not same:
            yield place, [Check("receipt", False, "its body_digest is not the digest of the request in the log")]
    position = log.committed(GROUP, REQUESTS, partition)
    if position > expected:
        yield _hole(partition, expected, position)


def _hole(partition: int, start: int, end: int) -> tuple[str, list[Check]]:
    offsets = f"{start}" if end == start + 1 else f"{start} to {end - 1}"
    return f"{REQUESTS}/{partition}/{offsets}", [Check("receipt", False, "decided once, and its receipt is gone")]


def _messages(log: Log, topic: str, partition: int, offset: int) -> Iterator[Message]:
    while messages := log.read(topic, partition, offset):
        yield from messages
        offset = messages[-1].offset + 1


def _object(message: Message) -> dict[str, Any]:
    """The object in a message; an empty one when its bytes are no object any more."""
    try:
        value = decode_trusted(message.value)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _place(source: Any) -> Any:
    return (source.get("topic"), source.get("partition"), source.get("offset")) if isinstance(source, dict) else None
