"""The Kafka log against the log contract, on a real broker."""

from __future__ import annotations

import time
import uuid
from functools import partial

import pytest
from log_contract import LogContract

from schemas.errors import Fenced
from streams.kafka.client import KafkaSettings
from streams.kafka.log import KafkaLog
from streams.kafka.topics import create_topics
from streams.topics import TOPICS, full_name


def open_log(address: str, prefix: str) -> KafkaLog:
    return KafkaLog(KafkaSettings(address), prefix=prefix)


@pytest.fixture
def prefix(kafka):
    name = f"t{uuid.uuid4().hex[:8]}"
    log = open_log(kafka, name)
    create_topics(log.client, name, 8)
    yield name
    log.client.delete_topics([full_name(name, topic) for topic in TOPICS])
    log.close()


@pytest.fixture
def reopen(kafka, prefix):
    return partial(open_log, kafka, prefix)


@pytest.fixture
def log(reopen):
    log = reopen()
    yield log
    log.close()


class TestKafkaLog(LogContract):
    dense = False


def test_a_writer_that_learns_of_its_successor_while_it_sends_says_that_it_is_fenced(log: KafkaLog) -> None:
    """The client then calls every call a fatal error; what was fatal decides whether the partition is waited for."""
    producer = log.client.producer(f"{log.prefix}-one-of-two")
    producer.open()
    producer.begin()
    place = (log.name("records"), 0)
    producer.send(place, b"a", b"1")
    successor = log.client.producer(f"{log.prefix}-one-of-two")
    successor.open()
    deadline = time.monotonic() + 20
    with pytest.raises(Fenced, match="another writer owns this now"):
        while time.monotonic() < deadline:
            producer.send(place, b"a", b"2")
            producer.serve(0.05)
    producer.close()
    successor.begin()
    successor.send(place, b"b", b"3")
    successor.commit()
    successor.close()
