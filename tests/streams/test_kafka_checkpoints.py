"""Checkpoints on a real broker: offsets with gaps, receipts at offsets of their own, purged and overwritten messages."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import embedded
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from schemas.canonical import decode_trusted, encode
from schemas.errors import Fenced, LumynError
from schemas.record import record_digest
from schemas.request import parse_request
from streams.checkpointer import Checkpointer
from streams.checkpoints import Chain, read_checkpoint
from streams.control import publish_event, read_control
from streams.decide import Position, decide
from streams.kafka.client import KafkaSettings
from streams.kafka.log import KafkaLog
from streams.kafka.topics import create_topics
from streams.local_log import wall_clock_ms
from streams.log import Append, Message
from streams.outputs import dead_letter, receipt
from streams.proof import check_proof, prove
from streams.reading import messages, of_request, request_offset
from streams.signing import SigningKey
from streams.sweep import Summary, verify_all
from streams.topics import DAY_MS, TOPICS, full_name
from streams.verify import verify_record

PARTITIONS = 2


def open_log(address: str, prefix: str) -> KafkaLog:
    return KafkaLog(KafkaSettings(address), prefix=prefix)


@pytest.fixture
def reopen(kafka: str) -> Iterator[Callable[[], KafkaLog]]:
    name = f"c{uuid.uuid4().hex[:8]}"
    log = open_log(kafka, name)
    create_topics(log.client, name, PARTITIONS)
    yield partial(open_log, kafka, name)
    log.client.delete_topics([full_name(name, topic) for topic in TOPICS])
    log.close()


@pytest.fixture
def log(reopen: Callable[[], KafkaLog]) -> Iterator[KafkaLog]:
    log = reopen()
    log.append([publish_event(embedded.policy(), "test", "file")])
    ask(log, 40)
    work(log)
    yield log
    log.close()


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey.load_or_create(tmp_path / "key.pem")


def ask(log: KafkaLog, count: int, name: str = "r") -> None:
    """Requests with retries, in other bytes too, and some that are none; some in transactions, which leave gaps."""
    for number in range(count):
        request = embedded.request(f"{name}-{number}", amount=number)
        spaced = request.canonical.replace(b'","', b'", "')  # as another producer may write it
        log.append([Append("requests", spaced, request.key)])
        if number % 5 == 0:
            log.append([Append("requests", request.canonical, request.key), Append("requests", b"{", request.key)])


def work(log: KafkaLog) -> None:
    """Decide what waits, a few requests in a transaction, as a worker does."""
    topic, policy, control = full_name(log.prefix, "requests"), embedded.policy(), read_control(log)
    first: dict[bytes, dict[str, Any]] = {}
    for number in range(PARTITIONS):
        writer = log.writer("decide", "requests", number)
        position = writer.position
        while batch := log.read("requests", number, position, 7):
            outputs: list[Append] = []
            for message in batch:
                outputs += decided(topic, message, policy, control, first)
            position = batch[-1].offset + 1
            writer.commit(outputs, position)
        writer.close()


def decided(topic: str, message: Message, policy: Any, control: Any, first: dict[bytes, dict[str, Any]]) -> list[Append]:
    try:
        request = parse_request(message.value)
    except LumynError as error:
        return [dead_letter(topic, message, error), receipt(topic, message, None, "rejected")]
    assert request.key is not None
    if request.key in first:
        record = first[request.key]
        return [receipt(topic, message, request, "duplicate", record["decision_id"], record["record_digest"])]
    decision = decide(request, Position(topic, message.partition, message.offset, message.time_ms), policy, control)
    record = dict(decision.record)
    first[request.key] = record
    return [
        Append("records", decision.canonical, record["decision_id"].encode(), message.partition),
        receipt(topic, message, request, "decided", record["decision_id"], record["record_digest"]),
    ]


def chain_of(log: KafkaLog, key: SigningKey) -> Chain:
    chain = Chain(log, {key.public.key_id})
    chain.catch_up()
    return chain


def verify(log: KafkaLog, key: SigningKey, *, days: float = 0) -> tuple[list[str], Summary]:
    summary = Summary()
    now_ms = wall_clock_ms() + int(days * DAY_MS)
    told = []
    for finding in verify_all(log, chain_of(log, key), summary, now_ms=now_ms):
        told += [f"{finding.name}: {check.name}: {check.detail}" for check in finding.failed]
    return told, summary


def all_of(log: KafkaLog, topic: str) -> list[Message]:
    return [message for number in range(log.partitions(topic)) for message in messages(log, topic, number)]


def purge(log: KafkaLog, topic: str, number: int, offset: int) -> None:
    """What retention does: everything below an offset goes."""
    admin = AdminClient({"bootstrap.servers": log.client.settings.bootstrap})
    place = TopicPartition(full_name(log.prefix, topic), number, offset)
    for future in admin.delete_records([place]).values():
        future.result(timeout=15)


def test_everything_is_covered_where_offsets_have_gaps(log: KafkaLog, key: SigningKey) -> None:
    receipts = all_of(log, "receipts")
    assert any(message.offset != request_offset(message) for message in receipts)
    offsets = [message.offset for message in all_of(log, "requests") if message.partition == 0]
    assert offsets != list(range(len(offsets))), "the requests have gaps, too"
    assert verify(log, key)[0] == []
    checkpointer = Checkpointer(log, key)
    made = checkpointer.run()
    assert sum(one.statement["count"] for one in made if one.place[0].endswith(".requests")) == len(receipts)
    assert checkpointer.run() == []
    ask(log, 5, "later")
    work(log)
    more = checkpointer.run()
    checkpointer.close()
    assert [one.statement["number"] for one in more] == list(range(len(made), len(made) + len(more)))
    told, summary = verify(log, key)
    assert told == []
    assert summary.decisions == summary.covered == len(all_of(log, "records")) == 45
    record = decode_trusted(all_of(log, "records")[7].value)
    proof = prove(chain_of(log, key), record)
    assert proof is not None and check_proof(record, proof, {key.public.key_id}).ok


def test_the_newest_checkpointer_fences_the_older_and_continues_its_chain(
    log: KafkaLog, reopen: Callable[[], KafkaLog], key: SigningKey
) -> None:
    old = Checkpointer(log, key)
    old.run()
    other = reopen()
    new = Checkpointer(other, key)
    ask(log, 5, "later")
    work(log)
    assert new.run()
    ask(log, 5, "last")
    work(log)
    with pytest.raises(Fenced):
        old.run()
    assert new.run()
    numbers = [read_checkpoint(message).statement["number"] for message in all_of(log, "checkpoints")]
    assert numbers == list(range(len(numbers)))
    assert verify(log, key)[0] == []
    assert old.run() == [], "asked again, it takes over, and there is nothing to do"
    for one in (old, new):
        one.close()
    other.close()


def test_a_record_overwritten_by_its_key_is_found(log: KafkaLog, key: SigningKey) -> None:
    """Whoever may write to the compacted topic can replace a record; compaction then removes the true one."""
    checkpointer = Checkpointer(log, key)
    checkpointer.run()
    checkpointer.close()
    message = all_of(log, "records")[3]
    record = {**decode_trusted(message.value), "engine": "lumyn-engine/0", "verdict": "DENY"}
    record["record_digest"] = record_digest(record)
    log.append([Append("records", encode(record), message.key, message.partition)])
    told, _ = verify(log, key)
    assert any(line.startswith(f"{record['decision_id']}: record: ") for line in told), told
    checks = verify_record(log, read_control(log), encode(record), record, chain=chain_of(log, key))
    assert {"checkpoint", "receipt"} <= {check.name for check in checks if not check.ok}


def test_purged_receipts_are_removed_ones_until_they_are_old(log: KafkaLog, key: SigningKey) -> None:
    checkpointer = Checkpointer(log, key)
    checkpointer.run()
    checkpointer.close()
    receipts = [message for message in all_of(log, "receipts") if message.partition == 0]
    purge(log, "receipts", 0, receipts[8].offset)
    told, _ = verify(log, key)
    assert sum(": receipt: " in line for line in told) == len(told) == 8
    told, summary = verify(log, key, days=8)
    assert told == []
    assert summary.covered == summary.decisions
    outcomes = [decode_trusted(message.value)["outcome"] for message in receipts[:8]]
    assert summary.expired == sum(outcome == "duplicate" for outcome in outcomes) + outcomes.count("rejected")


def test_a_receipt_is_found_by_its_request_in_few_reads(log: KafkaLog) -> None:
    for message in all_of(log, "receipts")[::7]:
        offset = request_offset(message)
        assert offset is not None
        found = of_request(log, "receipts", message.partition, offset)
        assert found == message
    assert of_request(log, "receipts", 0, 10**9) is None
