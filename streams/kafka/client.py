"""The one module that knows confluent-kafka: producers, readers and admin calls with our errors and bounded waits.

Every call ends within its deadline with an answer or a `StorageUnavailable` that names the broker; no topic name is
prefixed here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from schemas.errors import BadConfig, Fenced, LumynError, NotFound, StorageUnavailable, to_keep

Place = tuple[str, int]
"""(full topic name, partition)"""

MAX_MESSAGE_BYTES = 9 * 1024 * 1024
_SLICE_S = 1.0
_LATE_S = 3.0
_ANSWERED_S = 2.0
_FENCING = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
    }
)
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
    }
)
_FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
_OURS = frozenset({"bootstrap.servers", "enable.idempotence", "transactional.id", "group.id", "isolation.level"})


@dataclass(frozen=True)
class KafkaSettings:
    """Where the brokers are. `options` pass through to the client (TLS, SASL) and are never printed."""

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    timeout_s: float = 15.0

    def client_options(self, **more: Any) -> dict[str, Any]:
        """Options of one client. Raises `BadConfig` for an option that would break an invariant."""
        taken = sorted(_OURS & set(self.options))
        if taken:
            raise BadConfig(f"[kafka] `{taken[0]}` is set by lumyn itself", help="leave it out")
        return {
            "bootstrap.servers": self.bootstrap,
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            "logger": _QUIET,
            **self.options,
            **more,
        }


class _Quiet:
    """What the client would print to stderr goes nowhere: every failure comes back to a caller as an error."""

    def log(self, *_: Any, **__: Any) -> None:
        return


_QUIET = _Quiet()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A message as the broker gave it; `value` None is a tombstone."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    log_append_time: bool


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the cluster describes it."""

    name: str
    topic_id: str
    partitions: int
    replicas: int


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A consumer group as the cluster describes it: its state, how many members, and what they were assigned."""

    state: str
    members: int
    assigned: frozenset[Place]


@dataclass(frozen=True, slots=True)
class NewTopicSpec:
    """A topic to create; `config` in Kafka's own names."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


