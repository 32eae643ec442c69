"""The SDK over a real broker, with workers in processes of their own that decide."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from conftest_e2e import refund
from live_deployment import POLICY, Live

from lumyn import LumynConfig, LumynError, aio, sdk
from schemas.errors import BadConfig, BadRequest, NotFound, RequestConflict


def test_a_decision_is_the_record_in_the_log(live: Live, config: LumynConfig, tenant: str) -> None:
    record = sdk.decide(refund(200, 0.91, request_id="r-1"), config)
    assert (record["verdict"], record["reason_codes"]) == ("DENY", ["CHARGEBACK_RISK_BLOCK"])
    assert (record["tenant"], record["request_id"]) == (tenant, "r-1")
    assert live.records_of(tenant) == [record]
    (receipt,) = live.receipts_of(tenant)
    assert receipt["outcome"] == "decided"
    assert (receipt["decision_id"], receipt["record_digest"]) == (record["decision_id"], record["record_digest"])
    assert receipt["source"] == record["log"]


def test_a_batch_keeps_its_order_and_has_errors_in_their_places(config: LumynConfig) -> None:
    batch = [refund(1), {"no": 1}, refund(2, request_id="b"), b"not json", refund(3, request_id="b"), "[]", refund(4)]
    results = sdk.decide_many(batch, config)
    kinds = [type(r).__name__ if isinstance(r, LumynError) else r["request"]["action"]["amount"]["value"] for r in results]
    assert kinds == [1, "BadRequest", 2, "BadJson", "RequestConflict", "BadRequest", 4]
    assert sdk.decide_many([], config) == []


def test_a_large_batch_keeps_its_order_over_all_partitions(config: LumynConfig, tenant: str, live: Live) -> None:
    results = sdk.decide_many((refund(n + 1, request_id=f"r-{n}") for n in range(700)), config)
    assert [r["request"]["action"]["amount"]["value"] for r in results] == list(range(1, 701))  # type: ignore[index]
    assert {r["log"]["partition"] for r in results} == {0, 1, 2}  # type: ignore[index]
    assert len(live.records_of(tenant)) == 700


def test_what_was_submitted_is_decided_by_the_workers(live: Live, config: LumynConfig, tenant: str) -> None:
    places = [sdk.submit(refund(n + 1, request_id=f"r-{n}"), config) for n in range(5)]
    records = sorted(live.wait_records(tenant, 5), key=lambda record: record["request_id"])
    assert [record["log"] for record in records] == places
    assert sdk.drain(config) == 0, "here the workers decide"
    again = sdk.decide(refund(1, request_id="r-0"), config)
    assert again["log"] == places[0]
    with pytest.raises(BadRequest):
        sdk.submit({"no": 1}, config)


def test_a_label_changes_the_next_similar_decision(config: LumynConfig, tenant: str) -> None:
    """LUMYN_QDRANT is unset: each worker keeps the exact store by itself, caught up on the labels first."""
    first = sdk.decide(refund(100), config)
    assert (first["verdict"], first["memory"]["available"]) == ("ALLOW", True)
    event = sdk.label(first["decision_id"], "failure", summary="fraud after all", config=config)
    assert (event["label"], event["decision_id"], event["tenant"]) == ("failure", first["decision_id"], tenant)
    for amount in (100, 120):  # whatever worker has the partition
        second = sdk.decide(refund(amount), config)
        assert second["verdict"] == "DENY"
        assert second["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_BLOCK"]
        assert second["risk_signals"]["failure_similarity"]["top_k"][0]["memory_id"] == first["decision_id"]
        assert second["memory"]["version"] >= event["version"]
    sdk.label(first["decision_id"], "retracted", summary="mixed up", config=config)
    assert sdk.decide(refund(100), config)["verdict"] == "ALLOW"


def test_show_gives_record_and_events(config: LumynConfig) -> None:
    record = sdk.decide(refund(300), config)
    label = sdk.label(record["decision_id"], "success", summary="right", config=config)
    note = sdk.label(record["decision_id"][:20], "note", summary="looked at", config=config)
    shown = sdk.show(record["decision_id"], config)
    assert shown == {"record": record, "events": [label, note]}
    assert "was sent to a person" in sdk.explain(record["decision_id"], config)
    with pytest.raises(NotFound):
        sdk.show("01JBQX8P2M4T5V6W7X8Y9Z0A1B", config)


def test_a_pack_replays_to_the_same_verdict(config: LumynConfig, tmp_path: Path) -> None:
    record = sdk.decide(refund(300), config)
    pack = sdk.export(record["decision_id"], tmp_path / "one.zip", config=config)
    replayed = sdk.replay(pack, config=config)
    assert (replayed["matches"], replayed["verdict"]) == (True, "ESCALATE")
    (tmp_path / "newer.yml").write_text(POLICY.replace("gt: 250", "gt: 400").replace("lte: 250", "lte: 400"))
    assert sdk.replay(pack, policy=tmp_path / "newer.yml", config=config)["verdict"] == "ALLOW"


def test_the_async_twins_do_the_same(config: LumynConfig, tmp_path: Path) -> None:
    async def story() -> None:
        records = await asyncio.gather(*(aio.decide(refund(n + 1), config) for n in range(10)))
        assert [r["request"]["action"]["amount"]["value"] for r in records] == list(range(1, 11))
        many = await aio.decide_many([refund(20), {"no": 1}, refund(21)], config)
        assert [isinstance(one, LumynError) for one in many] == [False, True, False]
        place = await aio.submit(refund(30, request_id="s"), config)
        assert (await aio.decide(refund(30, request_id="s"), config))["log"] == place
        name = records[0]["decision_id"]
        event = await aio.label(name, "failure", summary="x", config=config)
        assert (await aio.show(name, config))["events"] == [event]
        pack = await aio.export(name, tmp_path / "one.zip", config=config)
        assert (await aio.replay(pack, memory="recorded", config=config))["matches"] is True

    asyncio.run(story())


def test_tenants_never_meet(live: Live, config: LumynConfig, tenant: str) -> None:
    other = live.config(f"{tenant}-b")
    mine = sdk.decide(refund(100, request_id="same"), config)
    theirs = sdk.decide(refund(200, request_id="same"), other)
    assert mine["decision_id"] != theirs["decision_id"], "a request_id is the tenant's own"
    sdk.label(mine["decision_id"], "failure", summary="x", config=config)
    assert sdk.decide(refund(100), other)["risk_signals"]["failure_similarity"]["score"] == 0
    for look in (sdk.show, sdk.explain):
        with pytest.raises(NotFound):
            look(mine["decision_id"], other)
    with pytest.raises(NotFound):
        sdk.label(mine["decision_id"], "failure", summary="x", config=other)


def test_a_label_worker_refuses_another_tenant_s_label_by_itself(live: Live, config: LumynConfig, tenant: str) -> None:
    """Who writes to the topic without the SDK's own check finds the same answer in the receipt."""
    record = sdk.decide(refund(100), config)
    asked = {"event_id": "e-1", "decision_id": record["decision_id"], "tenant": f"{tenant}-b", "type": "label",
             "label": "failure", "summary": "", "actor": "x"}  # fmt: skip
    live.put("label-requests", json.dumps(asked).encode(), f"{tenant}-b/e-1".encode())
    live.wait_done(60, labels=True)
    (receipt,) = [r for r in live.values("label-receipts") if r["tenant"] == f"{tenant}-b"]
    assert (receipt["outcome"], receipt["reason"]) == ("refused", "not_found")
    assert sdk.show(record["decision_id"], config)["events"] == []


