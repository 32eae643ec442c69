"""A real Kafka broker for the tests: by address, else by Docker engine, else from Maven Central's jars on Java.

`LUMYN_TEST_KAFKA=host:port` names a running one. Brokers started here listen on the loopback only, keep their data in
a temporary folder, and are stopped by their pid.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBS = HERE.parent.parent / ".cache" / "kafka-4.1.0"
_START_S = 60


def required() -> bool:
    """Whether a missing broker is a failure, not a skip."""
    return "kafka" in os.environ.get("LUMYN_TEST_REQUIRE", "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def kafka_jars() -> Path | None:
    """The broker's jars, brought from Maven Central once; None where that can't be done."""
    if list(LIBS.glob("kafka_2.13-*.jar")):
        return LIBS
    if shutil.which("mvn") is None or shutil.which("java") is None:
        return None
    LIBS.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=LIBS.parent))
    command = ["mvn", "-q", "-B", "-f", str(HERE / "kafka-pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run([*command, f"-DoutputDirectory={part}"], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        shutil.rmtree(part, ignore_errors=True)
        return None
    with suppress(OSError):  # another process may have been faster
        part.rename(LIBS)
    shutil.rmtree(part, ignore_errors=True)
    return LIBS


class JavaBroker:
    """One KRaft broker on the installed Java, that a test may kill, stop and start again on the same data."""

    def __init__(self, libs: Path, *, heap: str = "512m", overrides: dict[str, str] | None = None) -> None:
        self._libs = libs
        self._heap = heap
        self.folder = Path(tempfile.mkdtemp(prefix="lumyn-kafka-"))
        self.port, self._controller = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = self.folder / "server.properties"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"PLAINTEXT://127.0.0.1:{self.port},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "log.cleaner.enable": "false",  # so that no double write can hide behind compaction
            **(overrides or {}),
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._java("kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(self._properties)).wait()

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / "broker.log").open("ab") as log:
            return subprocess.Popen(
                ["java", f"-Xmx{self._heap}", "-cp", f"{self._libs}/*", *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and wait until it answers."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        self._process = self._java("kafka.Kafka", str(self._properties))
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                admin = AdminClient({"bootstrap.servers": self.address, "logger": _Quiet()})
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                time.sleep(0.1)
        log = (self.folder / "broker.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the broker did not start:\n{log}")

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop in order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, how)
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class _Quiet:
    def log(self, *_: object) -> None:
        return


class GivenBroker:
    """A broker that somebody else runs."""

    def __init__(self, address: str) -> None:
        self.address = address

    def close(self) -> None:
        return


class DockerBroker:
    """A broker in a container."""

    def __init__(self) -> None:
        from testcontainers.kafka import KafkaContainer

        self._container = KafkaContainer().with_kraft()
        self._container.start()
        self.address = self._container.get_bootstrap_server()

    def close(self) -> None:
        self._container.stop()


def _cluster_id() -> str:
    import base64

    # an id that began with `-` would be taken for an option
    return "L" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:].rstrip("=")


def docker_engine() -> bool:
    """Whether there is a Docker engine that answers."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0


def find_broker() -> GivenBroker | DockerBroker | JavaBroker:
    """A broker for the whole run. Skips, or fails where one is required."""
    address = os.environ.get("LUMYN_TEST_KAFKA")
    if address:
        return GivenBroker(address)
    if docker_engine():
        return DockerBroker()
    return java_broker()


def java_broker(**options: object) -> JavaBroker:
    """A broker of the test's own, started, which it may kill."""
    jars = kafka_jars()
    if jars is None:
        missing("no Kafka broker: set LUMYN_TEST_KAFKA, or install Docker, or Java and Maven")
    assert jars is not None
    broker = JavaBroker(jars, **options)  # type: ignore[arg-type]
    broker.start()
    return broker


def missing(why: str) -> None:
    """Skip, or fail where Kafka is required."""
    if required():
        pytest.fail(why)
    pytest.skip(why)
