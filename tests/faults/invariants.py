"""The invariants of docs/architecture.md over a snapshot of all topics, worked out anew from the requests alone.

Shares no code with the product: its own JSON, ids, digests, partitioner and its own idea of what a valid request is.
Every function returns what is wrong, one sentence each; an empty list means that all holds.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from faults.reading import Message, Snapshot, read_everything

Acknowledged = Mapping[tuple[int, int], bytes | None]
"""By (partition, offset) of `requests`: the bytes that a producer was told were there."""

_TOP_LEVEL = {"request_id", "tenant", "policy", "subject", "action", "evidence", "context", "provenance"}
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def check(address: str, prefix: str, partitions: int, acknowledged: Acknowledged | None = None) -> Snapshot:
    """Read everything and fail with all that is wrong; returns what was read."""
    snapshot = read_everything(address, prefix, partitions)
    wrong = violations(snapshot, acknowledged)
    assert not wrong, f"{len(wrong)} violations:\n" + "\n".join(wrong[:25])
    return snapshot


def violations(snapshot: Snapshot, acknowledged: Acknowledged | None = None) -> list[str]:
    """Everything that is wrong."""
    return [
        *_hidden(snapshot),
        *_not_held(snapshot, acknowledged or {}),
        *_positions(snapshot),
        *_receipts(snapshot),
        *_outcomes(snapshot),
        *_records(snapshot),
        *_dead_letters(snapshot),
        *_labels(snapshot),
    ]


def _hidden(snapshot: Snapshot) -> Iterable[str]:
    for topic, partition in snapshot.hidden:
        yield f"{topic}/{partition}: an open transaction hides its end"


def _not_held(snapshot: Snapshot, acknowledged: Acknowledged) -> Iterable[str]:
    """What a producer was told is in the log must be there, as it was sent."""
    held = {(m.partition, m.offset): m.value for m in snapshot.of("requests")}
    for place, value in acknowledged.items():
        if place not in held:
            yield f"requests/{place[0]}/{place[1]}: acknowledged, and not in the log"
        elif held[place] != value:
            yield f"requests/{place[0]}/{place[1]}: not the bytes that were acknowledged"


def _positions(snapshot: Snapshot) -> Iterable[str]:
    for (topic, partition), position in snapshot.positions.items():
        messages = snapshot.topics[topic][partition]
        after = messages[-1].offset + 1 if messages else 0
        if not after <= position <= max(after, snapshot.ends[(topic, partition)]):
            yield f"{topic}/{partition}: the group stands at {position}, the last message ends at {after}"


def _receipts(snapshot: Snapshot) -> Iterable[str]:
    """One receipt for each request, in the requests' order, in the same partition."""
    for partition in range(snapshot.partitions):
        wanted = {m.offset for m in snapshot.topics["requests"][partition]}
        count: Counter[int] = Counter()
        last = -1
        for message in snapshot.topics["receipts"][partition]:
            source = _value(message)["source"]
            if source["topic"] != f"{snapshot.prefix}.requests" or source["partition"] != partition:
                yield f"{_at(message)}: a receipt of {source}"
                continue
            offset = source["offset"]
            count[offset] += 1
            if offset <= last:
                yield f"{_at(message)}: its source {offset} comes after {last}"
            last = max(last, offset)
        for offset in sorted(wanted - set(count)):
            yield f"requests/{partition}/{offset}: no receipt"
        for offset, times in sorted(count.items()):
            if times > 1:
                yield f"requests/{partition}/{offset}: {times} receipts"
            if offset not in wanted:
                yield f"requests/{partition}/{offset}: a receipt, and no request"


def _outcomes(snapshot: Snapshot) -> Iterable[str]:
    """Each receipt says what the requests before it in its partition make it say."""
    digests = {_key(m): _value(m).get("record_digest") for m in snapshot.of("records")}
    for partition in range(snapshot.partitions):
        receipts = _by_source(snapshot.topics["receipts"][partition])
        first: dict[str, tuple[str, Any]] = {}
        for message in snapshot.topics["requests"][partition]:
            receipt = receipts.get(message.offset)
            if receipt is None:
                continue
            request = _request(message, snapshot.partitions)
            name = None if request is None or request.get("request_id") is None else _request_key(request)
            outcome, decision, record_digest = _expected(message, request, name, first, digests)
            if name is not None and outcome == "decided":
                first[name] = (decision, request)
            found = (receipt["outcome"], receipt["decision_id"], receipt["record_digest"])
            if found != (outcome, decision, record_digest):
                yield f"{_at(message)}: its receipt says {found}, not {(outcome, decision, record_digest)}"
            if request is not None and receipt["request_id"] != request.get("request_id"):
                yield f"{_at(message)}: its receipt is of request_id {receipt['request_id']}"
            is_plain = request is not None and message.value == _plain_bytes(request)
            if is_plain and receipt["body_digest"] != _sha256(message.value or b""):
                yield f"{_at(message)}: its receipt's body_digest is not of its bytes"


