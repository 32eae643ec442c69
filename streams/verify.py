"""Verify stored records: digests, policy, receipt, the request in the log, and deciding again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import LumynError
from streams.control import ControlState
from streams.integrity import Check, check_policy, check_record, check_reproduction, recorded_policy
from streams.log import Log
from streams.topics import RECEIPTS, RECORDS, REQUESTS, full_name


def verify_record(log: Log, control: ControlState, raw: bytes, record: Mapping[str, Any]) -> list[Check]:
    """Every check of a stored record, in the order in which they are made."""
    checks = [_canonical(raw, record), *check_record(record)]
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
    same = raw == encode(record)
    return Check("canonical", same, "" if same else "the stored bytes are not the record's canonical bytes")


def _receipt(log: Log, record: Mapping[str, Any]) -> Check:
    """The receipt was written with the record; it holds the record's digest a second time."""
    place = record["log"]
    for message in log.read(RECEIPTS, place["partition"], max(0, place["offset"]), 1):
        receipt = decode_trusted(message.value)
        if receipt["source"] == place:
            same = receipt["record_digest"] == record["record_digest"]
            return Check("receipt", same, "" if same else "the receipt names another record_digest")
    return Check("receipt", False, "no receipt for the record's offset")


def _request(log: Log, record: Mapping[str, Any]) -> Check:
    """The request in the log, where retention still holds it, is the record's."""
    place = record["log"]
    if place["topic"] != full_name(log.prefix, REQUESTS):
        return Check("request", False, f"the request's topic `{place['topic']}` is not this log's")
    messages = log.read(REQUESTS, place["partition"], place["offset"], 1)
    if not messages or messages[0].offset != place["offset"]:
        expired = place["offset"] < log.begin(REQUESTS, place["partition"])
        return Check("request", expired, "the request has expired" if expired else "no request at its offset")
    same = digest(messages[0].value) == digest(encode(record["request"], finite=True))
    return Check("request", same, "" if same else "the log's request is not the record's")


def _order(log: Log, record: Mapping[str, Any]) -> Check:
    """The id finds this very record, and no second one."""
    found = log.latest(RECORDS, record["decision_id"].encode())
    same = found is not None and found.value == encode(record)
    return Check("record", same, "" if same else "the log holds another record under this id")


def verify_all(log: Log, control: ControlState, tenant: str | None = None) -> Any:
    """Yield (decision_id, checks) for every stored record, and for receipts whose record is gone."""
    for partition in range(log.partitions(RECORDS)):
        offset = 0
        seen: set[str] = set()
        while messages := log.read(RECORDS, partition, offset):
            for message in messages:
                place = f"{message.topic}/{message.partition}/{message.offset}"
                record = _whole(message.value)
                if record is None:
                    yield place, [Check("record_digest", False, "the stored bytes are not a record any more")]
                    continue
                seen.add(record["decision_id"])
                if tenant is None or record["tenant"] == tenant:
                    yield record["decision_id"], verify_record(log, control, message.value, record)
            offset = messages[-1].offset + 1
        yield from _dropped(log, partition, seen)


def _whole(raw: bytes) -> dict[str, Any] | None:
    try:
        record = decode_trusted(raw)
        record["decision_id"], record["log"]["offset"], record["tenant"]
    except (ValueError, KeyError, TypeError):
        return None
    return record  # type: ignore[no-any-return]


def _dropped(log: Log, partition: int, seen: set[str]) -> Any:
    offset = 0
    while messages := log.read(RECEIPTS, partition, offset):
        for message in messages:
            receipt = decode_trusted(message.value)
            if receipt["outcome"] == "decided" and receipt["decision_id"] not in seen:
                yield receipt["decision_id"], [Check("record", False, "its receipt is there, the record is gone")]
        offset = messages[-1].offset + 1
