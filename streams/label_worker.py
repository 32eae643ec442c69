"""The label worker: the only sequencer of labels on a log that several processes share.

Takes label requests in order; checks each (well formed, the decision exists and is the tenant's, no contradiction);
writes accepted events with dense versions, one receipt a request and the moved position in one transaction; then
applies the events to the memory store, which writes its watermark after each durable upsert.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from memory_service.recall import MemoryChoice
from memory_service.store import MemoryStore
from schemas.canonical import decode, decode_trusted, encode, encode_plain
from schemas.digests import digest
from schemas.errors import BadInput, KeysUnavailable, LumynError, NotFound, to_keep
from schemas.ids import is_decision_id
from schemas.label import ABOUT_SUBJECTS, LabelEvent, LabelRequest, key_of, speaks_of_decision, speaks_of_labeller
from schemas.label_check import check_label_form, check_words
from schemas.label_receipt import LabelOutcome, LabelReceipt
from streams.control import ControlState, read_control
from streams.find_records import RecordFinder
from streams.label_agent import OF_OPERATORS, check_about_subject, check_not_held, check_unchanged, label_event
from streams.label_told import Told
from streams.log import Append, Log, Message, PartitionWriter
from streams.memory_sync import catch_up
from streams.observe import Observer
from streams.outputs import dead_letter
from streams.sealing import seal_label
from streams.subject_keys import keys_of
from streams.topics import DEAD_LETTERS, LABEL_RECEIPTS, LABEL_REQUESTS, LABELS, full_name

GROUP = "labels"
_AT_ONCE = 500
_READ = 2000
_LOOK_S = 0.5


class LabelWorker:
    """One at a time: a second one fences the first, which then ends with `Fenced`."""

    def __init__(
        self,
        log: Log,
        finder: RecordFinder,
        open_store: Callable[[MemoryChoice | None], MemoryStore] | None,
        observer: Observer,
        *,
        beat: Callable[[MemoryStore, int], None] | None = None,
        beat_s: float = 20.0,
        poll_s: float = 0.05,
    ) -> None:
        """Without `open_store` labels are sequenced only: workers then keep the memory themselves.

        The memory filled is the one that control chooses; one that was left stays as it is.
        `beat` renews the store's watermark with the time in milliseconds, every `beat_s` seconds.
        """
        self._log = log
        self._finder = finder
        self._open_store = open_store
        self._observer = observer
        self._beat = beat
        self._beat_s = beat_s
        self._poll_s = poll_s
        self._topic = full_name(log.prefix, LABEL_REQUESTS)
        self._stopping = threading.Event()
        self._writer: PartitionWriter | None = None
        self._store: MemoryStore | None = None
        self._control = ControlState()
        self._looked = -_LOOK_S
        self._stale = True
        self._seen: dict[str, tuple[int, str]] = {}
        self._told = Told()
        self._version = 0
        self._offset = 0
        self._beaten = 0.0
        observer.ready("labels", False)
        if open_store is not None:
            observer.ready("memory", False)

    def run(self) -> None:
        """Work until stopped. Raises `Fenced` when another label worker has taken over."""
        wait = 0.1
        while not self._stopping.is_set():
            try:
                if self._writer is None:
                    self.open()
                worked = self.step()
                wait = 0.1
                if not worked:
                    self._stopping.wait(self._poll_s)
            except LumynError as error:
                self._close_writer()
                if error.code == "fenced":
                    raise
                self._observer.trouble("labels_halted", error)
                self._stopping.wait(wait)
                wait = min(5.0, wait * 2)
        self.close()

    def open(self) -> None:
        """Become the sequencer: the older one is fenced, then the topic is read to its very end."""
        self._writer = self._log.writer(GROUP, LABEL_REQUESTS, 0)
        while messages := self._log.read(LABELS, 0, self._offset, _READ):
            for message in messages:
                event: LabelEvent = decode_trusted(message.value)
                self._version = event["version"]
                self._seen[f"{event['tenant']}/{event['event_id']}"] = (event["version"], _body(_request_of(event)))
                self._told.take(event)
            self._offset = messages[-1].offset + 1
        self._observer.event("labels_opened", version=self._version, position=self._writer.position)
        self._observer.ready("labels", True)

    def step(self) -> bool:
        """One batch: sequence, then apply. Returns whether there was anything to do."""
        writer = self._writer
        assert writer is not None
        messages = self._log.read(LABEL_REQUESTS, 0, writer.position, _AT_ONCE)
        if messages:
            self._sequence(writer, messages)
        self._apply(bool(messages))
        return bool(messages)

    def _sequence(self, writer: PartitionWriter, messages: Sequence[Message]) -> None:
        parsed = [self._parse(message) for message in messages]
        ids = [r["decision_id"] for r in parsed if not isinstance(r, LumynError) and is_decision_id(r["decision_id"])]
        records = self._finder.find(ids) if ids else {}
        outputs: list[Append] = []
        fresh: dict[str, tuple[int, str]] = {}
        told = Told(self._told)
        version = self._version
        for message, request in zip(messages, parsed, strict=True):
            if isinstance(request, LumynError):
                outputs.append(dead_letter(self._topic, message, request))
                outputs.append(self._receipt(message, None, "refused", request))
                continue
            key = f"{request['tenant']}/{request['event_id']}"
            try:
                request = self._sealed(request, records)
            except KeysUnavailable:
                raise
            except LumynError as error:
                outputs.append(self._receipt(message, request, "refused", error))
                continue
            body = _body(request)
            first = fresh.get(key) or self._seen.get(key)
            try:
                if first is not None and first[1] == body:
                    outputs.append(self._receipt(message, request, "duplicate", version=first[0]))
                    continue
                if first is not None:
                    raise BadInput(f"event_id `{request['event_id']}` was used before for another label")
                event = self._accept(request, records, version + 1, message.time_ms, told)
            except KeysUnavailable:
                raise
            except LumynError as error:
                outputs.append(self._receipt(message, request, "refused", error))
                continue
            version += 1
            fresh[key] = (version, body)
            told.take(event)
            outputs.append(Append(LABELS, encode(event, finite=True), key_of(event).encode()))
            outputs.append(self._receipt(message, request, "accepted", version=version))
        written = writer.commit(outputs, messages[-1].offset + 1)
        self._version = version
        self._seen |= fresh
        self._told.take_all(told)
        self._offset = max([self._offset, *(m.offset + 1 for m in written if m.topic == LABELS)])
        self._observer.event("labels_sequenced", requests=len(messages), accepted=len(fresh), version=version)
        for message in written:
            if message.topic == DEAD_LETTERS:
                self._observer.dead_letter("bad_label")

    def _parse(self, message: Message) -> LabelRequest | LumynError:
        where = f"{self._topic}/{message.partition}/{message.offset}"
        try:
            return check_label_form(decode(message.value, where=where))
        except LumynError as error:
            return to_keep(error)

    def _accept(
        self, request: LabelRequest, records: dict[str, Any], version: int, time_ms: int, told: Told
    ) -> LabelEvent:
        if request["type"] in OF_OPERATORS:
            check_not_held(request, told.trust_in(request["tenant"], request["actor"]))
        if speaks_of_labeller(request) and request.get("undoes") is not None:
            check_unchanged(request, told.last(key_of(request)))
        if request["type"] in ABOUT_SUBJECTS:
            check_about_subject(request, keys_of(self._log))
        if not speaks_of_decision(request):
            return label_event(request, None, version, time_ms)
        record = records.get(request["decision_id"])
        if record is None or record["tenant"] != request["tenant"]:  # another tenant's decision does not exist here
            raise NotFound(f"no decision `{request['decision_id']}`")
        check_words(request, record["verdict"])
        if request["type"] == "restore":
            check_unchanged(request, told.last(request["decision_id"]))
        return label_event(request, record, version, time_ms, keys_of(self._log))

    def _sealed(self, request: LabelRequest, records: Mapping[str, Any]) -> LabelRequest:
        """The request with its texts under the subject's key, as the gateway sends it; others may not.

        Raises `Erased`, `KeysUnavailable`.
        """
        record = records.get(request["decision_id"])
        if record is None or record["tenant"] != request["tenant"]:
            return request
        return seal_label(request, record, keys_of(self._log))

    def _receipt(
        self,
        message: Message,
        request: LabelRequest | None,
        outcome: LabelOutcome,
        error: LumynError | None = None,
        *,
        version: int | None = None,
    ) -> Append:
        value: LabelReceipt = {
            "source": {"topic": self._topic, "partition": message.partition, "offset": message.offset},
            "tenant": request["tenant"] if request else None,
            "event_id": request["event_id"] if request else None,
            "outcome": outcome,
            "version": version,
            "reason": error.code if error else None,
            "detail": error.message if error else None,
        }
        return Append(LABEL_RECEIPTS, encode_plain(value), f"{value['tenant']}/{value['event_id']}".encode())

    def _apply(self, changed: bool) -> None:
        """The store is brought up to the labels topic; its trouble never stops the sequencing."""
        if self._open_store is None:
            return
        due = time.monotonic() - self._beaten >= self._beat_s
        try:
            switched = self._switched()
            if not (changed or due or self._stale or switched):
                return
            if self._store is None:
                self._store = self._open_store(self._control.memory)
            catch_up(self._log, self._store)
            if self._beat is not None:
                self._beat(self._store, int(time.time() * 1000))
            self._beaten = time.monotonic()
            self._stale = False
            self._observer.memory_version(self._version)
            self._observer.ready("memory", True)
        except LumynError as error:
            if not self._stale or due:
                self._observer.trouble("memory_not_applied", error)
            self._stale = True
            self._beaten = time.monotonic()
            self._observer.ready("memory", False)
            self._close_store()

    def _switched(self) -> bool:
        """Whether control chose another memory since it was last looked at, which is then to be opened."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return False
        before, self._control = self._control, read_control(self._log, self._control)
        self._looked = now
        chosen = self._control.memory
        if before.memory == chosen:
            return False
        self._observer.event("memory_switched", vectoriser_id=chosen.vectoriser_id if chosen else None)
        self._close_store()
        self._stale = True
        return True

    def _close_store(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._observer.ready("labels", False)

    def stop(self) -> None:
        """End the run, from any thread."""
        self._stopping.set()

    def close(self) -> None:
        """Let go of the writer and the store."""
        self._close_writer()
        self._close_store()


def _body(request: LabelRequest) -> str:
    """What a retry must repeat: everything that the event keeps of the request."""
    names = ["decision_id", "type", "label", "should", "summary", "actor", "job"]
    if request.get("subject"):
        names.append("subject")
    if request["type"] == "restore":  # `expects` is not kept: what was made from another state is another restore
        names[2:4] = ["undoes", "restored"]
    elif speaks_of_labeller(request):
        names[2:4] = ["undoes", "labeller", "trust"]
    return digest(encode({name: request.get(name) for name in names}))


def _request_of(event: LabelEvent) -> LabelRequest:
    return {
        "event_id": event["event_id"],
        "decision_id": event["decision_id"],
        "tenant": event["tenant"],
        "type": event["type"],
        "label": event["label"],
        "should": event["should"],
        "summary": event["summary"],
        "actor": event["actor"],
        "job": event["job"],
        "undoes": event.get("undoes"),
        "restored": event.get("restored"),
        "labeller": event.get("labeller"),
        "trust": event.get("trust"),
        "subject": event.get("subject"),
    }