class KafkaClient:
    """Admin calls, and the maker of producers and readers. Safe for several threads."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._asking: dict[str, Consumer] = {}
        self._hastened = threading.Event()

    def _admin_client(self) -> AdminClient:
        with self._lock:
            if self._admin is None:
                self._admin = _made(lambda: AdminClient(self.settings.client_options()))
            return self._admin

    def _forget_admin(self) -> None:
        """After a failure: what the client believes of the leaders may be old, and librdkafka's offset questions then
        fail for good (FENCED_LEADER_EPOCH, or "no leaders found"), since they never ask anew.
        """
        with self._lock:
            self._admin = None

    def hasten(self) -> None:
        """For who must stop: waits that are under way end within about a second, done or with `StorageUnavailable`."""
        self._hastened.set()

    @property
    def hastened(self) -> bool:
        """Whether nothing is waited for any more."""
        return self._hastened.is_set()

    def _answer(self, future: Any) -> Any:
        """What an admin call says. Raises KafkaException, TimeoutError."""
        deadline = time.monotonic() + self.settings.timeout_s
        while True:
            try:
                return future.result(timeout=_SLICE_S)
            except TimeoutError:
                if self.hastened or time.monotonic() > deadline:
                    raise

    def _ask(self, ask: Callable[[], Mapping[Any, Any]], what: str) -> dict[Any, Any]:
        """Every answer of an admin call, asked again while the cluster says that it will do in a moment."""
        deadline = time.monotonic() + self.settings.timeout_s
        while True:
            try:
                return {name: self._answer(future) for name, future in ask().items()}
            except KafkaException as error:
                self._forget_admin()
                if error.args[0].code() not in _PASSING or self.hastened or time.monotonic() > deadline:
                    raise self.failure(what, error) from None
                time.sleep(0.05)
            except TimeoutError:
                self._forget_admin()
                raise self.unreachable(what) from None

    def topics(self, timeout_s: float | None = None) -> dict[str, int]:
        """Every topic's partition count."""
        try:
            found = self._admin_client().list_topics(timeout=timeout_s or self.settings.timeout_s)
        except KafkaException as error:
            self._forget_admin()
            raise self.failure("topics can't be listed", error) from None
        return {name: len(topic.partitions) for name, topic in found.topics.items() if topic.error is None}

    def brokers(self) -> dict[int, str]:
        """Broker ids and addresses."""
        try:
            found = self._admin_client().list_topics(timeout=self.settings.timeout_s)
        except KafkaException as error:
            self._forget_admin()
            raise self.failure("the brokers can't be asked", error) from None
        return {number: f"{broker.host}:{broker.port}" for number, broker in found.brokers.items()}

    def describe(self, names: Sequence[str]) -> dict[str, TopicFacts | None]:
        """Each topic's facts; None for one that does not exist."""
        futures = self._admin_client().describe_topics(TopicCollection(list(names)))
        out: dict[str, TopicFacts | None] = {}
        for name, future in futures.items():
            try:
                found = self._answer(future)
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    out[name] = None
                    continue
                self._forget_admin()
                raise self.failure(f"topic `{name}` can't be described", error) from None
            except TimeoutError:
                self._forget_admin()
                raise self.unreachable(f"topic `{name}` can't be described") from None
            replicas = min((len(p.replicas) for p in found.partitions), default=0)
            out[name] = TopicFacts(name, str(found.topic_id), len(found.partitions), replicas)
        return out

    def allowed(self, names: Sequence[str]) -> dict[str, frozenset[str]]:
        """What this client's user may do with each existing topic: READ, WRITE, ALTER, ..."""
        found = self._ask(
            lambda: self._admin_client().describe_topics(
                TopicCollection(list(names)), include_authorized_operations=True
            ),
            "permissions can't be read",
        )
        return {name: frozenset(op.name for op in facts.authorized_operations) for name, facts in found.items()}

    def group(self, group: str) -> GroupFacts:
        """Who is in a consumer group. One that never was has the state DEAD and no members."""
        (found,) = self._ask(
            lambda: self._admin_client().describe_consumer_groups([group]), f"group `{group}` can't be described"
        ).values()
        places = [tp for member in found.members if member.assignment for tp in member.assignment.topic_partitions]
        return GroupFacts(found.state.name, len(found.members), frozenset((tp.topic, tp.partition) for tp in places))

    def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Each topic's settings, in Kafka's own names."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found = self._ask(lambda: self._admin_client().describe_configs(resources), "topic settings can't be read")
        return {r.name: {k: str(entry.value) for k, entry in entries.items()} for r, entries in found.items()}

    def broker_config(self) -> dict[str, str]:
        """One broker's settings, in Kafka's own names."""
        resource = ConfigResource(ResourceType.BROKER, str(min(self.brokers())))
        (entries,) = self._ask(
            lambda: self._admin_client().describe_configs([resource]), "the brokers' settings can't be read"
        ).values()
        return {name: str(entry.value) for name, entry in entries.items()}

    def session_bounds_s(self) -> tuple[float, float]:
        """The least and the greatest session timeout that a consumer group may ask for."""
        config = self.broker_config()
        least, most = (int(config[f"group.{end}.session.timeout.ms"]) / 1000 for end in ("min", "max"))
        return least, most

    def create_topics(self, specs: Sequence[NewTopicSpec]) -> None:
        """Create topics and wait until every broker knows them."""
        if not specs:
            return
        new = [NewTopic(s.name, s.partitions, s.replication, config=dict(s.config)) for s in specs]
        self._ask(lambda: self._admin_client().create_topics(new), "topics can't be created")
        deadline = time.monotonic() + self.settings.timeout_s
        wanted = {s.name: s.partitions for s in specs}
        while True:  # creation answers before the metadata has spread
            known = self.topics()
            if all(known.get(name) == count for name, count in wanted.items()):
                return
            if time.monotonic() > deadline:
                raise self.unreachable("the created topics don't show up")
            time.sleep(0.05)

    def delete_topics(self, names: Sequence[str]) -> None:
        """Delete topics; for tests and for retired generations."""
        if names:
            self._ask(lambda: self._admin_client().delete_topics(list(names)), "topics can't be deleted")

    def delete_groups(self, names: Sequence[str]) -> None:
        """Delete consumer groups that nobody is in any more; one that is not there is none to delete."""
        for name in names:
            with suppress(LumynError):
                self._ask(partial(self._delete_group, name), "the group can't be deleted")

    def _delete_group(self, name: str) -> Any:
        return self._admin_client().delete_consumer_groups([name])

    def alter_topic(self, name: str, config: Mapping[str, str]) -> None:
        """Set some of a topic's settings, leaving the others."""
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry

        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._ask(
            lambda: self._admin_client().incremental_alter_configs([resource]), f"topic `{name}` can't be changed"
        )

    def ends(self, places: Iterable[Place]) -> dict[Place, int]:
        """The offset after the last committed message of each (the last stable offset)."""
        return self._offsets(places, OffsetSpec.latest())

    def is_settled(self, place: Place) -> bool:
        """Whether no transaction is open there: an open one hides what comes after it, committed or not."""
        written = self._offsets([place], OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)
        return self.ends([place])[place] >= written[place]

    def begins(self, places: Iterable[Place]) -> dict[Place, int]:
        """The first offset still held, of each."""
        return self._offsets(places, OffsetSpec.earliest())

    def at_time(self, place: Place, time_ms: int) -> int | None:
        """The first offset appended at or after a time; None when there is none."""
        found = self._offsets([place], OffsetSpec.for_timestamp(time_ms))[place]
        return found if found >= 0 else None

    def _offsets(
        self, places: Iterable[Place], spec: Any, level: IsolationLevel = IsolationLevel.READ_COMMITTED
    ) -> dict[Place, int]:
        asked = {TopicPartition(topic, partition): spec for topic, partition in places}
        if not asked:
            return {}
        found = self._ask(
            lambda: self._admin_client().list_offsets(
                asked, isolation_level=level, request_timeout=self.settings.timeout_s
            ),
            "offsets can't be read",
        )
        return {(place.topic, place.partition): result.offset for place, result in found.items()}

    def committed(self, group: str, place: Place) -> int:
        """A group's committed offset; 0 when it has none. Waits for an open transaction's offsets to settle."""
        consumer = self._group_consumer(group)
        deadline = time.monotonic() + self.settings.timeout_s
        while True:
            try:
                (found,) = consumer.committed([TopicPartition(*place)], timeout=self.settings.timeout_s)
                if found.error is not None:
                    raise KafkaException(found.error)
                return max(0, int(found.offset))
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                    raise self.failure(f"group `{group}` can't be asked", error) from None
                time.sleep(0.05)

    def group_metadata(self, group: str) -> Any:
        """What a transaction's offsets are sent with: a group's metadata without a member of its own."""
        return self._group_consumer(group).consumer_group_metadata()

    def _group_consumer(self, group: str) -> Consumer:
        with self._lock:
            if group not in self._asking:
                self._asking[group] = _made(lambda: Consumer(self._consumer_options(group)))
            return self._asking[group]

    def _consumer_options(self, group: str) -> dict[str, Any]:
        return self.settings.client_options(
            **{
                "group.id": group,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.message.max.bytes": MAX_MESSAGE_BYTES,
                "fetch.queue.backoff.ms": 20,
                "fetch.error.backoff.ms": 50,
                "queued.max.messages.kbytes": 16384,
                "check.crcs": True,
            }
        )

    def reader(self, *, wait_ms: int = 100) -> Reader:
        """A reader of committed messages, outside every consumer group.

        `wait_ms` is how long the broker holds a question for messages to come: short for one that jumps about, since
        a question already asked must be answered before the next.
        """
        options = self._consumer_options("lumyn-reader") | {"fetch.wait.max.ms": wait_ms}
        return Reader(self, _made(lambda: Consumer(options)))

    def producer(
        self, transactional_id: str | None = None, *, linger_ms: float = 0, idempotent: bool = True
    ) -> KafkaProducer:
        """An idempotent producer; with an id, a transactional one that is not yet opened.

        One that is not idempotent sends its first message half a second sooner, and may send a message twice.
        """
        options: dict[str, Any] = {
            "enable.idempotence": idempotent,
            "acks": "all",
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "message.max.bytes": MAX_MESSAGE_BYTES + 65536,
            "delivery.timeout.ms": int(self.settings.timeout_s * 1000),
            "partitioner": "murmur2_random",
            "queue.buffering.max.kbytes": 131072,
        }
        if not idempotent:
            options["topic.metadata.propagation.max.ms"] = 500  # else a missing topic is waited for
        if transactional_id is not None:
            options["transactional.id"] = transactional_id
            options["transaction.timeout.ms"] = int(max(10.0, self.settings.timeout_s) * 1000)
        return KafkaProducer(self, _made(lambda: Producer(self.settings.client_options(**options))))

    def failure(self, what: str, error: KafkaException) -> LumynError:
        """A client's exception as one of ours."""
        problem = error.args[0]
        code, text = problem.code(), str(problem.str())
        if code in _FENCING:
            return Fenced("another writer owns this now", where=what)
        where = f"kafka {self.settings.bootstrap}"
        if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return StorageUnavailable(f"{what}: no such topic or partition", where=where, help="`lumyn topics create`")
        if code in _FORBIDDEN:
            return StorageUnavailable(f"{what}: not allowed: {text}", where=where, help="check the user's ACLs")
        if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL):
            return StorageUnavailable(f"{what}: the login is refused", where=where, help="check [kafka] SASL and TLS")
        return StorageUnavailable(f"{what}: {text}", where=where, help="`lumyn doctor` checks brokers and topics")

    def unreachable(self, what: str) -> StorageUnavailable:
        """Nobody answered in time."""
        return StorageUnavailable(
            f"{what}: no answer within {self.settings.timeout_s:g} s",
            where=f"kafka {self.settings.bootstrap}",
            help="`lumyn doctor` checks brokers and topics",
        )

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            for consumer in self._asking.values():
                consumer.close()
            self._asking.clear()
            self._admin = None


class Reader:
    """Reads committed messages from places of its own choice; for one thread at a time."""

    def __init__(self, client: KafkaClient, consumer: Consumer) -> None:
        self._client = client
        self._consumer = consumer
        self._positions: dict[Place, int] = {}

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read these partitions from these offsets on, and no others."""
        self._positions = dict(positions)
        try:
            self._consumer.assign([TopicPartition(topic, p, offset) for (topic, p), offset in positions.items()])
        except KafkaException as error:
            raise self._client.failure("the partitions can't be read", error) from None

    @property
    def positions(self) -> Mapping[Place, int]:
        """The next offset to be given, by partition; past markers and gaps once their end was seen."""
        return self._positions

    def poll(self, most: int, timeout_s: float) -> list[Fetched]:
        """Up to `most` messages, as soon as there are any. Raises `StorageUnavailable`, `NotFound` (expired)."""
        out: list[Fetched] = []
        try:
            first = self._consumer.poll(timeout_s)  # `consume` alone would wait for all `most` of them
            got = [first, *self._consumer.consume(most - 1, 0)] if first is not None and most > 1 else [first]
        except KafkaException as error:
            raise self._client.failure("messages can't be read", error) from None
        for message in got:
            if message is None:
                continue
            place = (message.topic(), message.partition())
            problem = message.error()
            if problem is not None:
                self._problem(place, message.offset(), problem)
                continue
            kind, time_ms = message.timestamp()
            out.append(
                Fetched(
                    place[0], place[1], message.offset(), time_ms, message.key(), message.value(), kind == 2
                )
            )
            self._positions[place] = message.offset() + 1
        return out

    def _problem(self, place: Place, offset: int, problem: Any) -> None:
        code = problem.code()
        if code == KafkaError._PARTITION_EOF:
            self._positions[place] = max(self._positions.get(place, 0), offset)
        elif code == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return  # the client looks for the coordinator of a group that a reader has no use for
        elif code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise NotFound(
                "the messages from here on are not held any more",
                where=f"{place[0]}/{place[1]}/{self._positions.get(place)}",
            )
        elif problem.fatal() or not problem.retriable():
            if code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE):
                return  # the client reconnects by itself; who waits for an answer has a deadline
            raise self._client.failure(f"{place[0]}/{place[1]} can't be read", KafkaException(problem))

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


_Call = tuple[Any, ...]
"""A method's name and its arguments, but for the time limit."""


def _too_late() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "the client did not come back from its call"))


class KafkaProducer:
    """A producer whose failures are ours. Transactional calls raise `Fenced` once another one has taken over."""

    def __init__(self, client: KafkaClient, producer: Producer) -> None:
        self._client = client
        # The only reference: one that lived on would go on with what it was asked, and could fence its successor. So no
        # frame below keeps another, which an error's traceback would keep alive until the collector comes by.
        self._producer: Any = producer
        self._stuck = False

    def open(self) -> None:
        """Become the one producer of the transactional id: fences older ones, ends what they left open."""
        try:
            self._again(("init_transactions",))
        except KafkaException as error:
            raise self._client.failure("the transactional producer can't be opened", error) from None

    def _again(self, *calls: _Call) -> None:
        """Transactional calls, in order; the client lets one be resumed that did not end in its time.

        Raises KafkaException.
        """
        deadline = time.monotonic() + self._client.settings.timeout_s
        left = list(calls)
        while True:
            try:
                return self._run(left)
            except KafkaException as error:
                problem = error.args[0]
                passing = problem.code() in _PASSING  # a broker that has just started still loads its transactions
                resumable = passing or (problem.code() == KafkaError._TIMED_OUT and problem.retriable())
                if passing:
                    time.sleep(0.1)
                if not resumable or self._client.hastened or time.monotonic() > deadline:
                    raise

    def _run(self, left: list[_Call]) -> None:
        """Calls in a thread of their own, which is left behind when it does not come back; `left` loses what is done.

        The client's own limit is not kept where the group's coordinator went away (librdkafka #5456, #5511): the call
        then waits for ever. Such a producer is given up; its successor fences it, and finds the exact position.
        """
        if self._stuck:
            raise _too_late()
        problems: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            producer = self._producer
            try:
                while left:
                    method, *arguments = left[0]
                    getattr(producer, method)(*arguments, _SLICE_S)
                    del left[0]
            except BaseException as error:
                problems.append(to_keep(error))
            finally:
                if self._producer is None:  # given up meanwhile, and nobody else has it
                    _settle(producer, _ANSWERED_S)
                del producer
                done.set()

        calls_s, waited_s = _SLICE_S * len(left), 0.0
        threading.Thread(target=run, name="transaction", daemon=True).start()
        while not done.wait(0.1):
            waited_s += 0.1  # not by the clock: a process that was paused must not take that for the call's lateness
            if waited_s - calls_s > (_LATE_S / 6 if self._client.hastened else _LATE_S):
                self._stuck = True
                raise _too_late()
        if problems:
            raise problems.pop()

    def begin(self) -> None:
        """Begin a transaction."""
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise self._client.failure("a transaction can't be begun", error) from None

    def send(
        self,
        place: tuple[str, int | None],
        key: bytes | None,
        value: bytes,
        done: Callable[[LumynError | None, int, int, int], None] | None = None,
    ) -> None:
        """Queue a message; `done(error, partition, offset, time_ms)` is called from a later `wait` or `commit`.

        Blocks, serving callbacks, while the queue is full. Raises `StorageUnavailable`.
        """
        topic, partition = place
        deadline = time.monotonic() + self._client.settings.timeout_s
        more: dict[str, Any] = {} if partition is None else {"partition": partition}
        if done is not None:
            more["on_delivery"] = self._reporter(topic, done)
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, **more)
                return
            except BufferError:
                if self._client.hastened or time.monotonic() > deadline:
                    raise self._client.unreachable(f"`{topic}` can't be written") from None
                self.serve(0.05)
            except KafkaException as error:
                raise self._client.failure(f"`{topic}` can't be written", self._cause_of(error)) from None

    def _cause_of(self, error: KafkaException) -> KafkaException:
        """A fatal error does not say what was fatal (mostly, that another producer has taken over); an abort does."""
        if error.args[0].code() == KafkaError._FATAL:
            try:
                self._run([("abort_transaction",)])
            except KafkaException as cause:
                return cause
        return error

    def _reporter(
        self, topic: str, done: Callable[[LumynError | None, int, int, int], None]
    ) -> Callable[[Any, Any], None]:
        def report(problem: Any, message: Any) -> None:
            if problem is not None:
                done(self._client.failure(f"`{topic}` can't be written", KafkaException(problem)), -1, -1, -1)
            else:
                done(None, message.partition(), message.offset(), message.timestamp()[1])

        return report

    def wait(self, finished: Callable[[], bool]) -> None:
        """Serve callbacks until `finished()`. Raises `StorageUnavailable` at the deadline."""
        deadline = time.monotonic() + self._client.settings.timeout_s + 1
        while not finished():
            if self._client.hastened or time.monotonic() > deadline:
                raise self._client.unreachable("the brokers don't confirm")
            self.serve(0.02)

    def commit(self, group: str | None = None, positions: Mapping[Place, int] | None = None) -> None:
        """Commit the transaction with a group's positions, all or nothing, after all that was sent is confirmed.

        Raises `Fenced`, `StorageUnavailable`. After any failure the producer must be closed and opened anew: then
        the group's committed position tells whether the transaction took effect.
        """
        try:
            calls: list[_Call] = [("commit_transaction",)]
            if group is not None and positions:
                offsets = [TopicPartition(topic, p, offset) for (topic, p), offset in positions.items()]
                calls.insert(0, ("send_offsets_to_transaction", offsets, self._client.group_metadata(group)))
            self._again(*calls)
        except KafkaException as error:
            raise self._client.failure("the transaction can't be committed", error) from None

    def abort(self) -> None:
        """Take the open transaction back, as far as that can still be told to the broker."""
        try:
            self._again(("abort_transaction",))
        except KafkaException as error:
            raise self._client.failure("the transaction can't be aborted", error) from None

    def serve(self, timeout_s: float = 0) -> None:
        """Serve delivery callbacks. Raises `Fenced`, `StorageUnavailable`."""
        try:
            self._producer.poll(timeout_s)
        except KafkaException as error:
            raise self._client.failure("the brokers don't confirm", error) from None

    def close(self) -> None:
        """Drop what is queued and let go of the connection. Never raises; nothing else may be called after it."""
        producer, self._producer = self._producer, None
        if producer is not None and not self._stuck:
            _settle(producer, 0.1 if self._client.hastened else _ANSWERED_S)


def _settle(producer: Any, most_s: float) -> None:
    """Drop what is queued, and have what was sent answered, before a client is let go of.

    An answer that says "fenced" while the client is being destroyed frees one text twice (librdkafka up to 2.16:
    `txn_errstr`, by `rd_kafka_txns_term` and by `rd_kafka_txn_set_fatal_error`), and the process aborts.
    """
    with suppress(KafkaException):
        producer.purge(in_flight=False)
    until = time.monotonic() + most_s
    while len(producer) and time.monotonic() < until:
        with suppress(KafkaException):  # one that was fenced says so once more
            producer.poll(0.02)
    with suppress(KafkaException):
        producer.purge()
        producer.poll(0)


def _made(make: Callable[[], Any]) -> Any:
    """A client, or the reason why its options are no good: never with their values, which may be secrets."""
    try:
        return make()
    except (KafkaException, ValueError, TypeError) as error:
        problem = error.args[0] if error.args else error
        text = problem.str() if hasattr(problem, "str") else str(problem)
        name = next((word for word in text.replace('"', " ").split() if "." in word), "an option")
        raise BadConfig(f"[kafka] the client refuses `{name}`", help="see the client's reference of options") from None
