"""KafkaLog: the `Log` protocol on Apache Kafka. Readers see committed messages only."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from functools import partial
from typing import Any

from schemas.errors import BadConfig, Fenced, LumynError, NotFound, StorageUnavailable
from schemas.ids import decision_time_ms, is_decision_id
from streams.kafka.client import KafkaClient, KafkaSettings
from streams.kafka.facts import Fetched, Place
from streams.kafka.producer import KafkaProducer
from streams.kafka.reader import Reader
from streams.kafka.tail import KafkaTail
from streams.log import Append, Message
from streams.partitioner import partition_for
from streams.subject_keys import NO_KEYS, SubjectKeys
from streams.topics import LABELS, TOPICS, check_key, full_name

_CHUNK = 2000
_SETTLE_S = 5.0


class KafkaLog:
    """A `Log` on Kafka topics `PREFIX.name`, which must exist (`lumyn topics create`). Safe for several threads."""

    def __init__(self, settings: KafkaSettings, *, prefix: str = "lumyn") -> None:
        """Nothing is asked of the brokers before the first call."""
        self.prefix = prefix
        self.client = KafkaClient(settings)
        self._timeout_s = settings.timeout_s
        self._partitions: dict[str, int] = {}
        self._epoch: str | None = None
        self._reading = threading.Lock()
        self._reader: Reader | None = None
        self._read_at: tuple[Place, int] | None = None
        self._appending = threading.Lock()
        self._producer: KafkaProducer | None = None
        self.keys: SubjectKeys = NO_KEYS
        self._bulk: KafkaProducer | None = None
        self._transactional: KafkaProducer | None = None

    @property
    def epoch(self) -> str:
        """The generation of the `labels` topic: another topic of the same name is another memory."""
        if self._epoch is None:
            name = self.name(LABELS)
            facts = self.client.describe([name])[name]
            if facts is None:
                raise self._missing(LABELS)
            self._epoch = facts.topic_id
        return self._epoch

    def name(self, topic: str) -> str:
        """A topic's full name."""
        if topic not in TOPICS:
            raise BadConfig(f"unknown topic `{topic}`")
        return full_name(self.prefix, topic)

    def partitions(self, topic: str) -> int:
        name = self.name(topic)
        if topic not in self._partitions:
            found = self.client.topics()
            if name not in found:
                raise self._missing(topic)
            ours = {one: full_name(self.prefix, one) for one in TOPICS}  # the answer costs the same for one as for all
            self._partitions |= {one: found[whole] for one, whole in ours.items() if whole in found}
        return self._partitions[topic]

    def _missing(self, topic: str) -> StorageUnavailable:
        return StorageUnavailable(
            f"there is no topic `{full_name(self.prefix, topic)}`",
            where=f"kafka {self.client.settings.bootstrap}",
            help="`lumyn topics create` makes all of them",
        )

    def _resolve(self, item: Append) -> tuple[str, int]:
        """Where a message goes, checked before anything is sent."""
        count = self.partitions(item.topic)
        _check(item)
        partition = item.partition
        if partition is None:
            partition = 0 if count == 1 else partition_for(item.key or item.value, count)
        elif not 0 <= partition < count:
            raise BadConfig(f"`{item.topic}` has no partition {partition}")
        return self.name(item.topic), partition

    def append(self, appends: Sequence[Append]) -> list[Message]:
        places = [self._resolve(item) for item in appends]
        if not appends:
            return []
        with self._appending:
            if len(appends) == 1:
                return self._append_one(places, appends)
            return self._append_all(places, appends)

    def _append_one(self, places: Sequence[tuple[str, int]], appends: Sequence[Append]) -> list[Message]:
        """One message is all or nothing by itself; without a transaction its topic's offsets stay dense."""
        if self._producer is None:
            self._producer = self.client.producer()
        try:
            return send_all(self._producer, places, appends)
        except LumynError:
            producer, self._producer = self._producer, None
            producer.close()
            raise

    def append_at_once(self, item: Append) -> Message:
        """Append one message to a topic of one partition as soon as can be, without asking anything before.

        It may then stand there twice, and must mean the same if it does.
        """
        name = self.name(item.topic)
        if TOPICS[item.topic].partitions != 1:
            raise BadConfig(f"`{item.topic}` has more than one partition")
        _check(item)
        producer = self.client.producer(idempotent=False)
        try:
            (message,) = send_all(producer, [(name, 0)], [item])
            return message
        finally:
            producer.close()

    def _append_all(self, places: Sequence[tuple[str, int]], appends: Sequence[Append]) -> list[Message]:
        if self._transactional is None:
            producer = self.client.producer(f"{self.prefix}-append-{uuid.uuid4().hex}")
            producer.open()
            self._transactional = producer
        producer = self._transactional
        try:
            producer.begin()
            messages = commit_all(producer, places, appends)
        except BaseException:
            self._transactional = None
            _give_up(producer)
            raise
        self.settle(messages)
        return messages

    def send_many(self, appends: Sequence[Append]) -> list[Message | LumynError]:
        """Append in order, each durable by itself, pipelined: a message that fails is an error in its place."""
        places = [self._resolve(item) for item in appends]
        with self._appending:
            if self._bulk is None:
                self._bulk = self.client.producer(linger_ms=2)
            try:
                return _sent(self._bulk, places, appends)
            except BaseException:
                producer, self._bulk = self._bulk, None
                producer.close()
                raise

    def settle(self, messages: Sequence[Message]) -> None:
        """Wait until committed messages are visible: Kafka answers a commit before its markers are everywhere."""
        wanted: dict[Place, int] = {}
        for message in messages:
            place = (self.name(message.topic), message.partition)
            wanted[place] = max(wanted.get(place, 0), message.offset + 1)
        deadline = time.monotonic() + _SETTLE_S
        while wanted:
            ends = self.client.ends(wanted)
            wanted = {place: offset for place, offset in wanted.items() if ends[place] < offset}
            if wanted and time.monotonic() > deadline:
                return  # committed all the same; only seen later
            if wanted:
                time.sleep(0.002)

    def read(self, topic: str, partition: int, offset: int, limit: int = 1000) -> list[Message]:
        place = (self._known(topic, partition), partition)
        end = self.client.ends([place])[place]
        if limit <= 0 or offset >= end:
            return []
        with self._reading:
            try:
                return _messages(topic, self._read(place, offset, end, limit))
            except NotFound:
                begin = self.client.begins([place])[place]
                return _messages(topic, self._read(place, max(begin, offset), end, limit))

    def _known(self, topic: str, partition: int) -> str:
        if not 0 <= partition < self.partitions(topic):
            raise BadConfig(f"`{topic}` has no partition {partition}")
        return self.name(topic)

    def _read(self, place: Place, offset: int, end: int, limit: int) -> list[Fetched]:
        if offset >= end:
            return []
        if self._reader is None:
            self._reader = self.client.reader(wait_ms=5)
        reader = self._reader
        if self._read_at != (place, offset):
            reader.assign({place: offset})
        self._read_at = None
        out: list[Fetched] = []
        deadline = time.monotonic() + self._timeout_s
        while len(out) < limit and reader.positions[place] < end:
            got = reader.poll(min(_CHUNK, limit - len(out)), 0.2)
            out += got
            if got:
                deadline = time.monotonic() + self._timeout_s
            elif self.client.hastened or time.monotonic() > deadline:
                raise self.client.unreachable(f"{place[0]}/{place[1]}/{offset} can't be read")
        if reader.positions[place] < end:
            self._read_at = (place, reader.positions[place])
        else:  # nobody waits for more here: stop asking
            reader.assign({})
        return [m for m in out if m.offset < end]

    def begin(self, topic: str, partition: int) -> int:
        place = (self._known(topic, partition), partition)
        first = self.client.begins([place])[place]
        held = self.read(topic, partition, first, 1)  # compaction leaves the start offset before the first message
        return held[0].offset if held else self.end(topic, partition)

    def end(self, topic: str, partition: int) -> int:
        place = (self._known(topic, partition), partition)
        return self.client.ends([place])[place]

    def ends(self, topic: str) -> list[int]:
        """Every partition's end, in one question."""
        places = [(self.name(topic), p) for p in range(self.partitions(topic))]
        found = self.client.ends(places)
        return [found[place] for place in places]

    def tail(self, topic: str) -> KafkaTail:
        """What comes to a topic after its present end."""
        places = [(self.name(topic), p) for p in range(self.partitions(topic))]
        return KafkaTail(self.client, places, partial(_messages, topic))

    def at_time(self, topic: str, partition: int, time_ms: int) -> int:
        """The first offset appended at or after a time; the end, when there is none."""
        found = self.client.at_time((self._known(topic, partition), partition), time_ms)
        return self.end(topic, partition) if found is None else found

    def committed(self, group: str, topic: str, partition: int) -> int:
        return self.client.committed(self.group(group), (self._known(topic, partition), partition))

    def group(self, group: str) -> str:
        """A consumer group's full name."""
        return f"{self.prefix}.{group}"

    def latest(self, topic: str, key: bytes) -> Message | None:
        """The newest message with a key. Kafka has no key lookup: this reads the topic through, from the decision's

        own time on where the key is a decision id. Who looks up often keeps an index.
        """
        since = decision_time_ms(key.decode()) if key.isascii() and is_decision_id(key.decode()) else None
        newest: Message | None = None
        for partition in range(self.partitions(topic)):
            offset = 0 if since is None else self.at_time(topic, partition, since)
            while messages := self.read(topic, partition, offset, _CHUNK):
                for message in messages:
                    if message.key == key and (newest is None or message.time_ms >= newest.time_ms):
                        newest = message
                offset = messages[-1].offset + 1
        return newest

    def writer(self, group: str, topic: str, partition: int) -> KafkaWriter:
        return self.open_writer(group, topic, partition, settle=True)

    def open_writer(self, group: str, topic: str, partition: int, *, settle: bool) -> KafkaWriter:
        """A writer that waits (or not) until what it commits is visible to every reader."""
        self._known(topic, partition)
        return KafkaWriter(self, group, topic, partition, settle)

    def close(self) -> None:
        with self._reading, self._appending:
            for part in (self._reader, self._producer, self._bulk, self._transactional):
                if part is not None:
                    part.close()
            self._reader = self._producer = self._bulk = self._transactional = self._read_at = None
            self.client.close()


