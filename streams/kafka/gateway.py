"""The caller's side: append requests to the log, wait for their receipts, fetch their records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from schemas.canonical import decode_trusted
from schemas.errors import (
    BadConfig,
    BadInput,
    BadRequest,
    DecisionPending,
    Erased,
    IntegrityError,
    LumynError,
    NotFound,
    RequestConflict,
)
from schemas.ids import decision_time_ms, is_decision_id
from schemas.label import LabelEvent, LabelRequest
from schemas.request import Request
from streams.control import ControlState, read_control
from streams.decide_agent import request_append
from streams.deciding import Answer
from streams.kafka.log import KafkaLog
from streams.kafka.reader import Reader
from streams.log import Append, Message
from streams.policy import CompiledPolicy
from streams.sealing import opened_record, seal_each, seal_label, shown_record
from streams.topics import (
    DEAD_LETTERS,
    LABEL_RECEIPTS,
    LABEL_REQUESTS,
    LABELS,
    RECEIPTS,
    RECORDS,
    REQUESTS,
)
from streams.versions import offset_after

Source = tuple[int, int]
"""(partition, offset) of a message in the topic that receipts speak of"""

_CHUNK = 2000
_AT_ONCE = 5000
_VISIBLE_S = 10.0
"""A transaction's markers reach each partition at its own time: what a receipt speaks of may be seen a little later."""


class Waiter:
    """Receipts of messages that are about to be sent: what is appended after it was made can't be missed."""

    def __init__(self, log: KafkaLog, topic: str, reader: Reader) -> None:
        self._log = log
        self._reader = reader
        places = [(log.name(topic), partition) for partition in range(log.partitions(topic))]
        reader.assign(log.client.ends(places))

    def wait(self, sources: Iterable[Source], timeout_s: float) -> dict[Source, Mapping[str, Any]]:
        """The receipts of (partition, offset) places of the source topic, as far as they came in time."""
        wanted = set(sources)
        found: dict[Source, Mapping[str, Any]] = {}
        deadline = time.monotonic() + timeout_s
        while wanted and (left := deadline - time.monotonic()) > 0:
            for message in self._reader.poll(_CHUNK, min(left, 0.2)):
                receipt = decode_trusted(message.value or b"{}")
                source = receipt.get("source") or {}
                place = (source.get("partition"), source.get("offset"))
                if place in wanted:
                    wanted.discard(place)
                    found[place] = receipt
        return found


