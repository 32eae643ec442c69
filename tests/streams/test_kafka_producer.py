"""A Kafka producer that is given up is gone at once: one that lived on could fence its successor."""

from __future__ import annotations

import gc

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import StorageUnavailable
from streams.kafka.client import KafkaClient, KafkaSettings
from streams.kafka.producer import KafkaProducer


def producers() -> int:
    return sum(isinstance(one, Producer) for one in gc.get_objects())


def test_nothing_keeps_a_producer_that_could_not_be_opened_not_even_its_error() -> None:
    """The collector is off, as it may be late in a worker: references must end by themselves."""
    client = KafkaClient(KafkaSettings("127.0.0.1:1", timeout_s=1))
    gc.collect()
    before = producers()
    gc.disable()
    try:
        producer = client.producer("an.id")
        with pytest.raises(StorageUnavailable) as caught:
            producer.open()
        assert producers() == before + 1
        producer.close()
        assert producers() == before
    finally:
        gc.enable()
    assert "can't be opened" in str(caught.value)


class Answering:
    """Stands in for a client with messages under way; notes what is done to it."""

    def __init__(self, answers_after: int | None) -> None:
        self.calls: list[str] = []
        self._left = answers_after

    def __len__(self) -> int:
        return 0 if self._left == 0 else 1

    def purge(self, in_flight: bool = True) -> None:
        self.calls.append("drop all" if in_flight else "drop queued")

    def poll(self, timeout: float) -> None:
        self.calls.append("serve")
        if self._left:
            self._left -= 1
        raise KafkaException(KafkaError(KafkaError._FENCED))


def test_what_was_sent_is_answered_before_a_producer_is_let_go_of() -> None:
    """Else the client, which is being destroyed, is told that it was fenced, and the process aborts."""
    client = KafkaClient(KafkaSettings("127.0.0.1:1", timeout_s=1))
    inner = Answering(3)
    KafkaProducer(client, inner).close()  # type: ignore[arg-type]
    assert inner.calls == ["drop queued", "serve", "serve", "serve", "drop all", "serve"]


def test_a_producer_that_nobody_answers_is_let_go_of_all_the_same() -> None:
    client = KafkaClient(KafkaSettings("127.0.0.1:1", timeout_s=1))
    client.hasten()
    inner = Answering(None)
    KafkaProducer(client, inner).close()  # type: ignore[arg-type]
    assert inner.calls[0] == "drop queued" and inner.calls[-2:] == ["drop all", "serve"]
