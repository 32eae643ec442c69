"""Verify a stored record: digests, receipt, request, checkpoint, policy, and deciding again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import IntegrityError, LumynError
from schemas.ids import time_ms_of
from schemas.request import Request, envelope_in, parse_request
from schemas.seal import OpenRecord, is_sealed
from streams.checkpoints import Chain
from streams.control import ControlState
from streams.integrity import Check, check_policy, check_record, check_reproduction, recorded_policy, stored_form
from streams.leaves import GAP, OUTCOMES, record_leaf, request_entry, split
from streams.local_log import wall_clock_ms
from streams.log import Log, Message
from streams.outputs import receipt
from streams.reading import at_offset, is_embedded, object_in, of_request
from streams.retention import Held
from streams.sealing import opened_record
from streams.subject_keys import keys_of
from streams.topics import RECEIPTS, RECORDS, REQUESTS, full_name

Leaf = tuple[bytes, int]
"""A signed leaf, and the number of its checkpoint."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What the log holds about a request's offset beside its record; None where it holds nothing."""

    request: Message | None
    receipt: Message | None
    leaf: Leaf | None


def verify_record(
    log: Log,
    control: ControlState,
    raw: bytes,
    record: Mapping[str, Any],
    *,
    chain: Chain | None = None,
    now_ms: int | None = None,
) -> list[Check]:
    """Every check of a record as it is stored, in the order in which they are made; one whose own digests fail ends it.

    `chain`, caught up, adds the check against the checkpoint that covers the record.
    """
    checks, record = opened_checks(log, raw, record)
    if not all(check.ok for check in checks):
        return checks
    partition, offset = record["log"]["partition"], record["log"]["offset"]
    if not (0 <= partition < log.partitions(REQUESTS) and 0 <= offset < log.end(REQUESTS, partition)):
        return [*checks, Check("request", False, "its place is not in this log")]
    found = log.latest(RECORDS, record["decision_id"].encode())
    filed = found is not None and found.value == raw and found.partition == partition
    checks.append(Check("record", filed, "" if filed else "the log holds another record under this id"))
    try:
        leaf = _signed_leaf(chain, record) if chain is not None else None
    except IntegrityError as error:
        return [*checks, Check("checkpoint", False, str(error))]
    traces = Traces(at_offset(log, REQUESTS, partition, offset), of_request(log, RECEIPTS, partition, offset), leaf)
    held = Held(log, partition, now_ms if now_ms is not None else wall_clock_ms())
    checks += stored_checks(log, control, record, traces, held, found.time_ms if found else 0)
    if chain is not None and leaf is None:
        checks.append(Check("checkpoint", True, "no checkpoint covers it yet"))
    return checks


def _signed_leaf(chain: Chain, record: Mapping[str, Any]) -> Leaf | None:
    place = record["log"]
    stretch = chain.covering(place["topic"], place["partition"], place["offset"])
    if stretch is None:
        return None
    return split(chain.load(stretch).leaves)[place["offset"] - stretch.start], stretch.number


def sealed_checks(raw: bytes, record: Mapping[str, Any]) -> list[Check]:
    """The checks of a record by itself."""
    try:
        same = raw == encode(record)
    except LumynError:
        same = False
    canonical = Check("canonical", same, "" if same else "the stored bytes are not the record's canonical bytes")
    return [canonical, *check_record(record)]


def opened_checks(log: Log, raw: bytes, record: Mapping[str, Any]) -> tuple[list[Check], Mapping[str, Any]]:
    """The checks of a record by itself, and the record, opened where the log's keys can. Raises `KeysUnavailable`."""
    checks = sealed_checks(raw, record)
    if not is_sealed(record) or not all(check.ok for check in checks):
        return checks, record
    try:
        record = opened_record(keys_of(log), record)
        checks = [checks[0], *check_record(record)]
    except IntegrityError as error:
        checks.append(Check("sealed", False, error.message))
    except (LookupError, TypeError, ValueError) as error:  # a box whose content no decision could have had
        checks.append(Check("sealed", False, f"what is sealed is no record's part: {type(error).__name__}"))
    return checks, record


