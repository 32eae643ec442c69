"""The Kafka log against the log contract, on a real broker."""

from __future__ import annotations

import uuid
from functools import partial

import pytest
from log_contract import LogContract

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
