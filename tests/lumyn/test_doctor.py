"""The doctor finds what is wrong, says how to mend it, tells no secret, and changes nothing."""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from faults.deployment import Deployment, deployed, wait_until
from inside import Inside
from servers.kafka import free_port
from servers.qdrant import find_server, own_server

from lumyn import doctor
from lumyn.wiring import close_homes
from schemas.canonical import encode
from streams.kafka.client import KafkaClient, KafkaSettings
from streams.kafka.topics import create_topics
from streams.log import Append
from streams.topics import TOPICS

pytest_plugins = ("inside_plugin",)

ROOT = Path(__file__).parents[2]
GROUP = {"session_timeout_s": 6.0, "heartbeat_s": 1.5}
"""What a broker with Kafka's own defaults takes."""
SECRET = "hunter2-not-to-be-told"
Findings = dict[tuple[str, str], list[dict[str, str]]]


def look(inside: Inside, code: int = 0) -> Findings:
    """The findings by part and status."""
    close_homes()
    report = inside.json("doctor", "--json", code=code)
    assert report["ok"] == (code == 0)
    return by_part(report)


def by_part(report: dict[str, Any]) -> Findings:
    out: Findings = {}
    for finding in report["findings"]:
        out.setdefault((finding["part"], finding["status"]), []).append(finding)
    return out


def only(findings: Findings, part: str, status: str) -> dict[str, str]:
    (finding,) = findings[part, status]
    return finding


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# without servers


def test_a_fresh_folder_is_well_and_stays_empty(inside: Inside) -> None:
    before = contents(inside.folder)
    findings = look(inside)
    assert not [status for _, status in findings if status != "ok"]
    assert "is made by the first decision" in only(findings, "log", "ok")["what"]
    assert contents(inside.folder) == before


def test_a_home_at_work_is_well_and_not_a_byte_of_it_changes(inside: Inside) -> None:
    decided = inside.decide(refund())
    inside.run("label", decided["decision_id"], "--label", "failure")
    inside.decide(refund())
    inside.run("list")
    close_homes()
    before = contents(inside.home)
    findings = look(inside)
    assert not [status for _, status in findings if status != "ok"]
    assert any(f["what"].startswith("decisions: 2") for f in findings["log", "ok"])
    assert any(f["what"] == "version 1 of 1, 1 points" for f in findings["memory", "ok"])
    assert any("up to the end of all 8" in f["what"] for f in findings["index", "ok"])
    assert contents(inside.home) == before


def test_a_line_says_what_and_the_next_how_to_mend_it(inside: Inside) -> None:
    inside.write("policy.yml", "rules: [{id: X, if: {amount: {gtt: 1}}, then: {verdict: DENY}}]\n")
    lines = inside.run("doctor", code=1).stdout.splitlines()
    (line,) = [line for line in lines if line.startswith("fail")]
    assert line.startswith("fail  policy: policy.yml:1:")
    assert "gtt" in line
    assert all(line.startswith(("ok    ", "warn  ", "fail  ", "      mend: ")) for line in lines)


def test_memory_and_index_that_lag_are_no_fault(inside: Inside) -> None:
    first = inside.decide(refund())
    inside.run("list")
    inside.run("memory", "stats")
    inside.run("label", first["decision_id"], "--label", "failure")
    findings = look(inside)
    assert any("version 0 of 1" in f["what"] for f in findings["memory", "ok"])
    assert ("memory", "warn") not in findings


@pytest.mark.parametrize("part", ["memory", "index"])
def test_a_damaged_derived_file_is_mended_as_the_doctor_says(inside: Inside, part: str) -> None:
    for user in range(30):
        inside.decide(refund(user=f"usr_{user}"))
    inside.run("list")
    inside.run("memory", "stats")
    close_homes()
    damage(inside.home / f"{part}.db")
    found = only(look(inside, code=1), part, "fail")
    assert "damaged" in found["what"]
    command = found["mend"].split("`")[1]
    inside.run(*command.split()[1:])
    assert (part, "fail") not in look(inside)