def stored_checks(
    log: Log, control: ControlState, record: Mapping[str, Any], traces: Traces, held: Held, decided_ms: int
) -> list[Check]:
    """The checks of a record whose own digests hold, against what the log holds about its request.

    `decided_ms`: the log's time of the record.
    """
    request = stored_form(record)
    checks = [_receipt(record, request, traces.receipt, held, decided_ms), _request(log, record, request, traces, held)]
    if traces.leaf is not None:
        checks.append(_checkpoint(record, *traces.leaf))
    try:
        source = control.compiled(record["policy"]["hash"]).source
        checks += check_policy(record, source)
    except LumynError as error:
        return [*checks, Check("policy_hash", False, error.message)]
    if all(check.ok for check in checks):
        checks.append(check_reproduction(record, recorded_policy(record, source)))
    return checks


def _receipt(record: Mapping[str, Any], request: Request, found: Message | None, held: Held, decided_ms: int) -> Check:
    """The receipt was written with the record, and follows from it: a retry is answered by what it says."""
    place = record["log"]
    if found is None:
        written_ms = max(decided_ms, time_ms_of(record["created_at"]))
        expired = held.expired(RECEIPTS, place["offset"], written_ms)
        return Check("receipt", expired, "the receipt has expired" if expired else "no receipt for the record's offset")
    source = Message(REQUESTS, place["partition"], place["offset"], 0, request.key, request.canonical)
    written = receipt(place["topic"], source, request, "decided", record["decision_id"], record["record_digest"])
    expected, value = decode_trusted(written.value), object_in(found)
    wrong = [name for name in {**expected, **value} if value.get(name) != expected.get(name, value)]
    if found.key != written.key:
        wrong.append("key")
    return Check("receipt", not wrong, f"the receipt has another {', '.join(wrong)}" if wrong else "")


def _request(log: Log, record: Mapping[str, Any], request: Request, traces: Traces, held: Held) -> Check:
    """The request in the log, where retention still holds it, is the record's, and so is its time."""
    place, found, created_ms = record["log"], traces.request, time_ms_of(record["created_at"])
    if place["topic"] != full_name(log.prefix, REQUESTS):
        return Check("request", False, f"the request's topic `{place['topic']}` is not this log's")
    if found is None:
        expired = held.expired(REQUESTS, place["offset"], created_ms)
        return Check("request", expired, "the request has expired" if expired else "no request at its offset")
    if found.time_ms != created_ms:
        return Check("request", False, "the log's time of the request is not the record's")
    if is_sealed(record) and envelope_in(found.value) is None:
        return Check("request", True, "it came in clear and its record is sealed: they can't be compared any more")
    same = has_body(log, found, request.body_digest) or _came_in_clear(log, found, record)
    return Check("request", same, "" if same else "the log's request is not the record's")


def has_body(log: Log, request: Message, body_digest: str) -> bool:
    """Whether a request's bytes have a digest. In a log that others write to, they may be the same in other bytes."""
    return body_digest == digest(request.value) or (not is_embedded(log) and body_digest == canonical_digest(request))


def _came_in_clear(log: Log, found: Message, record: Mapping[str, Any]) -> bool:
    """Whether the log's request is what a sealed record holds: a foreign producer's, sealed by who decided it."""
    return isinstance(record, OpenRecord) and has_body(log, found, digest(encode(record["request"], finite=True)))


def canonical_digest(request: Message) -> str:
    """The digest of a request's canonical body; of its bytes, where they are no request."""
    envelope = envelope_in(request.value)
    try:
        return digest(encode(envelope)) if envelope is not None else parse_request(request.value).body_digest
    except LumynError:
        return digest(request.value)


def _checkpoint(record: Mapping[str, Any], leaf: bytes, number: int) -> Check:
    """The record is the one that the covering checkpoint was signed for."""
    code, expected = leaf[:1], request_entry(record_leaf(record))
    if leaf == expected:
        return Check("checkpoint", True, f"checkpoint {number}")
    if code == GAP:
        why = f"nothing stood here when checkpoint {number} was signed: the record was put in later"
    elif code != expected[:1]:
        then = OUTCOMES.get(code, "something else")
        why = f"checkpoint {number} was signed for a request that was {then}, not decided"
    else:
        why = f"checkpoint {number} was signed for another record: this one is not what was decided"
    return Check("checkpoint", False, why)
