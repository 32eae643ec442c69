"""Control over a real broker: policies and kill switches take hold between batches, and never late or by halves."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from conftest_e2e import refund
from faults.deployment import wait_until
from faults.reading import read_to_end
from inside import Inside
from live_deployment import POLICY, TIMEOUT_S, Live, environment, living
from servers.kafka import java_broker

from lumyn import sdk, wiring
from schemas.ids import time_ms_of
from streams.control import control_append
from streams.kafka.topics import create_topics
from streams.log import Append

PARTITIONS = 4


@pytest.fixture(scope="module")
def own(kafka: str) -> Iterator[Live]:
    """Two workers over four partitions, whose control a test may change; it leaves no switch on."""
    with living(kafka, partitions=PARTITIONS) as deployment:
        deployment.use_policy(POLICY)
        workers = [deployment.start("decide", "one"), deployment.start("decide", "two")]
        for worker in workers:
            worker.wait_for("worker_started")
        yield deployment


@pytest.fixture
def command(own: Live, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inside]:
    """The `lumyn` command beside the own deployment; switches are off again afterwards."""
    monkeypatch.chdir(tmp_path)
    with environment(LUMYN_KAFKA=own.address, LUMYN_PREFIX=own.prefix, LUMYN_TENANT=tenant, LUMYN_ACTOR="oncall"):
        command = Inside(tmp_path)
        yield command
        for switch in command.json("kill-switch", "status", "--json"):
            command.run("kill-switch", "off", switch["switch_id"])
        wiring.close_homes()


def decided(own: Live, tenant: str, **more: Any) -> dict[str, Any]:
    return dict(sdk.decide(refund(100, **more), own.config(tenant)))


# scopes


def test_a_switch_denies_what_is_in_its_scope_and_nothing_else(own: Live, command: Inside, tenant: str) -> None:
    payout = {**refund(100), "action": {"type": "payout", "amount": {"value": 100, "currency": "USD"}}}
    on = command.json("kill-switch", "on", "--action-type", "refund", "--tenant", tenant, "--why", "double refunds", "--json")
    until(lambda: decided(own, tenant)["verdict"] == "DENY")
    for number in range(8):  # every partition, both workers
        record = decided(own, tenant, request_id=f"r-{number}")
        assert record["reason_codes"] == ["KILL_SWITCH"]
        assert [s["switch_id"] for s in record["control"]["switches"]] == [on["switch_id"]]
        assert record["control"]["switches"][0]["why"] == "double refunds"
    assert sdk.decide(payout, own.config(tenant))["verdict"] == "ALLOW"
    assert decided(own, f"{tenant}-b")["verdict"] == "ALLOW"
    assert "Kill switch" in command.run("explain", record["decision_id"]).stdout
    command.run("kill-switch", "off", on["switch_id"], "--why", "fixed")
    until(lambda: decided(own, tenant)["verdict"] == "ALLOW")


@pytest.mark.parametrize("scope", [("--everything",), ("--policy", "refunds"), ("--tenant", "TENANT")], ids=["everything", "policy", "tenant"])
def test_other_scopes_of_a_switch(own: Live, command: Inside, tenant: str, scope: tuple[str, ...]) -> None:
    options = [tenant if word == "TENANT" else word for word in scope]
    command.run("kill-switch", "on", *options, "--why", "stop")
    until(lambda: decided(own, tenant)["reason_codes"] == ["KILL_SWITCH"])


def test_a_policy_takes_hold_and_is_rolled_back_without_a_restart(own: Live, command: Inside, tenant: str) -> None:
    assert decided(own, tenant)["policy"]["version"] == "4.1.0"
    command.write("newer.yml", POLICY.replace("version: 4.1.0", "version: 4.2.0").replace("lte: 250", "lte: 50"))
    command.run("policy", "publish", "newer.yml")
    assert decided(own, tenant)["policy"]["version"] == "4.1.0", "published is not active"
    command.run("policy", "activate", "refunds@4.2.0")
    until(lambda: decided(own, tenant)["policy"]["version"] == "4.2.0")
    assert decided(own, tenant)["reason_codes"] == ["NO_RULE_MATCHED"]
    command.run("policy", "rollback", "refunds")
    until(lambda: decided(own, tenant)["policy"]["version"] == "4.1.0")


def until(reached: Any) -> None:
    wait_until(reached, TIMEOUT_S, "the change of control never took hold", every_s=0.05)


# containment


@contextmanager
def load(own: Live, tenant: str) -> Iterator[None]:
    """Requests on every partition, as fast as the broker takes small batches, from a client of its own."""
    stop = threading.Event()
    log = own.open_log()

    def send() -> None:
        number = 0
        while not stop.wait(0.005):
            bodies = [json.dumps(refund(100, tenant=tenant, request_id=f"l-{number}-{p}")).encode() for p in range(8)]
            number += 1
            for problem in log.send_many([Append("requests", body, key_of(body)) for body in bodies]):
                assert not isinstance(problem, Exception), problem

    def key_of(body: bytes) -> bytes:
        return f"{tenant}/{json.loads(body)['request_id']}".encode()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        log.close()


def test_the_containment_of_a_real_switch_is_what_the_log_says(own: Live, command: Inside, tenant: str) -> None:
    """Under load, by the command; the figure is compared with a stranger's reading of the topics."""
    with load(own, tenant):
        wait_until(lambda: len(own.records_of(tenant)) >= 200, TIMEOUT_S, own.tails, every_s=0.2)
        on = command.json("kill-switch", "on", "--action-type", "refund", "--why", "double refunds", "--json")

        def partitions_that_deny() -> set[int]:
            return {r["log"]["partition"] for r in own.records_of(tenant) if r["reason_codes"] == ["KILL_SWITCH"]}

        wait_until(lambda: len(partitions_that_deny()) == PARTITIONS, TIMEOUT_S, own.tails, every_s=0.2)
    own.wait_decided()
    (status,) = command.json("kill-switch", "status", "--json")
    assert status["switch_id"] == on["switch_id"]

    (switched,) = [
        m for m in read_to_end(own.address, {(own.name("control"), 0): 0}) if on["switch_id"].encode() in (m.value or b"")
    ]
    assert time_ms_of(status["at"]) == switched.time_ms
    places = {(own.name("records"), partition): 0 for partition in range(PARTITIONS)}
    later = [(m, json.loads(m.value or b"")) for m in read_to_end(own.address, places) if m.time_ms > switched.time_ms]
    without = [(m.time_ms, r["decision_id"]) for m, r in later if r["verdict"] != "DENY" and r["tenant"] == tenant]
    figure = status["containment"]
    assert figure["without"] == len(without)
    assert figure["with_it"] == len([r for _, r in later if r["reason_codes"] == ["KILL_SWITCH"]]) > 0
    expected = (max(without)[0] - switched.time_ms) / 1000 if without else None
    assert figure["seconds"] == expected
    assert expected is None or expected < 10, "a worker that has not heard of a switch for so long abstains"
    told = command.run("kill-switch", "status").stdout
    assert f"{on['switch_id']} action_type=refund since {status['at']} by oncall: double refunds" in told
    assert ("contained in " if without else "contained at once: ") in told


