"""Encrypted subjects over Kafka: several processes share the keys, no topic holds what is personal, and it is forgotten."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import wait_until
from live_deployment import POLICY, TIMEOUT_S, Live, living
from servers.qdrant import find_server

from lumyn import LumynConfig, forgetting, sdk, wiring
from lumyn.checkpointing import home_chain
from schemas.errors import BadInput, Erased, OnHold
from streams.as_of import recall_again, was_recalled
from streams.erasures import erasures
from streams.local_log import wall_clock_ms
from streams.sealing import opened_record
from streams.subject_keys import Subject
from streams.sweep import Summary, verify_all
from streams.topics import TOPICS

ANN, BEN = "ann.zander@mail.example", "ben.yards@mail.example"
WORDS = (b"ann.zander", b"Philomena")


def asked(user: str = ANN, **more: Any) -> dict[str, Any]:
    body = refund(100, 0.1, user, **more)
    body["action"]["intent"] = "my grandmother Philomena broke it" if user == ANN else "it broke"
    return body


def settings_of(folder: Path) -> dict[str, str]:
    """What every process of a deployment is given: the key store that they share, and the master key."""
    return {
        "LUMYN_ENCRYPT_SUBJECTS": "true",
        "LUMYN_SUBJECT_KEYS": str(folder / "shared" / "subjects.db"),
        "LUMYN_MASTER_KEY": secrets.token_hex(32),
    }


def caller(live: Live, env: dict[str, str], **more: Any) -> LumynConfig:
    keys = {"subject_keys": env["LUMYN_SUBJECT_KEYS"], "master_key": env["LUMYN_MASTER_KEY"]}
    return live.config("default", encrypt_subjects=True, **keys, **more)


def personal_messages(live: Live) -> list[str]:
    """Where in the log something personal stands in clear."""
    found = []
    for topic in TOPICS:
        for partition in range(live.log.partitions(topic)):
            offset = 0
            while some := live.log.read(topic, partition, offset):
                found += [f"{topic}/{m.partition}/{m.offset}" for m in some if any(word in m.value for word in WORDS)]
                offset = some[-1].offset + 1
    return found


def personal_files(live: Live) -> list[str]:
    files = [path for path in live.folder.rglob("*") if path.is_file()]
    return [str(path.relative_to(live.folder)) for path in files if any(word in path.read_bytes() for word in WORDS)]


def test_several_processes_share_the_keys_and_forget_together(kafka: str, tmp_path: Path) -> None:
    env = settings_of(tmp_path)
    with living(kafka, partitions=2, env=env) as live:
        live.use_policy(POLICY)
        live.started("decide")
        live.started("labels")
        config = caller(live, env)
        first = sdk.decide(asked(request_id="ann-1"), config)
        assert first["request"]["subject"]["id"] == ANN
        assert sdk.decide(asked(request_id="ann-1"), config) == first, "a retry"
        with pytest.raises(BadInput, match="success"):
            sdk.label(first["decision_id"], "success", should="DENY", summary="Philomena", config=config)
        event = sdk.label(first["decision_id"], "failure", summary="Philomena wrote", event_id="e1", config=config)
        assert sdk.label(first["decision_id"], "failure", summary="Philomena wrote", event_id="e1", config=config) == event
        assert event["summary"] == "Philomena wrote"
        assert sdk.decide(asked(BEN), config)["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_ESCALATE"]
        assert personal_messages(live) == []

        home = wiring.open_home(config)
        whom = Subject("default", "user", ANN)
        forgetting.hold(home, whom, "case 7")
        with pytest.raises(OnHold, match="case 7"):
            forgetting.forget(home, whom, "asked")
        forgetting.release(home, whom, "closed")
        done = forgetting.forget(home, whom, "asked")
        assert (done.records, done.labels, done.memories, done.version) == (1, 1, 1, 4)
        assert sdk.decide(asked(BEN), config)["verdict"] == "ALLOW", "the worker's own memory is without it"
        assert personal_files(live) == []
        with pytest.raises(Erased):
            sdk.label(first["decision_id"], "success", config=config)
        assert sdk.show(first["decision_id"], config)["record"]["erased"] is True
        again = sdk.decide(asked(request_id="ann-2"), config)
        assert sdk.show(again["decision_id"], config)["record"] == again
        summary = Summary()
        found = list(verify_all(live.log, home_chain(home), summary, now_ms=wall_clock_ms()))
        assert [c for one in found for c in one.failed] == [] and summary.decisions == 4
        live.log.keys = home.log.keys
        summary = Summary()
        assert [c for one in verify_all(live.log, home_chain(home), summary, now_ms=wall_clock_ms()) for c in one.failed] == []
        assert (summary.erased, summary.sealed) == (1, 0)


def test_a_qdrant_server_forgets_too(kafka: str, tmp_path: Path) -> None:
    server = find_server()
    if server is None:
        pytest.skip("no Qdrant server: set LUMYN_TEST_QDRANT or LUMYN_TEST_QDRANT_URL")
    env = settings_of(tmp_path) | {"LUMYN_QDRANT": server.url}
    try:
        with living(kafka, partitions=1, env=env) as live:
            live.use_policy(POLICY)
            index = live.start("index")
            live.started("decide")
            live.started("labels")
            config = caller(live, env, qdrant=server.url)
            answers = lambda: sdk.decide(asked(BEN), config)["memory"]["available"]  # noqa: E731
            wait_until(answers, TIMEOUT_S, live.tails, every_s=0.2)
            first = sdk.decide(asked(request_id="ann-1"), config)
            sdk.label(first["decision_id"], "failure", summary="Philomena wrote", config=config, wait_s=TIMEOUT_S)
            assert sdk.decide(asked(BEN), config)["reason_codes"] == ["FAILURE_MEMORY_SIMILAR_ESCALATE"]
            home = wiring.open_home(config)
            done = forgetting.forget(home, Subject("default", "user", ANN), "asked")
            assert (done.records, done.labels, done.memories) == (1, 1, 1)
            assert list(home.memory.store().points()) == []
            assert sdk.decide(asked(BEN), config)["verdict"] == "ALLOW"
            mark = home.memory.store().watermark()
            found = [opened_record(home.log.keys, record) for record in live.records_of("default")]
            records = [record for record in found if was_recalled(record) and record["memory"]["version"]]
            records += [record for record in found if record["decision_id"] == first["decision_id"]]
            again = list(
                recall_again(
                    records, home.memory, epoch=mark.epoch, vectoriser_id=mark.vectoriser_id, version=mark.version,
                    erasures=erasures(home.log),
                )
            )  # fmt: skip
            assert sorted(one.outcome for one in again) == ["erased", "erased", "same"]
            assert personal_messages(live) == [] and personal_files(live) == []
            assert index.alive
    finally:
        server.close()


def test_what_a_foreign_producer_sends_in_clear_is_recorded_sealed(kafka: str, tmp_path: Path) -> None:
    env = settings_of(tmp_path)
    with living(kafka, partitions=1, env=env) as live:
        live.use_policy(POLICY)
        live.started("decide")
        live.submit(asked(request_id="r1"), asked(request_id="r1"), asked(request_id="r1", evidence={"other": 1}))
        (record,) = live.wait_records("default", 1)
        live.wait_decided()
        assert [one["outcome"] for one in live.receipts_of("default")] == ["decided", "duplicate", "conflict"]
        assert record["request"]["subject"]["id"].startswith("s-") and "sealed" in record
        assert {one.split("/")[0] for one in personal_messages(live)} == {"requests"}, "which expires by itself"
        config = caller(live, env)
        assert sdk.decide(asked(request_id="r1"), config)["decision_id"] == record["decision_id"]
        home = wiring.open_home(config)
        for erased in (0, 1):
            summary = Summary()
            found = list(verify_all(home.log, home_chain(home), summary, now_ms=wall_clock_ms()))
            assert [c for one in found for c in one.failed] == [] and summary.erased == erased
            if not erased:
                home.log.keys.erase(record["request"]["subject"]["id"])


def test_a_worker_without_the_right_master_key_decides_nothing(kafka: str, tmp_path: Path) -> None:
    env = settings_of(tmp_path)
    with living(kafka, partitions=1, env=env) as live:
        live.use_policy(POLICY)
        config = caller(live, env)
        sdk.submit(asked(request_id="r1"), config)
        wrong = live.start("decide", "wrong", env={"LUMYN_MASTER_KEY": "00" * 32})
        wrong.wait_for("keys_unavailable")
        assert live.records_of("default") == [] and live.values("receipts") == [] and live.values("dead-letters") == []
        assert "00000" not in wrong.log.read_text()
        wrong.kill()
        live.started("decide", "right")
        (record,) = live.wait_records("default", 1)
        assert record["verdict"] == "ALLOW"
        wait_until(lambda: len(live.values("receipts")) == 1, TIMEOUT_S, live.tails, every_s=0.2)