class KafkaGateway:
    """Decides by asking: whoever runs `lumyn worker decide` answers. Safe for several threads."""

    def __init__(self, log: KafkaLog, *, timeout_s: float = 30.0, sticky: int = 0, seal: bool = False) -> None:
        """With `seal` requests are sealed under their subjects' keys before they are sent."""
        self._log = log
        self._seal = seal
        self._timeout_s = timeout_s
        self._sticky = sticky
        self._lock = threading.Lock()
        self._idle: list[Reader] = []
        self._control = ControlState()

    def control(self) -> ControlState:
        """The control state, read to its end."""
        self._control = read_control(self._log, self._control)
        return self._control

    def decide(self, requests: Sequence[Request], policy: CompiledPolicy | None = None) -> list[Answer | LumynError]:
        """Append requests and wait for their decisions, in order; what went wrong is an error in its place.

        Raises `BadConfig` when a policy is given that is not the active one: here the workers choose.
        """
        if policy is not None:
            self._check_active(policy)
        answers: list[Answer | LumynError] = []
        for start in range(0, len(requests), _AT_ONCE):
            answers += self._decide(requests[start : start + _AT_ONCE])
        return answers

    def _check_active(self, policy: CompiledPolicy) -> None:
        active = self.control().active_policy(policy.name)
        if active is None or active.hash != policy.policy_hash:
            said = f"`{active.name}@{active.version}` is" if active else "none of that name is"
            raise BadConfig(
                f"over Kafka the workers decide by the active policy: {said} active, not this file's content",
                help="`lumyn policy publish FILE` and `lumyn policy activate NAME`, or leave `--policy` out",
            )

    def _decide(self, requests: Sequence[Request]) -> list[Answer | LumynError]:
        with self._reader() as reader:
            waiter = Waiter(self._log, RECEIPTS, reader)
            dead_from = self._log.end(DEAD_LETTERS, 0)
            sent = self.submit(requests)
            places = {(m.partition, m.offset) for m in sent if isinstance(m, Message)}
            receipts = waiter.wait(places, self._timeout_s)
        records = self._records(receipts.values())
        return [
            m if isinstance(m, LumynError) else self._answer(m, request, receipts, records, dead_from)
            for m, request in zip(sent, requests, strict=True)
        ]

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        """A reader for one call: threads that wait at once each have their own, and leave it to the next."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        reader = reader or self._log.client.reader()
        try:
            yield reader
            reader.assign({})
        except BaseException:
            reader.close()
            raise
        with self._lock:
            self._idle.append(reader)

    def _answer(
        self,
        message: Message,
        request: Request,
        receipts: Mapping[Source, Mapping[str, Any]],
        records: Mapping[str, bytes],
        dead_from: int,
    ) -> Answer | LumynError:
        place = f"{self._log.name(REQUESTS)}/{message.partition}/{message.offset}"
        receipt = receipts.get((message.partition, message.offset))
        if receipt is None:
            again = "send it again with the same request_id" if request.request_id else "`lumyn list` will show it"
            return DecisionPending(
                f"no decision within {self._timeout_s:g} s; the request is in the log and will be decided",
                where=place,
                help=f"{again}; is `lumyn worker decide` running?",
            )
        if receipt["outcome"] == "conflict":
            return RequestConflict(
                f"request_id `{request.request_id}` was decided before with another body (decision "
                f"{receipt['decision_id']})",
                help="a retry must send the same body; another request needs another request_id",
            )
        if receipt["outcome"] == "rejected":
            return self._rejection(message, place, dead_from)
        raw = records.get(receipt["decision_id"])
        if raw is None:
            return IntegrityError(f"decision {receipt['decision_id']} has a receipt but no record", where=place)
        record = decode_trusted(raw)
        if record["record_digest"] != receipt["record_digest"]:
            return IntegrityError(f"the record of {receipt['decision_id']} is not what was decided", where=place)
        try:
            record = shown_record(self._log.keys, opened_record(self._log.keys, record))
            return Answer(receipt["outcome"], receipt["decision_id"], raw, record)
        except IntegrityError as error:
            return error

    def _rejection(self, message: Message, place: str, start: int) -> LumynError:
        """Why it was rejected, from its dead letter, which was committed with the receipt."""
        wanted = {
            "topic": self._log.name(REQUESTS), "partition": message.partition, "offset": message.offset
        }  # fmt: skip
        for _ in _until_visible():
            while messages := self._log.read(DEAD_LETTERS, 0, start, _CHUNK):
                for dead in messages:
                    letter = decode_trusted(dead.value)
                    if letter["source"] == wanted:
                        return BadRequest(letter["detail"], help=f"`lumyn dead-letters show {dead.offset}`")
                start = messages[-1].offset + 1
        return BadRequest("the request was rejected", where=place, help="`lumyn dead-letters list`")

    def _records(self, receipts: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
        wanted: dict[int, set[str]] = {}
        for receipt in receipts:
            if receipt["outcome"] in ("decided", "duplicate"):
                wanted.setdefault(receipt["source"]["partition"], set()).add(receipt["decision_id"])
        out: dict[str, bytes] = {}
        for _ in _until_visible():
            for partition, ids in wanted.items():
                out |= {n: m.value for n, m in records_in(self._log, partition, ids - out.keys()).items()}
            if all(ids <= out.keys() for ids in wanted.values()):
                break
        return out

    def submit(self, requests: Sequence[Request]) -> list[Message | LumynError]:
        """Append requests without waiting for decisions; each is durable by itself."""
        given = seal_each(self._log.keys, requests) if self._seal else requests
        sticky = self._sticky % self._log.partitions(REQUESTS)
        good = [request_append(request, sticky) for request in given if isinstance(request, Request)]
        told = iter(self._log.send_many(good))
        return [one if isinstance(one, LumynError) else next(told) for one in given]

    def drain(self, limit: int = 0) -> int:  # noqa: ARG002 - the embedded agent's signature
        """Nothing to do here: the workers decide."""
        return 0

    def close(self) -> None:
        """Let go of the connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()


_REFUSED: dict[str, Callable[[str], LumynError]] = {"not_found": NotFound, "erased": Erased}


class KafkaLabels:
    """Labels by asking: whoever runs `lumyn worker labels` sequences them."""

    def __init__(self, log: KafkaLog, *, timeout_s: float = 30.0) -> None:
        self._log = log
        self._timeout_s = timeout_s

    def label(self, requests: Sequence[LabelRequest]) -> list[LabelEvent | LumynError]:
        """Ask for labels and wait for what becomes of them, in order; a refused one is an error in its place."""
        from schemas.canonical import encode

        sealed = [self._sealed(request) for request in requests]
        appends = [
            Append(LABEL_REQUESTS, encode(request), f"{request['tenant']}/{request['event_id']}".encode())
            for request in sealed
            if not isinstance(request, LumynError)
        ]
        reader = self._log.client.reader()
        try:
            waiter = Waiter(self._log, LABEL_RECEIPTS, reader)
            sent = iter(self._log.send_many(appends))
            told = [request if isinstance(request, LumynError) else next(sent) for request in sealed]
            receipts = waiter.wait({(m.partition, m.offset) for m in told if isinstance(m, Message)}, self._timeout_s)
        finally:
            reader.close()
        events = self._events([r["version"] for r in receipts.values() if r["version"] is not None])
        return [m if isinstance(m, LumynError) else self._answer(m, receipts, events) for m in told]

    def _sealed(self, request: LabelRequest) -> LabelRequest | LumynError:
        """The request with its texts under the key of the decision's subject: the log must not hold them in clear."""
        if not is_decision_id(request["decision_id"]):
            return request
        found = find_record(self._log, request["decision_id"])
        record = decode_trusted(found.value) if found is not None else {}
        if record.get("tenant") != request["tenant"]:
            return request  # the label worker says that there is none
        try:
            return seal_label(request, record, self._log.keys)
        except LumynError as error:
            return error

    def _answer(
        self, message: Message, receipts: Mapping[Source, Mapping[str, Any]], events: Mapping[int, LabelEvent]
    ) -> LabelEvent | LumynError:
        receipt = receipts.get((message.partition, message.offset))
        if receipt is None:
            return DecisionPending(
                f"the label was not taken up within {self._timeout_s:g} s; it is in the log and will be",
                where=f"{self._log.name(LABEL_REQUESTS)}/{message.partition}/{message.offset}",
                help="is `lumyn worker labels` running?",
            )
        if receipt["outcome"] == "refused":
            kind = _REFUSED.get(receipt["reason"], BadInput)
            return kind(receipt["detail"])
        event = events.get(receipt["version"])
        if event is None:
            return IntegrityError(
                f"label event {receipt['version']} has a receipt, but is not there",
                where=f"{self._log.name(LABEL_REQUESTS)}/{message.partition}/{message.offset}",
            )
        return event

    def _events(self, versions: Sequence[int]) -> dict[int, LabelEvent]:
        if not versions:
            return {}
        wanted: set[int] = set(versions)
        out: dict[int, LabelEvent] = {}
        offset = offset_after(self._log, LABELS, min(wanted) - 1)
        for _ in _until_visible():
            while wanted - set(out) and (messages := self._log.read(LABELS, 0, offset, _CHUNK)):
                for message in messages:
                    event: LabelEvent = decode_trusted(message.value)
                    if event["version"] in wanted:
                        out[event["version"]] = event
                offset = messages[-1].offset + 1
            if not wanted - set(out):
                break
        return out


def _until_visible() -> Iterator[None]:
    """Turns of looking, with short rests between them, for as long as what is committed may still be unseen."""
    deadline = time.monotonic() + _VISIBLE_S
    yield
    while time.monotonic() < deadline:
        time.sleep(0.005)
        yield


def records_in(log: KafkaLog, partition: int, ids: Iterable[str]) -> dict[str, Message]:
    """Records by id in one partition, from their own time on: requests are decided in the order of their times."""
    wanted = set(ids)
    if not wanted:
        return {}
    times = [decision_time_ms(name) for name in wanted]
    last = max(times)
    out: dict[str, Message] = {}
    offset = log.at_time(RECORDS, partition, min(times))
    while len(out) < len(wanted) and (messages := log.read(RECORDS, partition, offset, _CHUNK)):
        for message in messages:
            name = (message.key or b"").decode("ascii", "replace")
            if name in wanted:
                out[name] = message
        newest = (messages[-1].key or b"").decode("ascii", "replace")
        if _time_of(newest) > last:
            break
        offset = messages[-1].offset + 1
    return out


def _time_of(name: str) -> int:
    try:
        return decision_time_ms(name)
    except ValueError:
        return -1


def find_record(log: KafkaLog, decision_id: str) -> Message | None:
    """A record by its whole id, from any partition; None when there is none."""
    for partition in range(log.partitions(RECORDS)):
        found = records_in(log, partition, [decision_id])
        if found:
            return found[decision_id]
    return None