# read to its end before the first decision


def test_a_worker_decides_nothing_on_an_older_state_than_there_is(kafka: str, tenant: str) -> None:
    """Thousands of events, the switch last of all, and requests that wait: the first is denied by it."""
    with living(kafka, partitions=2) as deployment:
        deployment.use_policy(POLICY)
        events = []
        for number in range(2500):
            scope = {"tenant": f"other-{number % 50}"}
            switch = {"actor": "x", "why": "", "switch_id": f"s-{number}", "scope": scope}
            events += [
                Append("control", json.dumps({"type": "kill_switch_on", **switch}).encode()),
                control_append({"type": "kill_switch_off", "actor": "x", "switch_id": f"s-{number}"}),
            ]
        assert not [m for m in deployment.log.send_many(events) if isinstance(m, Exception)]
        last = {"type": "kill_switch_on", "actor": "x", "why": "", "switch_id": "last", "scope": {"action_type": "refund"}}
        deployment.log.append([control_append(last)])
        deployment.submit(*(refund(100, request_id=f"r-{number}") for number in range(100)), tenant=tenant)
        deployment.start("decide", "one")
        records = deployment.wait_records(tenant, 100)
        assert {r["control"]["version"] for r in records} == {5003}
        assert {tuple(r["reason_codes"]) for r in records} == {("KILL_SWITCH",)}


