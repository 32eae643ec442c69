"""A Kafka producer that is given up is gone at once: one that lived on could fence its successor."""

from __future__ import annotations

import gc

import pytest
from confluent_kafka import Producer

from schemas.errors import StorageUnavailable
from streams.kafka.client import KafkaClient, KafkaSettings


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
