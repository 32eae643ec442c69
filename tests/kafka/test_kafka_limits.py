"""What is as large, deep or broken as it can be: decided, abstained from or put aside, and never in the way."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from conftest_e2e import refund
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, Live, living
from servers.kafka import kafka_jars

from lumyn import LumynConfig, sdk
from schemas.canonical import encode
from schemas.errors import BadRequest
from schemas.limits import MAX_BODY_BYTES, MAX_DEPTH, MAX_RECORD_BYTES
from schemas.record import record_digest
from schemas.request import parse_request
from streams.partitioner import partition_for


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


def filled(body: dict[str, Any], size: int) -> dict[str, Any]:
    """The body with an evidence text that brings its canonical form to a size in bytes."""
    grown = {**body, "evidence": {**body["evidence"], "pad": ""}}
    grown["evidence"]["pad"] = "x" * (size - len(parse_request(grown).canonical))
    return grown


# as large as can be


def test_a_request_as_large_as_accepted_is_decided_and_its_record_is_whole(config: LumynConfig, tenant: str) -> None:
    asked = filled(refund(100, tenant=tenant, request_id="large"), MAX_BODY_BYTES)
    record = sdk.decide(asked, config)
    assert (record["verdict"], len(encode(record["request"]))) == ("ALLOW", MAX_BODY_BYTES)
    assert record_digest(record) == record["record_digest"]
    assert sdk.show(record["decision_id"], config)["record"] == record


def test_a_request_as_deep_as_accepted_is_decided(config: LumynConfig) -> None:
    asked = refund(100, evidence={"chargeback_risk": 0.1, "deep": nested(MAX_DEPTH - 3)})
    record = sdk.decide(asked, config)
    assert record["request"]["evidence"]["deep"] == nested(MAX_DEPTH - 3)
    label = sdk.label(record["decision_id"], "success", summary="right", config=config)
    assert label["label"] == "success", "its label holds its facts"


def test_a_request_of_very_many_facts_is_decided_remembered_and_recalled(config: LumynConfig) -> None:
    facts = {f"fact_{number}": number % 7 for number in range(12_000)}
    first = sdk.decide(refund(100, evidence={"chargeback_risk": 0.1, **facts}), config)
    sdk.label(first["decision_id"], "failure", summary="wrong", config=config)
    second = sdk.decide(refund(100, evidence={"chargeback_risk": 0.1, **facts}), config)
    assert second["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"]


def test_a_batch_of_the_largest_requests_goes_through_in_several_transactions(
    config: LumynConfig, tenant: str, live: Live
) -> None:
    batch = [filled(refund(n + 1, tenant=tenant, request_id=f"r-{n}"), MAX_BODY_BYTES) for n in range(48)]
    results = sdk.decide_many(batch, config)
    assert [r["request"]["action"]["amount"]["value"] for r in results] == list(range(1, 49))  # type: ignore[index]
    assert len(live.records_of(tenant)) == 48


# records too large, evaluations that raise


OBLIGING = """
policy: obliging
version: 1.0.0
rules:
  - id: R_OBLIGE
    if: {{amount: {{gte: 0}}}}
    then: {{verdict: ALLOW, reason_codes: [OK], obligations: [{{text: "{text}"}}]}}
