"""A reader of committed messages, outside every consumer group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import NotFound
from streams.kafka.facts import Fetched, Place

if TYPE_CHECKING:
    from streams.kafka.client import KafkaClient


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