class KafkaWriter:
    """A `PartitionWriter`: outputs and the input position in one transaction, by the one transactional producer of

    the partition. Opening it fences an older one and waits for the end of what that left open; only then is the
    committed position read, so it is exact.
    """

    def __init__(self, log: KafkaLog, group: str, topic: str, partition: int, settle: bool) -> None:
        self._log = log
        self._group = log.group(group)
        self._input: Place = (log.name(topic), partition)
        self._settle = settle
        self._broken: LumynError | None = None
        self._producer = log.client.producer(f"{self._group}-{topic}-{partition}")
        try:
            self._producer.open()
            self._position = log.client.committed(self._group, self._input)
        except LumynError:
            self._producer.close()
            raise

    @property
    def position(self) -> int:
        return self._position

    def commit(self, outputs: Sequence[Append], position: int) -> list[Message]:
        """After a failure the writer is of no more use: open another one, whose position tells what took effect."""
        if self._broken is not None:
            raise copy(self._broken)
        places = [self._log._resolve(item) for item in outputs]
        try:
            self._producer.begin()
            messages = commit_all(self._producer, places, outputs, self._group, {self._input: position})
        except BaseException as error:
            if isinstance(error, LumynError):
                self._broken = copy(error)  # without its traceback, which holds this writer and the outputs
            else:
                self._broken = StorageUnavailable("the writer was broken off")
            _give_up(self._producer)
            raise
        self._position = position
        if self._settle:
            self._log.settle(messages)
        return messages

    def close(self) -> None:
        self._producer.close()