"""


@pytest.fixture(scope="module")
def faulty(kafka: str) -> Iterator[Live]:
    """A worker whose engine raises for some requests, and a policy whose records are as large as policies allow."""
    with living(kafka, partitions=1) as deployment:
        deployment.use_policy(POLICY)
        deployment.use_policy(OBLIGING.format(text="y" * (MAX_RECORD_BYTES - 100_000)))
        deployment.start_raising("decide").wait_for("worker_started")
        yield deployment


def test_a_record_at_the_limit_is_kept_and_one_beyond_it_abstains(faulty: Live, tenant: str) -> None:
    config = faulty.config(tenant)
    asked = [refund(1, tenant=tenant, policy="obliging"), filled(refund(2, tenant=tenant, policy="obliging"), 150_000)]
    room = MAX_RECORD_BYTES - len(encode(sdk.decide(asked[0], config)))
    asked.append(filled(asked[0], len(parse_request(asked[0]).canonical) + room))
    small, beyond, at_limit = sdk.decide_many(asked, config)
    assert small["verdict"] == "ALLOW"  # type: ignore[index]
    assert len(encode(at_limit)) == MAX_RECORD_BYTES and at_limit["verdict"] == "ALLOW"  # type: ignore[index]
    assert (beyond["verdict"], beyond["reason_codes"]) == ("ABSTAIN", ["INTERNAL_ERROR"])  # type: ignore[index]
    assert beyond["request"]["action"]["amount"]["value"] == 2 and beyond["obligations"] == []  # type: ignore[index]
    assert record_digest(beyond) == beyond["record_digest"]  # type: ignore[arg-type,index]


def test_an_evaluation_that_raises_abstains_and_the_worker_goes_on(faulty: Live, tenant: str) -> None:
    config = faulty.config(tenant)
    batch = [refund(n, evidence={"boom": 1} if n % 3 == 0 else {}, policy="refunds") for n in range(1, 13)]
    results = sdk.decide_many(batch, config)
    codes = [r["reason_codes"] == ["INTERNAL_ERROR"] for r in results]  # type: ignore[index]
    assert codes == [n % 3 == 0 for n in range(1, 13)]
    assert {r["verdict"] for r, broken in zip(results, codes, strict=True) if broken} == {"ABSTAIN"}  # type: ignore[index]
    assert faulty.workers[0].alive
    assert sdk.decide(refund(1, policy="refunds"), config)["reason_codes"] != ["INTERNAL_ERROR"]
    again = sdk.decide(refund(3, evidence={"boom": 1}, policy="refunds", request_id="b"), config)
    assert sdk.decide(refund(3, evidence={"boom": 1}, policy="refunds", request_id="b"), config) == again


# where messages land


KEYS = [f"default/req-{number}" for number in range(40)] + ["acme/日本-🚀", "t/" + "x" * 256, "a/b/c"]


def test_a_plain_client_s_keys_land_where_our_partitioner_says(live: Live) -> None:
    """librdkafka's `murmur2_random`, which promises to be the Java client's."""
    producer = Producer({"bootstrap.servers": live.address, "partitioner": "murmur2_random"})
    landed: dict[str, int] = {}

    def note(error: Any, message: Any) -> None:
        assert error is None, error
        landed[message.key().decode()] = message.partition()

    for key in KEYS:
        producer.produce(live.name("shadow"), b"{}", key.encode(), on_delivery=note)
    assert producer.flush(TIMEOUT_S) == 0
    assert landed == {key: partition_for(key.encode(), live.partitions) for key in KEYS}
    assert set(landed.values()) == set(range(live.partitions))


def test_the_java_client_s_keys_land_there_too(live: Live) -> None:
    jars = kafka_jars()
    if jars is None:
        pytest.skip("no Java client: install Java and Maven")
    topic = live.name("shadow")
    before = [live.log.end("shadow", partition) for partition in range(live.partitions)]
    command = ["java", "-Xmx128m", "-cp", f"{jars}/*", "org.apache.kafka.tools.ConsoleProducer",
               "--bootstrap-server", live.address, "--topic", topic,
               "--property", "parse.key=true", "--property", "key.separator=|"]  # fmt: skip
    lines = "".join(f"{key}|java\n" for key in KEYS)
    done = subprocess.run(command, input=lines.encode(), capture_output=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr.decode()
    landed = {
        message.key.decode(): partition
        for partition in range(live.partitions)
        for message in live.log.read("shadow", partition, before[partition])
        if message.key is not None and message.value == b"java"
    }
    assert landed == {key: partition_for(key.encode(), live.partitions) for key in KEYS}


def test_what_the_gateway_sends_lands_there_too(live: Live, config: LumynConfig, tenant: str) -> None:
    places = {n: sdk.submit(refund(1, request_id=f"r-{n}"), config)["partition"] for n in range(20)}
    assert places == {n: partition_for(f"{tenant}/r-{n}".encode(), live.partitions) for n in range(20)}


def misplaced(live: Live, tenant: str, request_id: str) -> tuple[bytes, int]:
    """A request as a foreign producer with another partitioner would send it: its bytes, and a wrong partition."""
    body = json.dumps(refund(100, tenant=tenant, request_id=request_id)).encode()
    right = partition_for(f"{tenant}/{request_id}".encode(), live.partitions)
    return body, (right + 1) % live.partitions


# dead letters


def letters_of(inside: Inside, source: dict[str, Any]) -> list[dict[str, Any]]:
    found = inside.json("dead-letters", "list", "--limit", 1000, "--json")
    return [letter for letter in found if letter["source"] == source]


def place_of(live: Live, message: Any) -> dict[str, Any]:
    return {"topic": live.name(message.topic), "partition": message.partition, "offset": message.offset}


def test_a_misplaced_request_id_is_put_aside_and_sent_again_to_its_right_place(
    live: Live, inside: Inside, config: LumynConfig, tenant: str
) -> None:
    body, wrong = misplaced(live, tenant, "m-1")
    source = place_of(live, live.put("requests", body, b"their own key", wrong))
    live.wait_decided()
    (letter,) = letters_of(inside, source)
    assert letter["reason"] == "bad_request" and "its request_id belongs to partition" in letter["detail"]
    assert live.records_of(tenant) == []
    (told,) = inside.json("dead-letters", "resend", letter["number"], "--json")
    (record,) = live.records_of(tenant)
    assert (told["outcome"], told["decision_id"], told["verdict"]) == ("decided", record["decision_id"], "ALLOW")
    assert record["log"]["partition"] == partition_for(f"{tenant}/m-1".encode(), live.partitions)
    stored = live.log.read("requests", record["log"]["partition"], record["log"]["offset"], 1)[0]
    assert stored.value == body, "byte for byte"
    assert sdk.decide(json.loads(body), config) == record, "a retry finds it"
    (letter,) = letters_of(inside, source)
    assert letter["resent"][0].endswith(f"sent to {told['place']} by oncall")


POISON = [b"", b"not json", b"\xff\xfe\x00", b'{"a": NaN}', b"[" * 100_000, b"x" * (2 * MAX_BODY_BYTES)]


def test_poison_is_put_aside_byte_for_byte_and_stops_nobody(live: Live, inside: Inside, config: LumynConfig) -> None:
    sent = [live.put("requests", payload, b"some key", 0) for payload in POISON]
    record = sdk.decide(refund(1), config)
    live.wait_decided()
    for message, payload in zip(sent, POISON, strict=True):
        (letter,) = letters_of(inside, place_of(live, message))
        assert letter["key"] == "some key" and letter["bytes"] == len(payload)
        shown = inside.json("dead-letters", "show", letter["number"], "--json")
        assert base64.b64decode(shown["payload_base64"]) == payload
        inside.refused("dead-letters", "resend", letter["number"], code=2)
    assert record["verdict"] == "ALLOW"
    assert all(worker.alive for worker in live.workers)


def test_a_corrected_body_is_decided(live: Live, inside: Inside, tenant: str) -> None:
    broken = live.put("requests", b'{"subject": {"type": "user", "id": "usr_1"},}', None, 1)
    live.wait_decided()
    (letter,) = letters_of(inside, place_of(live, broken))
    inside.write("fixed.json", json.dumps(refund(100, request_id="fixed")))
    (told,) = inside.json("dead-letters", "resend", letter["number"], "--from-file", "fixed.json", "--json")
    (record,) = live.records_of(tenant)
    assert (told["outcome"], told["decision_id"], record["request_id"]) == ("decided", record["decision_id"], "fixed")


def test_forced_poison_is_rejected_again_and_that_is_told(live: Live, inside: Inside) -> None:
    poison = live.put("requests", b"still not json", None, 2)
    live.wait_decided()
    (letter,) = letters_of(inside, place_of(live, poison))
    done = inside.run("dead-letters", "resend", letter["number"], "--force", "--json", code=2)
    (told,) = json.loads(done.stdout)
    assert told["outcome"] == "rejected" and "was rejected again, as letter" in told["error"]["message"]


def test_a_label_request_that_is_none_is_put_aside_and_sent_again_corrected(
    live: Live, inside: Inside, config: LumynConfig, tenant: str
) -> None:
    record = sdk.decide(refund(100), config)
    asked = {"event_id": "e-1", "decision_id": record["decision_id"], "tenant": tenant, "type": "label",
             "label": "failure", "summary": "x", "actor": "bot"}  # fmt: skip
    broken = live.put("label-requests", json.dumps({**asked, "label": "bad"}).encode(), b"k")
    live.wait_done(TIMEOUT_S, labels=True)
    (letter,) = letters_of(inside, place_of(live, broken))
    assert letter["reason"] == "bad_input"
    assert "would be rejected again" in inside.refused("dead-letters", "resend", letter["number"], code=2)
    inside.write("fixed.json", json.dumps(asked))
    (told,) = inside.json("dead-letters", "resend", letter["number"], "--from-file", "fixed.json", "--json")
    assert told["outcome"] == "accepted"
    assert [event["event_id"] for event in sdk.show(record["decision_id"], config)["events"]] == ["e-1"]


def test_a_caller_of_a_rejected_request_gets_the_reason_and_the_letter_s_number(config: LumynConfig, inside: Inside) -> None:
    with pytest.raises(BadRequest) as caught:
        sdk.decide(refund(1, policy="nowhere"), config)
    number = int(str(caught.value.help).split()[-1].rstrip("`"))
    assert inside.json("dead-letters", "show", number, "--json")["reason"] == "bad_request"


def test_a_session_timeout_that_no_group_takes_ends_the_worker_with_the_reason(kafka: str) -> None:
    with living(kafka, partitions=1, runtime={"session_timeout_s": 0.5, "heartbeat_s": 0.1}) as deployment:
        worker = deployment.start("decide")
        assert worker.wait(TIMEOUT_S) == 2
        assert "session_timeout_s is 0.5, and the brokers take" in worker.text()
