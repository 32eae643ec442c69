"""Admin calls, and the maker of producers and readers, with our errors and bounded waits.

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

from schemas.errors import BadConfig, Fenced, LumynError, StorageUnavailable
from streams.kafka.facts import MAX_MESSAGE_BYTES, GroupFacts, NewTopicSpec, Place, TopicFacts
from streams.kafka.producer import PASSING, KafkaProducer
from streams.kafka.reader import Reader

_SLICE_S = 1.0
_FENCING = frozenset(
    {
        KafkaError._FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_ID_MAPPING,
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
                if error.args[0].code() not in PASSING or self.hastened or time.monotonic() > deadline:
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
                if error.args[0].code() not in PASSING or time.monotonic() > deadline:
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


def _made(make: Callable[[], Any]) -> Any:
    """A client, or the reason why its options are no good: never with their values, which may be secrets."""
    try:
        return make()
    except (KafkaException, ValueError, TypeError) as error:
        problem = error.args[0] if error.args else error
        text = problem.str() if hasattr(problem, "str") else str(problem)
        name = next((word for word in text.replace('"', " ").split() if "." in word), "an option")
        raise BadConfig(f"[kafka] the client refuses `{name}`", help="see the client's reference of options") from None