def _check(item: Append) -> None:
    if not isinstance(item.value, bytes):
        raise TypeError(f"a message's value must be bytes, not {type(item.value).__name__}")
    if len(item.value) > TOPICS[item.topic].max_bytes - 4096:
        raise BadConfig(f"a message of {len(item.value)} bytes is too large for `{item.topic}`")
    check_key(item.topic, item.key)


def send_all(producer: KafkaProducer, places: Sequence[tuple[str, int]], appends: Sequence[Append]) -> list[Message]:
    """Send all and wait until each is confirmed. Raises the first failure."""
    out = []
    for result in _sent(producer, places, appends):
        if isinstance(result, LumynError):
            raise result
        out.append(result)
    return out


def commit_all(
    producer: KafkaProducer,
    places: Sequence[tuple[str, int]],
    appends: Sequence[Append],
    group: str | None = None,
    positions: Mapping[Place, int] | None = None,
) -> list[Message]:
    """Send all and commit, with a group's positions; the positions are on their way while messages are confirmed."""
    sending = _Sending(producer, places, appends)
    try:
        producer.commit(group, positions)
    except Fenced:
        raise
    except LumynError:
        for result in sending.results:
            if isinstance(result, LumynError):
                raise result from None  # it says which message, and why
        raise
    if sending.left:  # the client confirms before it commits; without places nothing can be said of what took effect
        raise StorageUnavailable("the transaction is committed, but not all of its messages were confirmed")
    return sending.results


def _sent(
    producer: KafkaProducer, places: Sequence[tuple[str, int]], appends: Sequence[Append]
) -> list[Message | LumynError]:
    sending = _Sending(producer, places, appends)
    producer.wait(lambda: sending.left == 0)
    return sending.results


class _Sending:
    """Messages on their way: each one's place in `results` is filled when it is confirmed, or fails."""

    def __init__(self, producer: KafkaProducer, places: Sequence[tuple[str, int]], appends: Sequence[Append]) -> None:
        self.results: list[Any] = [None] * len(appends)
        self.left = len(appends)
        self._appends = appends
        for number, (place, item) in enumerate(zip(places, appends, strict=True)):
            producer.send(place, item.key, item.value, partial(self._confirm, number))

    def _confirm(self, number: int, error: LumynError | None, partition: int, offset: int, time_ms: int) -> None:
        item = self._appends[number]
        self.results[number] = error or Message(item.topic, partition, offset, time_ms, item.key, item.value)
        self.left -= 1


def _give_up(producer: KafkaProducer) -> None:
    """Take back what can be taken back; the coordinator's timeout, or the next writer's opening, does the rest."""
    with suppress(LumynError):
        producer.abort()
    producer.close()


def _messages(topic: str, fetched: Sequence[Fetched]) -> list[Message]:
    """A message without a value deletes its key in a compacted topic; in any other it is a message like others."""
    return [
        Message(topic, m.partition, m.offset, m.time_ms, m.key, m.value or b"")
        for m in fetched
        if m.value is not None or not TOPICS[topic].compacted
    ]


def options_of(table: Mapping[str, Any]) -> dict[str, Any]:
    """The `[kafka]` table of lumyn.toml as client options: nested tables joined with dots."""
    out: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            out |= {f"{name}.{key}": inner for key, inner in options_of(value).items()}
        else:
            out[name] = value
    return out
