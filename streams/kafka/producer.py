"""A producer, transactional or not, whose every call ends in its time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from schemas.errors import LumynError, to_keep
from streams.kafka.facts import Place

if TYPE_CHECKING:
    from streams.kafka.client import KafkaClient

_SLICE_S = 1.0
_LATE_S = 3.0
_ANSWERED_S = 2.0
PASSING = frozenset(
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
                passing = problem.code() in PASSING  # a broker that has just started still loads its transactions
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