def _expected(
    message: Message,
    request: dict[str, Any] | None,
    name: str | None,
    first: Mapping[str, tuple[str, Any]],
    digests: Mapping[str, str],
) -> tuple[str, str | None, str | None]:
    if request is None:
        return "rejected", None, None
    if name in first:
        decision, body = first[name]
        return ("duplicate", decision, digests.get(decision)) if body == request else ("conflict", decision, None)
    decision = _decision_id(message)
    return "decided", decision, digests.get(decision)


def _records(snapshot: Snapshot) -> Iterable[str]:
    """One record for each `decided`, of that request and sealed; none twice, none of anything else."""
    decided = {
        receipt["decision_id"]: (partition, offset)
        for partition in range(snapshot.partitions)
        for offset, receipt in _by_source(snapshot.topics["receipts"][partition]).items()
        if receipt["outcome"] == "decided"
    }
    requests = {(m.partition, m.offset): m for m in snapshot.of("requests")}
    count = Counter(_key(m) for m in snapshot.of("records"))
    for name, place in decided.items():
        if name not in count:
            yield f"requests/{place[0]}/{place[1]}: decided as {name}, and no such record"
    for name, times in count.items():
        if times > 1:
            yield f"record {name} is there {times} times"
        if name not in decided:
            yield f"record {name}: no receipt says that it was decided"
    for message in snapshot.of("records"):
        yield from _record(snapshot, message, requests)


def _record(snapshot: Snapshot, message: Message, requests: Mapping[tuple[int, int], Message]) -> Iterable[str]:
    record, at = _value(message), _at(message)
    place = record["log"]
    request = requests.get((place["partition"], place["offset"]))
    if request is None or place["topic"] != f"{snapshot.prefix}.requests":
        yield f"{at}: a record of {place}, where no request is"
        return
    if message.partition != request.partition:
        yield f"{at}: a record of a request in partition {request.partition}"
    if not _key(message) == record["decision_id"] == _decision_id(request):
        yield f"{at}: key {_key(message)}, id {record['decision_id']}, but {_at(request)} makes {_decision_id(request)}"
    if record["created_at"] != _iso(request.time_ms):
        yield f"{at}: created_at {record['created_at']}, but {_at(request)} was appended at {_iso(request.time_ms)}"
    if record["request"] != _request(request, snapshot.partitions):
        yield f"{at}: its request is not the one at {_at(request)}"
    elif request.value == _plain_bytes(record["request"]) and b'"request":' + request.value not in (message.value or b""):
        yield f"{at}: it does not hold the very bytes of {_at(request)}"
    seal = f'"record_digest":"{record["record_digest"]}",'.encode()
    if _sha256((message.value or b"").replace(seal, b"", 1)) != record["record_digest"]:
        yield f"{at}: its bytes are not those that its digest seals"


def _dead_letters(snapshot: Snapshot) -> Iterable[str]:
    """One dead letter for each rejected message, with its bytes; none of anything else."""
    wanted: dict[tuple[str, int, int], bytes] = {}
    for partition in range(snapshot.partitions):
        receipts = _by_source(snapshot.topics["receipts"][partition])
        for message in snapshot.topics["requests"][partition]:
            if receipts.get(message.offset, {}).get("outcome") == "rejected":
                wanted[(message.topic, partition, message.offset)] = message.value or b""
    refused = _by_source(snapshot.topics["label-receipts"][0])
    for message in snapshot.topics["label-requests"][0]:
        if _label(message) is None and refused.get(message.offset, {}).get("outcome") == "refused":
            wanted[(message.topic, 0, message.offset)] = message.value or b""
    count: Counter[tuple[str, int, int]] = Counter()
    for message in snapshot.of("dead-letters"):
        letter = _value(message)
        source = (letter["source"]["topic"], letter["source"]["partition"], letter["source"]["offset"])
        count[source] += 1
        if source not in wanted:
            yield f"{_at(message)}: a dead letter of {source}, which was not rejected"
        elif base64.b64decode(letter["payload_base64"]) != wanted[source]:
            yield f"{_at(message)}: not the bytes of {source}"
    for source in wanted:
        if count[source] != 1:
            yield f"{source}: rejected, and {count[source]} dead letters"


def _labels(snapshot: Snapshot) -> Iterable[str]:
    """Versions are dense; one receipt for each label request; one event for each accepted one, applied once."""
    events = [_value(message) for message in snapshot.of("labels")]
    for number, event in enumerate(events, start=1):
        if event["version"] != number:
            yield f"labels: the event at place {number} has version {event['version']}"
    for name, times in Counter((event["tenant"], event["event_id"]) for event in events).items():
        if times > 1:
            yield f"labels: {name} is there {times} times"
    wanted = {message.offset: message for message in snapshot.topics["label-requests"][0]}
    count = Counter(_value(m)["source"]["offset"] for m in snapshot.topics["label-receipts"][0])
    for offset in sorted(set(wanted) | set(count)):
        if offset not in wanted or count[offset] != 1:
            yield f"label-requests/0/{offset}: {count[offset]} receipts"
    receipts = _by_source(snapshot.topics["label-receipts"][0])
    by_version = {event["version"]: event for event in events}
    tenants = {_key(m): _value(m)["tenant"] for m in snapshot.of("records")}
    accepted: set[int] = set()
    for offset, message in wanted.items():
        if offset in receipts:
            yield from _label_receipt(message, receipts[offset], by_version, tenants, accepted)
    for version in sorted(set(by_version) - accepted):
        yield f"labels: nobody was told of version {version}"