def damage(path: Path) -> None:
    """Garbage over every page but the first."""
    data = bytearray(path.read_bytes())
    start = max(4096, len(data) // 4)
    data[start:] = os.urandom(len(data) - start)
    path.write_bytes(data)


def test_a_damaged_log_fails_and_nothing_behind_it_is_asked(inside: Inside) -> None:
    for user in range(30):
        inside.decide(refund(user=f"usr_{user}"))
    close_homes()
    damage(inside.home / "lumyn.db")
    findings = look(inside, code=1)
    assert "backup" in only(findings, "log", "fail")["mend"]
    assert not {part for part, _ in findings} & {"memory", "index", "control"}


def test_a_file_that_is_no_log_is_not_made_one(inside: Inside) -> None:
    inside.home.mkdir()
    (inside.home / "lumyn.db").write_bytes(b"")
    assert ("log", "fail") in look(inside, code=1)
    assert (inside.home / "lumyn.db").read_bytes() == b""


def test_derived_files_of_another_log_are_found(inside: Inside) -> None:
    inside.decide(refund())
    inside.run("list")
    inside.run("memory", "stats")
    close_homes()
    (inside.home / "lumyn.db").unlink()
    inside.decide(refund())
    findings = look(inside, code=1)
    for part in ("memory", "index"):
        found = only(findings, part, "fail")
        assert "epoch" in found["what"]
        assert f"lumyn {part} rebuild" in found["mend"]


def test_a_writer_that_holds_the_log_is_named_as_busy_not_broken(inside: Inside) -> None:
    inside.decide(refund())
    close_homes()
    db = sqlite3.connect(inside.home / "lumyn.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        findings = look(inside)
    finally:
        db.execute("ROLLBACK")
        db.close()
    assert "being written" in only(findings, "log", "warn")["what"]


def test_requests_that_wait_are_counted(inside: Inside) -> None:
    inside.run("decide", "-", "--no-wait", stdin=json.dumps(refund()))
    assert only(look(inside), "log", "warn")["what"] == "1 submitted requests wait"


def test_a_signing_key_that_others_can_read_fails_and_the_mend_mends(inside: Inside) -> None:
    record = inside.decide(refund())
    inside.run("export", record["decision_id"], "--pack", "--out", "p.zip")
    assert "its owner's alone" in [f["what"] for f in look(inside)["home", "ok"]][-1]
    (inside.home / "keys/signing.pem").chmod(0o644)
    found = only(look(inside, code=1), "home", "fail")
    subprocess.run(["bash", "-c", found["mend"]], check=True, cwd=inside.folder)
    assert ("home", "fail") not in look(inside)


def test_a_full_disk_is_told_before_it_stops_anything(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE_SPACE", 1 << 62)  # this disk, with other wishes
    assert "MiB free" in only(look(inside), "home", "warn")["what"]
    monkeypatch.setattr(doctor, "_NO_SPACE", 1 << 62)
    assert "free some space" in only(look(inside, code=1), "home", "fail")["mend"]


def test_a_home_that_can_not_be_is_told(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    inside.write("file", "")
    monkeypatch.setenv("LUMYN_HOME", "file/home")
    found = only(look(inside, code=1), "settings", "fail")
    assert "a file stands there" in found["what"]


def test_settings_that_can_not_be_read_fail(inside: Inside) -> None:
    inside.write("lumyn.toml", "[runtime\n")
    assert "lumyn.toml" in only(look(inside, code=1), "settings", "fail")["what"]


def test_a_slip_in_a_runtime_setting_is_noticed(inside: Inside) -> None:
    inside.write("lumyn.toml", "[runtime]\nbach = 5\nbatch = 100\n")
    assert "`bach`" in only(look(inside), "settings", "warn")["what"]


def test_the_known_runtime_settings_are_those_that_the_code_reads() -> None:
    read = set()
    for path in (ROOT / "lumyn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
                if name in ("runtime", "runtime_setting"):
                    read.add(node.args[0].value)
    assert read == doctor.RUNTIME


def test_a_missing_package_fails_with_the_extra_that_brings_it(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name stands for a package that is not installed: none can be taken away from this environment."""
    monkeypatch.setattr(doctor, "_KAFKA", ("no-such-package-lumyn",))
    monkeypatch.setenv("LUMYN_KAFKA", f"127.0.0.1:{free_port()}")
    findings = look(inside, code=1)
    assert only(findings, "packages", "fail")["mend"] == "pip install 'lumyn-streams[kafka]'"
    assert ("brokers", "fail") not in findings


@pytest.mark.parametrize(("settings", "words"), [
    ({"LUMYN_KAFKA": "kafka.example.org:9092"}, {"brokers is not encrypted (plaintext)"}),
    ({"LUMYN_KAFKA": "[2001:db8::1]:9092,127.0.0.1:9092", "LUMYN_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
     {"brokers is not encrypted (sasl_plaintext)"}),
    ({"LUMYN_KAFKA": "kafka.example.org:9092", "LUMYN_KAFKA_SECURITY_PROTOCOL": "SSL"}, set()),
    ({"LUMYN_KAFKA": "127.0.0.1:9092,[::1]:9092,localhost:9092"}, set()),
    ({"LUMYN_QDRANT": "http://qdrant.example.org:6333"}, {"without an API key", "qdrant is not encrypted"}),
    ({"LUMYN_QDRANT": "http://qdrant.example.org:6333", "LUMYN_QDRANT_API_KEY": SECRET}, {"qdrant is not encrypted"}),
    ({"LUMYN_QDRANT": "https://qdrant.example.org:6333", "LUMYN_QDRANT_API_KEY": SECRET}, set()),
    ({"LUMYN_QDRANT": "http://localhost:6333"}, set()),
])  # fmt: skip
def test_what_travels_in_the_clear_is_warned_of(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], words: set[str]
) -> None:
    """Of settings alone: nothing is asked of these addresses."""
    from lumyn.config import resolve

    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    told = [f.what for f in doctor._settings(resolve()) if f.status == "warn"]
    assert len(told) == len(words)
    assert all(any(word in what for what in told) for word in words)


# over Kafka


@pytest.fixture
def over_kafka(inside: Inside, kafka: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A prefix of the test's own, without topics."""
    prefix = f"d{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("LUMYN_KAFKA", kafka)
    monkeypatch.setenv("LUMYN_PREFIX", prefix)
    yield prefix
    client = KafkaClient(KafkaSettings(kafka))
    client.delete_topics([name for name in client.topics() if name.startswith(f"{prefix}.")])
    client.close()


@pytest.fixture(scope="module")
def qdrant() -> Iterator[str]:
    server = find_server()
    yield server.url
    server.close()


def test_an_unreachable_broker_is_exit_4(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("LUMYN_KAFKA", address)
    report = inside.json("doctor", "--json", "--timeout", "1", code=4)
    found = only(by_part(report), "brokers", "fail")
    assert address in found["what"]
    assert "LUMYN_KAFKA" in found["mend"]


def test_missing_topics_are_one_finding_that_a_command_mends(inside: Inside, over_kafka: str) -> None:
    found = only(look(inside, code=1), "topics", "fail")
    assert all(f"{over_kafka}.{name}" in found["what"] for name in TOPICS)
    inside.run(*found["mend"].split("`")[1].split()[1:], "--partitions", "2")
    findings = look(inside)
    assert ("topics", "fail") not in findings
    assert "2 partitions" in only(findings, "topics", "ok")["what"]


def test_a_topic_with_other_settings_is_found_and_mended(inside: Inside, over_kafka: str, kafka: str) -> None:
    client = KafkaClient(KafkaSettings(kafka))
    create_topics(client, over_kafka, 2)
    client.alter_topic(f"{over_kafka}.requests", {"message.timestamp.type": "CreateTime", "retention.ms": "60000"})
    client.alter_topic(f"{over_kafka}.records", {"cleanup.policy": "delete", "max.message.bytes": "1000000"})
    deadline = time.monotonic() + 30  # the broker hears of settings a moment after the controller has taken them
    while client.topic_configs([f"{over_kafka}.requests"])[f"{over_kafka}.requests"]["retention.ms"] != "60000":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.close()
    found = look(inside, code=1)["topics", "fail"]
    said = " ".join(finding["what"] for finding in found)
    for setting in ("message.timestamp.type", "retention.ms", "cleanup.policy", "max.message.bytes"):
        assert setting in said
    assert all("topics create --fix" in finding["mend"] for finding in found)
    inside.run("topics", "create", "--partitions", "2", "--fix")
    assert ("topics", "fail") not in look(inside)


def test_nothing_can_be_seen_of_the_doctors_visit(inside: Inside, over_kafka: str, kafka: str) -> None:
    client = KafkaClient(KafkaSettings(kafka))
    create_topics(client, over_kafka, 2)
    places = [(f"{over_kafka}.{name}", p) for name, t in TOPICS.items() for p in range(t.partitions or 2)]
    assert look(inside)["transactions", "ok"]
    assert set(client.ends(places).values()) == {0}
    assert not inside.home.exists()
    client.close()


def test_requests_that_nobody_decides_fail_and_workers_mend_it(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with deployed(kafka, partitions=2, runtime=GROUP) as deployment:
        assert examine(deployment)["decide", "warn"][0]["what"] == "0 workers, 0 requests wait"
        deployment.log.append([Append("requests", encode(refund()))])
        found = only(examine(deployment, code=1), "decide", "fail")
        assert (found["what"], found["mend"]) == ("0 workers, 1 requests wait", "start `lumyn worker decide`")
        deployment.started("decide")
        wait_until(lambda: decides(deployment), 30, deployment.tails)
        assert only(examine(deployment), "decide", "ok")["what"] == "1 worker, 0 requests wait"


def decides(deployment: Deployment) -> bool:
    return ("decide", "ok") in examine(deployment, code=None) and not deployment.waiting()


def examine(deployment: Deployment, code: int | None = 0, **env: str) -> Findings:
    """`lumyn doctor` where the workers run."""
    done = subprocess.run(
        [sys.executable, "-m", "lumyn", "doctor", "--json"], cwd=deployment.folder, capture_output=True, text=True,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "LUMYN_KAFKA": deployment.address,
             "LUMYN_PREFIX": deployment.prefix, **env},
    )  # fmt: skip
    assert code in (None, done.returncode), f"{done.returncode}: {done.stdout}{done.stderr}"
    assert SECRET not in done.stdout + done.stderr
    return by_part(json.loads(done.stdout))


def test_a_session_timeout_that_the_brokers_refuse_is_found(inside: Inside, over_kafka: str) -> None:
    inside.run("topics", "create", "--partitions", "1")
    inside.write("lumyn.toml", "[runtime]\nsession_timeout_s = 0.5\n")
    found = only(look(inside, code=1), "settings", "fail")
    assert "session_timeout_s is 0.5" in found["what"]


def test_label_requests_that_wait_are_told(inside: Inside, over_kafka: str, kafka: str) -> None:
    from lumyn.wiring import operator_home

    inside.run("topics", "create", "--partitions", "1")
    operator_home().log.append([Append("label-requests", b"{}"), Append("label-requests", b"{}")])
    found = only(look(inside), "labels", "warn")
    assert found["what"] == "2 label requests wait"
    assert "worker labels" in found["mend"]


def test_secrets_are_never_told(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    inside.write(
        "lumyn.toml",
        f'[kafka]\naddress = "{address}"\n"security.protocol" = "SASL_PLAINTEXT"\n"sasl.mechanism" = "PLAIN"\n'
        f'"sasl.username" = "gate"\n"sasl.password" = "{SECRET}"\n'
        f'[qdrant]\naddress = "http://127.0.0.1:{free_port()}"\napi_key = "{SECRET}"\n',
    )
    for words in (("doctor", "--timeout", "1"), ("doctor", "--json", "--timeout", "1")):
        done = inside.run(*words, code=4)
        assert SECRET not in done.stdout + done.stderr
    inside.write("lumyn.toml", f'[kafka]\naddress = "{address}"\n"no.such.option" = "{SECRET}"\n')
    done = inside.run("doctor", "--timeout", "1", code=1)
    assert "no.such.option" in done.stdout
    assert SECRET not in done.stdout + done.stderr


# with a Qdrant server


def test_a_whole_deployment_on_a_qdrant_server(kafka: str, qdrant: str) -> None:
    with deployed(kafka, partitions=2, runtime=GROUP, env={"LUMYN_QDRANT": qdrant}) as deployment:
        findings = examine(deployment, LUMYN_QDRANT=qdrant)
        assert "there is none yet" in only(findings, "memory", "warn")["what"]
        assert "there is none yet" in only(findings, "index", "warn")["what"]
        assert "version 1." in only(findings, "qdrant", "ok")["what"]
        for kind in ("labels", "index", "decide"):
            deployment.start(kind)
        deployment.log.append([Append("requests", encode(refund()))])

        def well() -> bool:
            now = examine(deployment, code=None, LUMYN_QDRANT=qdrant)
            return {("decide", "ok"), ("memory", "ok"), ("index", "ok")} <= set(now) and not deployment.waiting()

        wait_until(well, 60, deployment.tails)
        findings = examine(deployment, LUMYN_QDRANT=qdrant)
        assert only(findings, "memory", "ok")["what"].startswith("version 0 of 0, 0 points, vouched for")
        assert "up to the end of all 2 partitions" in only(findings, "index", "ok")["what"]


def test_a_memory_that_nobody_vouches_for_fails(kafka: str, qdrant: str) -> None:
    with deployed(
        kafka, partitions=1, runtime={**GROUP, "memory_max_staleness_s": 1.0}, env={"LUMYN_QDRANT": qdrant}
    ) as deployment:
        worker = deployment.started("labels")
        wait_until(lambda: memory_is(deployment, qdrant, "ok"), 30, deployment.tails)
        worker.stop()
        wait_until(lambda: memory_is(deployment, qdrant, "fail"), 30)
        found = only(examine(deployment, code=1, LUMYN_QDRANT=qdrant), "memory", "fail")
        assert "1 s is the most" in found["what"]
        assert "worker labels" in found["mend"]


def memory_is(deployment: Deployment, qdrant: str, status: str) -> bool:
    return ("memory", status) in examine(deployment, code=None, LUMYN_QDRANT=qdrant)


def test_an_unreachable_qdrant_is_exit_4(kafka: str) -> None:
    server = own_server()
    try:
        with deployed(kafka, partitions=1) as deployment:
            assert ("qdrant", "ok") in examine(deployment, code=None, LUMYN_QDRANT=server.url)
            server.stop()
            findings = examine(deployment, code=4, LUMYN_QDRANT=server.url)
            assert "LUMYN_QDRANT" in only(findings, "qdrant", "fail")["mend"]
            assert ("brokers", "ok") in findings
    finally:
        server.close()
