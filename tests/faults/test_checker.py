"""The checker itself: it passes an honest log, and finds each thing that could be wrong with one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from faults.deployment import deployed
from faults.invariants import violations
from faults.label_load import LabelLoad
from faults.load import Load
from faults.reading import Message, Snapshot, read_everything
from streams.log import Append
from streams.topics import RECORDS

ACKNOWLEDGED: dict[tuple[int, int], bytes | None] = {}


@pytest.fixture(scope="module")
def honest(fault_broker):
    """What a decide worker and a label worker made of a mixture of everything."""
    if not fault_broker.running:
        fault_broker.start()
    with deployed(fault_broker.address) as deployment:
        deployment.start("decide")
        deployment.start("labels")
        load, labels = Load(deployment, seed=1, poison=0.1), LabelLoad(deployment, seed=1)
        load.batch(300)
        deployment.wait_done()
        labels.batch(deployment.records(), 60)
        deployment.wait_done(labels=True)
        ACKNOWLEDGED.update(load.acknowledged)
        yield read_everything(fault_broker.address, deployment.prefix, deployment.partitions)
        load.close()
        labels.close()


def test_an_honest_log_has_nothing_wrong_and_a_bit_of_everything(honest):
    assert violations(honest, ACKNOWLEDGED) == []
    outcomes = {json.loads(m.value)["outcome"] for m in honest.of("receipts")}
    assert outcomes == {"decided", "duplicate", "conflict", "rejected"}
    assert {json.loads(m.value)["outcome"] for m in honest.of("label-receipts")} == {"accepted", "duplicate", "refused"}
    assert {json.loads(m.value)["source"]["topic"].split(".")[1] for m in honest.of("dead-letters")} == {
        "requests",
        "label-requests",
    }
    assert any(m.value is None for m in honest.of("requests"))


def _find(snapshot: Snapshot, topic: str, wanted: Callable[[dict], bool]) -> tuple[list[Message], int]:
    for messages in snapshot.topics[topic].values():
        for number, message in enumerate(messages):
            if message.value and wanted(json.loads(message.value)):
                return messages, number
    raise AssertionError(topic)


def _outcome(name: str) -> Callable[[dict], bool]:
    return lambda value: value.get("outcome") == name


def _any(value: dict) -> bool:
    return True


def _rewritten(snapshot: Snapshot, topic: str, wanted: Callable[[dict], bool], **changed: object) -> None:
    messages, at = _find(snapshot, topic, wanted)
    messages[at] = replace(messages[at], value=json.dumps({**json.loads(messages[at].value), **changed}).encode())


def _doubled(topic: str, wanted: Callable[[dict], bool] = _any) -> Callable[[Snapshot], None]:
    def doctor(snapshot: Snapshot) -> None:
        messages, at = _find(snapshot, topic, wanted)
        messages.append(replace(messages[at], offset=messages[-1].offset + 1))

    return doctor


def _dropped(topic: str, wanted: Callable[[dict], bool] = _any) -> Callable[[Snapshot], None]:
    def doctor(snapshot: Snapshot) -> None:
        messages, at = _find(snapshot, topic, wanted)
        del messages[at]

    return doctor


def _another_first(snapshot: Snapshot) -> None:
    """A duplicate that speaks of another decision, which exists."""
    messages, at = _find(snapshot, "receipts", _outcome("decided"))
    other = json.loads(messages[at].value)
    _rewritten(
        snapshot,
        "receipts",
        lambda v: v["outcome"] == "duplicate" and v["decision_id"] != other["decision_id"],
        decision_id=other["decision_id"],
        record_digest=other["record_digest"],
    )


def _edited_record(snapshot: Snapshot) -> None:
    messages, at = _find(snapshot, "records", _any)
    messages[at] = replace(messages[at], value=messages[at].value.replace(b'"verdict":"', b'"verdict":"X', 1))


def _another_time(snapshot: Snapshot) -> None:
    messages, at = _find(snapshot, "requests", lambda v: isinstance(v, dict) and v.get("request_id") is None)
    messages[at] = replace(messages[at], time_ms=messages[at].time_ms + 1)


def _request_with_other_bytes(snapshot: Snapshot) -> None:
    for messages in snapshot.topics["requests"].values():
        for at, message in enumerate(messages):
            if message.value and b'"intent":"late' in message.value:
                messages[at] = replace(message, value=message.value.replace(b'"intent":"late', b'"intent":"Late', 1))
                return
    raise AssertionError


def _position_behind(snapshot: Snapshot) -> None:
    snapshot.positions[("requests", 0)] -= 1


def _position_beyond(snapshot: Snapshot) -> None:
    snapshot.positions[("requests", 1)] = snapshot.ends[("requests", 1)] + 1


def _label_position_behind(snapshot: Snapshot) -> None:
    snapshot.positions[("label-requests", 0)] = 0


def _out_of_order(snapshot: Snapshot) -> None:
    messages = snapshot.topics["receipts"][0]
    messages[3], messages[4] = replace(messages[4], offset=messages[3].offset), replace(
        messages[3], offset=messages[4].offset
    )


def _version_twice(snapshot: Snapshot) -> None:
    _rewritten(snapshot, "labels", lambda v: v["version"] == 5, version=4)


def _key_of_another(snapshot: Snapshot) -> None:
    messages = snapshot.topics["records"][0]
    messages[0] = replace(messages[0], key=messages[1].key)


def _dead_letter_with_other_bytes(snapshot: Snapshot) -> None:
    _rewritten(snapshot, "dead-letters", lambda v: v["payload_base64"] != "", payload_base64="eA==")


def _hidden_end(snapshot: Snapshot) -> None:
    snapshot.hidden.append(("receipts", 1))


def _label_of_nothing(snapshot: Snapshot) -> None:
    """A label that was accepted on a decision of which there is no record: here, a record taken away."""
    labelled = json.loads(snapshot.of("labels")[0].value)["decision_id"]
    messages, at = _find(snapshot, "records", lambda v: v["decision_id"] == labelled)
    del messages[at]
    for messages in snapshot.topics["receipts"].values():
        messages[:] = [m for m in messages if labelled.encode() not in m.value]


DOCTORS: dict[str, tuple[Callable[[Snapshot], None], str]] = {
    "a record twice": (_doubled("records"), "is there 2 times"),
    "a record lost": (_dropped("records"), "no such record"),
    "a record edited": (_edited_record, "not those that its digest seals"),
    "a record under another key": (_key_of_another, "is there 2 times"),
    "a record that nobody was told of": (_dropped("receipts", _outcome("decided")), "no receipt says that it was decided"),
    "a decided receipt twice": (_doubled("receipts", _outcome("decided")), ": 2 receipts"),
    "a duplicate's receipt lost": (_dropped("receipts", _outcome("duplicate")), ": no receipt"),
    "a rejection's receipt lost": (_dropped("receipts", _outcome("rejected")), ": no receipt"),
    "a duplicate of another decision": (_another_first, "its receipt says ('duplicate'"),
    "a conflict called a duplicate": (
        lambda s: _rewritten(s, "receipts", _outcome("conflict"), outcome="duplicate"),
        "its receipt says ('duplicate'",
    ),
    "a retry decided again": (
        lambda s: _rewritten(s, "receipts", _outcome("duplicate"), outcome="decided"),
        "its receipt says ('decided'",
    ),
    "a receipt of another body": (
        lambda s: _rewritten(s, "receipts", _outcome("decided"), body_digest="sha256:0"),
        "body_digest is not of its bytes",
    ),
    "a receipt with another record's digest": (
        lambda s: _rewritten(s, "receipts", _outcome("decided"), record_digest="sha256:0"),
        "its receipt says",
    ),
    "receipts out of order": (_out_of_order, "comes after"),
    "a request with other bytes": (_request_with_other_bytes, "not the bytes that were acknowledged"),
    "a request lost": (_dropped("requests"), "acknowledged, and not in the log"),
    "another time": (_another_time, "was appended at"),
    "a dead letter twice": (_doubled("dead-letters"), "rejected, and 2 dead letters"),
    "a dead letter lost": (_dropped("dead-letters"), "rejected, and 0 dead letters"),
    "a dead letter with other bytes": (_dead_letter_with_other_bytes, "not the bytes of"),
    "a position behind": (_position_behind, "the group stands at"),
    "a position beyond": (_position_beyond, "the group stands at"),
    "a position of labels behind": (_label_position_behind, "label-requests/0: the group stands at 0"),
    "an open transaction": (_hidden_end, "hides its end"),
    "a label event twice": (_doubled("labels"), "is there 2 times"),
    "a label event lost": (_dropped("labels"), "has version"),
    "a version twice": (_version_twice, "has version 4"),
    "a label's receipt lost": (_dropped("label-receipts"), ": 0 receipts"),
    "a label's receipt twice": (_doubled("label-receipts"), ": 2 receipts"),
    "a label accepted twice": (
        lambda s: _rewritten(s, "label-receipts", _outcome("duplicate"), outcome="accepted"),
        "was accepted twice",
    ),
    "a label refused that has an event": (
        lambda s: _rewritten(s, "label-receipts", _outcome("accepted"), outcome="refused"),
        "refused, with version",
    ),
    "a label on nothing": (_label_of_nothing, "there is no such decision"),
}


@pytest.mark.parametrize("what", DOCTORS)
def test_it_finds(honest, what):
    doctor, found = DOCTORS[what]
    snapshot = copy.deepcopy(honest)
    doctor(snapshot)
    wrong = violations(snapshot, ACKNOWLEDGED)
    assert any(found in text for text in wrong), wrong or "nothing found"


def test_it_finds_a_record_written_twice_on_a_real_log(fault_broker):
    """Read from the broker, not from a doctored copy: compaction is held off, so a double write can't hide."""
    with deployed(fault_broker.address) as deployment:
        deployment.started("decide")
        load = Load(deployment, seed=2)
        load.batch(50)
        deployment.wait_done()
        record = deployment.records()[0]
        deployment.log.append([Append(RECORDS, record.value, record.key, record.partition)])
        snapshot = read_everything(fault_broker.address, deployment.prefix, deployment.partitions)
        assert violations(snapshot, load.acknowledged) == [f"record {record.key.decode()} is there 2 times"]
        load.close()