def _label_receipt(
    message: Message,
    receipt: Mapping[str, Any],
    events: Mapping[int, Mapping[str, Any]],
    tenants: Mapping[str, str],
    accepted: set[int],
) -> Iterable[str]:
    request, at, outcome = _label(message), _at(message), receipt["outcome"]
    known = request is not None and tenants.get(request["decision_id"]) == request["tenant"]
    if outcome == "refused":
        if receipt["version"] is not None:
            yield f"{at}: refused, with version {receipt['version']}"
        if known and receipt["reason"] == "not_found":
            yield f"{at}: refused, though decision {request['decision_id']} is there"  # type: ignore[index]
        return
    if request is None or not known:
        yield f"{at}: {outcome}, and there is no such decision"
        return
    event = events.get(receipt["version"])
    if event is None:
        yield f"{at}: {outcome} as version {receipt['version']}, which is not there"
        return
    for name in ("tenant", "event_id", "decision_id", "type", "summary"):
        if event[name] != request[name]:
            yield f"{at}: version {receipt['version']} has another {name}"
    if outcome == "accepted":
        if receipt["version"] in accepted:
            yield f"{at}: version {receipt['version']} was accepted twice"
        accepted.add(receipt["version"])
        if event["at"] != _iso(message.time_ms):
            yield f"{at}: version {receipt['version']} is of {event['at']}, not of {_iso(message.time_ms)}"


# what a message says


def _value(message: Message) -> dict[str, Any]:
    value = json.loads(message.value or b"null")
    assert isinstance(value, dict), f"{_at(message)}: not an object"
    return value


def _key(message: Message) -> str:
    return (message.key or b"").decode()


def _at(message: Message) -> str:
    return f"{message.topic}/{message.partition}/{message.offset}"


def _by_source(receipts: Iterable[Message]) -> dict[int, dict[str, Any]]:
    out: dict[int, dict[str, Any]] = {}
    for message in receipts:
        value = _value(message)
        out.setdefault(value["source"]["offset"], value)
    return out


class _Refused(ValueError):
    pass


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise _Refused("a key twice")
    return dict(pairs)


def _no_constants(name: str) -> Any:
    raise _Refused(name)


def _json(value: bytes | None) -> Any:
    """A document by RFC 8259, without NaN, without repeated keys; None for what is none."""
    try:
        return json.loads(
            (value or b"").decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constants
        )
    except (ValueError, RecursionError):
        return None


def _request(message: Message, partitions: int) -> dict[str, Any] | None:
    """A request as this suite's load makes them, with its tenant filled in; None for one that must be rejected."""
    value = _json(message.value)
    if not isinstance(value, dict) or set(value) - _TOP_LEVEL:
        return None
    value = {"tenant": "default", **value}
    subject, action = value.get("subject"), value.get("action")
    if not isinstance(subject, dict) or not isinstance(action, dict):
        return None
    if not all(isinstance(one, str) and one for one in (subject.get("id"), subject.get("type"), action.get("type"))):
        return None
    amount = action.get("amount")
    number = amount.get("value") if isinstance(amount, dict) else amount
    if isinstance(number, int | float) and number < 0:
        return None
    if value.get("request_id") is not None and _partition(_request_key(value).encode(), partitions) != message.partition:
        return None
    return value


def _label(message: Message) -> dict[str, Any] | None:
    value = _json(message.value)
    names = ("event_id", "decision_id", "tenant", "type", "summary", "actor")
    return value if isinstance(value, dict) and all(isinstance(value.get(name), str) for name in names) else None


def _request_key(request: Mapping[str, Any]) -> str:
    return f"{request['tenant']}/{request['request_id']}"


def _plain_bytes(value: Any) -> bytes:
    """Canonical JSON of what this suite's load holds: ASCII keys, text, whole numbers and short decimals."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _iso(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def _decision_id(request: Message) -> str:
    """The ULID that a request's place and time make."""
    place = hashlib.sha256(f"{request.topic}\n{request.partition}\n{request.offset}".encode()).digest()
    number = request.time_ms << 80 | int.from_bytes(place[:10], "big")
    return "".join(_CROCKFORD[number >> 5 * i & 31] for i in reversed(range(26)))


def _partition(key: bytes, partitions: int) -> int:
    """Where the Java client puts a key: murmur2, sign bit off."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    for start in range(0, len(key) - 3, 4):
        k = int.from_bytes(key[start : start + 4], "little") * m & mask
        h = h * m & mask ^ ((k ^ k >> 24) * m & mask)
    rest = key[len(key) // 4 * 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions
