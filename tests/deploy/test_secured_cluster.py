"""A cluster with TLS, SCRAM and an authorizer: the table of docs/run-on-kafka.md is enough, and it is a fence.

A real broker is given the ACLs that the table says, and nothing else; each principal then does its work through them,
and is refused what is not in its row.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from faults.deployment import Worker
from servers.kafka import JavaBroker, free_port, kafka_jars, missing

from schemas.errors import StorageUnavailable
from streams.kafka.client import KafkaSettings
from streams.kafka.log import KafkaLog
from streams.log import Append
from streams.topics import TOPICS

ROOT = Path(__file__).parents[2]
PREFIX = "lumyn"
POLICY = ROOT / "examples/refunds/policy.yml"
REQUEST = ROOT / "examples/refunds/request.json"


def table() -> dict[str, dict[str, list[str]]]:
    """The document's table: principal -> column -> names."""
    text = (ROOT / "docs/run-on-kafka.md").read_text()
    (rows,) = re.findall(r"^\| principal \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    out = {}
    for row in rows.splitlines():
        cells = [cell.strip().replace("`", "") for cell in row.strip("|").split("|")]
        names = [[name.strip() for name in cell.split(",") if name.strip()] for cell in cells[1:]]
        reads, writes, groups, ids = names
        out[cells[0]] = {"reads": sorted(TOPICS) if reads == ["all"] else reads, "writes": writes, "groups": groups,
                         "transactional ids": ids}  # fmt: skip
    return out


TABLE = table()
PRINCIPALS = sorted(TABLE)


def password(principal: str) -> str:
    return f"secret-of-{principal}"


def bindings() -> list[AclBinding]:
    """What an operator would type into kafka-acls.sh after reading the table and the paragraph under it."""
    out: list[AclBinding] = []

    def allow(principal: str, kind: ResourceType, name: str, operation: str) -> None:
        pattern = ResourcePatternType.PREFIXED if name.endswith("*") else ResourcePatternType.LITERAL
        name = name.removesuffix("*") if name != "*" else name
        out.append(AclBinding(kind, name, pattern, f"User:{principal}", "*", AclOperation[operation],
                              AclPermissionType.ALLOW))  # fmt: skip

    for principal, row in TABLE.items():
        for topic in row["reads"]:
            allow(principal, ResourceType.TOPIC, f"{PREFIX}.{topic}", "READ")
        for topic in row["writes"]:
            allow(principal, ResourceType.TOPIC, f"{PREFIX}.{topic}", "WRITE")
        for group in row["groups"]:
            allow(principal, ResourceType.GROUP, group, "READ")
        for name in row["transactional ids"]:
            allow(principal, ResourceType.TRANSACTIONAL_ID, name, "WRITE")
    for operation in ("DESCRIBE", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"):
        allow("operator", ResourceType.TOPIC, f"{PREFIX}.*", operation)
    for operation in ("CREATE", "DESCRIBE_CONFIGS"):
        allow("operator", ResourceType.BROKER, "kafka-cluster", operation)
    allow("decide", ResourceType.BROKER, "kafka-cluster", "DESCRIBE_CONFIGS")
    return out


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 with its key, signed by itself: (what the broker has, what clients trust)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "broker.pem").write_bytes(private + pem)
    (folder / "ca.pem").write_bytes(pem)
    return folder / "broker.pem", folder / "ca.pem"


class SecuredBroker(JavaBroker):
    """One with a second listener, TLS and SCRAM; on the first, plain one everybody is a super user: the test is."""

    def __init__(self, libs: Path, folder: Path) -> None:
        super().__init__(libs)
        self.secured = f"127.0.0.1:{free_port()}"
        self.keystore, self.ca = certificate(folder)
        settings = dict(line.split("=", 1) for line in self._properties.read_text().splitlines())
        for name in ("listeners", "advertised.listeners"):
            settings[name] += f",SECURED://{self.secured}"
        settings |= {
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL",
            "listener.name.secured.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.secured.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.secured.ssl.keystore.type": "PEM",
            "listener.name.secured.ssl.keystore.location": str(self.keystore),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))

    def secure(self) -> None:
        """Make the principals, and give them what the table says."""
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [UserScramCredentialUpsertion(p, scram, password(p).encode()) for p in PRINCIPALS]
        for done in admin.alter_user_scram_credentials(users).values():
            done.result(timeout=20)
        for done in admin.create_acls(bindings()).values():
            done.result(timeout=20)

    def options(self, principal: str) -> dict[str, str]:
        """The client's options of a principal, as the document's example has them."""
        return {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": principal,
            "sasl.password": password(principal),
            "ssl.ca.location": str(self.ca),
        }

    def environment(self, principal: str, folder: Path) -> dict[str, str]:
        """The same, as a deployment's environment."""
        options = {f"LUMYN_KAFKA_{k.upper().replace('.', '_')}": v for k, v in self.options(principal).items()}
        return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LUMYN_KAFKA": self.secured,
                "LUMYN_PREFIX": PREFIX, "LUMYN_HOME": str(folder / f"home-{principal}"), **options}  # fmt: skip