# cut off from control


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A broker that can refuse one topic to everybody, and nothing else."""
    broker = java_broker(
        overrides={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        }
    )
    yield broker.address
    broker.close()


@contextmanager
def refused(address: str, topic: str) -> Iterator[None]:
    """Nobody may read the topic, or look where it ends."""
    admin = AdminClient({"bootstrap.servers": address})
    where = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL)
    rules = [
        AclBinding(*where, "User:*", "*", operation, AclPermissionType.DENY)
        for operation in (AclOperation.READ, AclOperation.DESCRIBE)
    ]
    for future in admin.create_acls(rules).values():
        future.result(timeout=TIMEOUT_S)
    try:
        yield
    finally:
        everything = AclBindingFilter(*where, None, None, AclOperation.ANY, AclPermissionType.ANY)
        for future in admin.delete_acls([everything]).values():
            future.result(timeout=TIMEOUT_S)


def test_a_worker_that_is_cut_off_from_control_abstains_until_it_is_back(guarded: str, tenant: str) -> None:
    with living(guarded, partitions=1, runtime={"control_max_staleness_s": 3.0}) as deployment:
        deployment.use_policy(POLICY)
        worker = deployment.started("decide")
        config = deployment.config(tenant)
        until(lambda: sdk.decide(refund(100), config)["verdict"] == "ALLOW")
        with refused(guarded, deployment.name("control")):
            until(lambda: worker.events("control_unreachable"))
            until(lambda: sdk.decide(refund(100), config)["verdict"] != "ALLOW")
            (record,) = [r for r in deployment.records_of(tenant) if r["verdict"] != "ALLOW"][:1]
            assert (record["verdict"], record["reason_codes"]) == ("ABSTAIN", ["CONTROL_STALE"])
            assert record["control"]["version"] == 2, "the last state that it knew"
        deployment.log.append(
            [control_append({"type": "kill_switch_on", "actor": "x", "why": "", "switch_id": uuid.uuid4().hex, "scope": {}})]
        )
        until(lambda: sdk.decide(refund(100), config)["reason_codes"] == ["KILL_SWITCH"])
        assert worker.alive


def test_a_control_topic_that_was_made_anew_is_read_from_its_beginning(kafka: str, tenant: str) -> None:
    """What the old one said is over, and what the new one says counts: it must not be taken for what is known."""
    with living(kafka, partitions=1, runtime={"control_max_staleness_s": 3.0}) as deployment:
        deployment.use_policy(POLICY)
        worker = deployment.started("decide")
        config = deployment.config(tenant)
        until(lambda: sdk.decide(refund(100), config)["verdict"] == "ALLOW")
        name = deployment.name("control")
        deployment.log.client.delete_topics([name])
        until(lambda: name not in deployment.log.client.topics())
        create_topics(deployment.log.client, deployment.prefix, 1)
        deployment.log.append([control_append({"type": "kill_switch_on", "actor": "x", "why": "", "switch_id": "k", "scope": {}})])
        until(lambda: sdk.decide(refund(100), config)["reason_codes"] == ["KILL_SWITCH"])
        assert worker.events("control_topic_replaced") and worker.alive