def test_a_label_s_retry_is_applied_once_and_another_body_is_refused(config: LumynConfig) -> None:
    record = sdk.decide(refund(100), config)
    one = sdk.label(record["decision_id"], "failure", summary="x", event_id="e", config=config)
    assert sdk.label(record["decision_id"], "failure", summary="x", event_id="e", config=config) == one
    with pytest.raises(LumynError, match="was used before for another label"):
        sdk.label(record["decision_id"], "success", summary="x", event_id="e", config=config)
    assert sdk.show(record["decision_id"], config)["events"] == [one]


def test_retries_are_the_first_record_and_another_body_is_a_conflict(live: Live, config: LumynConfig, tenant: str) -> None:
    one = refund(1, request_id="same")
    first, again = sdk.decide_many([one, one], config)
    assert again == first
    assert sdk.decide(json.dumps(one), config) == first
    assert sdk.decide({key: one[key] for key in reversed(one)}, config) == first, "the order of keys is no other body"
    with pytest.raises(RequestConflict, match=first["decision_id"]):  # type: ignore[index]
        sdk.decide(refund(2, request_id="same"), config)
    outcomes = sorted(receipt["outcome"] for receipt in live.receipts_of(tenant))
    assert outcomes == ["conflict", "decided", "duplicate", "duplicate", "duplicate"]
    assert len(live.records_of(tenant)) == 1
    assert sdk.decide(refund(1), config)["decision_id"] != sdk.decide(refund(1), config)["decision_id"]


def test_a_policy_that_is_not_the_active_one_is_refused_before_anything_is_sent(
    live: Live, config: LumynConfig, tenant: str, tmp_path: Path
) -> None:
    (tmp_path / "active.yml").write_text(POLICY)
    (tmp_path / "other.yml").write_text(POLICY.replace("gt: 250", "gt: 400"))
    (tmp_path / "strange.yml").write_text(POLICY.replace("policy: refunds", "policy: strange"))
    assert sdk.decide(refund(100), live.config(tenant, policy_path=tmp_path / "active.yml"))["verdict"] == "ALLOW"
    for name, said in (("other.yml", "`refunds@4.1.0` is active"), ("strange.yml", "none of that name is active")):
        with pytest.raises(BadConfig, match=said) as caught:
            sdk.decide(refund(100), live.config(tenant, policy_path=tmp_path / name))
        assert "lumyn policy activate" in str(caught.value.help)
    assert len(live.receipts_of(tenant)) == 1


def test_a_request_for_a_policy_that_is_not_active_is_rejected_with_the_reason(config: LumynConfig, live: Live) -> None:
    with pytest.raises(BadRequest, match="asks for policy `nowhere`, which is not active") as caught:
        sdk.decide(refund(1, policy="nowhere"), config)
    assert "lumyn dead-letters show" in str(caught.value.help)


def test_without_a_broker_a_call_ends_with_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from servers.kafka import free_port

    from schemas.errors import StorageUnavailable

    monkeypatch.chdir(tmp_path)
    (tmp_path / "lumyn.toml").write_text("[runtime]\nkafka_timeout_s = 1\n")
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(StorageUnavailable) as caught:
        sdk.decide(refund(1), LumynConfig(kafka=address, prefix="p", home=tmp_path / "home"))
    assert address in str(caught.value) and caught.value.exit_code == 4