class Cluster:
    """The broker, with each principal's commands."""

    def __init__(self, broker: SecuredBroker, folder: Path) -> None:
        self.broker, self.folder = broker, folder

    def run(self, principal: str, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lumyn", *words], cwd=self.folder, capture_output=True, text=True, timeout=60,
            env=self.broker.environment(principal, self.folder),
        )  # fmt: skip
        assert done.returncode == code, f"{principal} {words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "secret-of" not in done.stdout + done.stderr
        return done.stdout

    def start(self, principal: str) -> Worker:
        command = [sys.executable, "-m", "lumyn", "worker", principal]
        environment = self.broker.environment(principal, self.folder)
        return Worker(principal, command, environment, self.folder, self.folder / f"{principal}.log")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    jars = kafka_jars()
    if jars is None:
        missing("no Kafka broker of the test's own: install Java and Maven")
    assert jars is not None
    folder = tmp_path_factory.mktemp("secured")
    broker = SecuredBroker(jars, folder)
    broker.start()
    broker.secure()
    cluster = Cluster(broker, folder)
    cluster.run("operator", "topics", "create", "--partitions", "2")
    yield cluster
    broker.close()


def test_the_table_names_topics_that_exist_and_workers_that_run() -> None:
    assert set(PRINCIPALS) == {"gateway", "decide", "labels", "index", "shadow", "operator"}
    for row in TABLE.values():
        assert set(row["reads"]) | set(row["writes"]) <= set(TOPICS)
    answering = {"records", "receipts", "labels", "label-receipts", "checkpoints", "control", "ledger"}
    assert not answering & set(TABLE["gateway"]["writes"])
    assert [p for p in PRINCIPALS if "records" in TABLE[p]["writes"]] == ["decide"]
    assert [p for p in PRINCIPALS if "labels" in TABLE[p]["writes"]] == ["labels"]


def test_with_the_tables_rights_everybody_can_do_his_work(cluster: Cluster) -> None:
    cluster.run("operator", "policy", "publish", str(POLICY))
    cluster.run("operator", "policy", "activate", "refunds")
    workers = [cluster.start(kind) for kind in ("index", "labels", "decide", "shadow")]
    try:
        workers[1].wait_for("labels_opened")
        workers[2].wait_for("worker_started")
        record = json.loads(cluster.run("gateway", "decide", str(REQUEST)))
        name = record["decision_id"]
        assert record["verdict"] == "DENY"
        cluster.run("gateway", "label", name, "--label", "failure", "--summary", "no fraud")
        assert "no fraud" in cluster.run("gateway", "show", name)
        assert name in cluster.run("gateway", "list")
        assert json.loads(cluster.run("gateway", "decide", str(REQUEST)))["verdict"] == "ESCALATE"
        _tried(cluster)
        cluster.run("operator", "verify", name)
        candidate = cluster.folder / "candidate.yml"
        cluster.run("operator", "backfill", "--policy", str(candidate), "--apply", "--why", "a test")
        assert "against policy" in cluster.run("operator", "ledger", "list")
        cluster.run("operator", "kill-switch", "on", "--action-type", "refund", "--why", "a test")
        assert json.loads(cluster.run("gateway", "decide", str(REQUEST)))["reason_codes"] == ["KILL_SWITCH"]
        cluster.run("operator", "dead-letters", "list")
        report = cluster.run("operator", "doctor")
        assert "1 worker, 0 requests wait" in report
        workers[0].wait_for("checkpoints_made")
        for worker in workers:
            assert worker.stop() == 0
            assert not [e for e in worker.events() if "not allowed" in json.dumps(e)], worker.tail()
    finally:
        for worker in workers:
            if worker.alive:
                worker.kill()


def _tried(cluster: Cluster) -> None:
    """A candidate in the shadow: the worker reads and writes with its own rights."""
    candidate = cluster.folder / "candidate.yml"
    candidate.write_text(POLICY.read_text().replace("version: ", "version: 99."))
    cluster.run("operator", "policy", "shadow", str(candidate), "--why", "a test")
    cluster.run("gateway", "decide", str(REQUEST))
    deadline = time.monotonic() + 60
    while json.loads(cluster.run("operator", "policy", "shadow", "--json"))[0]["compared"] == 0:
        assert time.monotonic() < deadline, "the shadow worker evaluates nothing"


@pytest.mark.parametrize("principal", PRINCIPALS)
def test_what_is_not_in_a_row_is_refused(cluster: Cluster, principal: str) -> None:
    log = KafkaLog(
        KafkaSettings(cluster.broker.secured, cluster.broker.options(principal), timeout_s=10), prefix=PREFIX
    )
    written = []
    for topic in sorted(set(TOPICS) - set(TABLE[principal]["writes"])):
        try:
            log.append([Append(topic, b"{}", b"key", 0)])
            written.append(topic)
        except StorageUnavailable as error:
            # a topic that may not even be described does not seem to exist
            assert "not allowed" in error.message or "there is no topic" in error.message, error.message
    log.close()
    assert written == []


def test_with_a_wrong_password_nothing_is_to_be_had_and_it_is_not_told(cluster: Cluster) -> None:
    options = {**cluster.broker.options("gateway"), "sasl.password": "not-this-one"}
    log = KafkaLog(KafkaSettings(cluster.broker.secured, options, timeout_s=5), prefix=PREFIX)
    with pytest.raises(StorageUnavailable) as refused:
        log.partitions("requests")
    assert "not-this-one" not in f"{refused.value} {refused.value!r} {log.client.settings!r}"
    log.close()
