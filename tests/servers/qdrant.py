"""A real Qdrant server for the tests: by address, else a binary, else by Docker engine.

`LUMYN_TEST_QDRANT_URL=http://host:port` names a running one (gRPC on the next port), `LUMYN_TEST_QDRANT` a binary.
Servers started here listen on the loopback only, keep their data in a temporary folder, and are stopped by their pid.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest

from servers.kafka import docker_engine

IMAGE = "qdrant/qdrant:v1.18.3"
_START_S = 60


def required() -> bool:
    """Whether a missing server is a failure, not a skip."""
    return "qdrant" in os.environ.get("LUMYN_TEST_REQUIRE", "")


def two_free_ports() -> int:
    """A port that is free, and so is the next: REST and gRPC."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


class GivenServer:
    """A server that somebody else runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.grpc_port: int | None = None

    def close(self) -> None:
        return


class DockerServer:
    """A server in a container."""

    def __init__(self) -> None:
        from testcontainers.core.container import DockerContainer

        self._container = DockerContainer(IMAGE).with_exposed_ports(6333, 6334)
        self._container.start()
        host = self._container.get_container_host_ip()
        self.url = f"http://{host}:{self._container.get_exposed_port(6333)}"
        self.grpc_port: int | None = int(self._container.get_exposed_port(6334))
        deadline = time.monotonic() + _START_S
        while not _ready(self.url):
            if time.monotonic() > deadline:
                self.close()
                raise RuntimeError("qdrant did not start in its container")
            time.sleep(0.1)

    def close(self) -> None:
        self._container.stop()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class QdrantServer:
    """A server of the test's own, that it may kill, stop, start again on the same data, or give older data."""

    def __init__(self, binary: str, settings: dict[str, str] | None = None) -> None:
        self._binary = binary
        self.folder = Path(tempfile.mkdtemp(prefix="lumyn-qdrant-"))
        self.storage = self.folder / "storage"
        self.grpc_port: int | None = None
        port = two_free_ports()
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = {
            "PATH": os.environ.get("PATH", ""),
            "QDRANT__LOG_LEVEL": "WARN",
            "QDRANT__TELEMETRY_DISABLED": "true",
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(port),
            "QDRANT__SERVICE__GRPC_PORT": str(port + 1),
            "QDRANT__STORAGE__STORAGE_PATH": str(self.storage),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(self.folder / "snapshots"),
            **(settings or {}),
        }

    def start(self) -> None:
        """Start, and wait until it takes calls."""
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binary],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        port = int(self.url.rpartition(":")[2])
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _listens(port) and _listens(port + 1):
                return
            time.sleep(0.02)
        log_text = (self.folder / "server.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"qdrant did not start:\n{log_text}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop answering, without going away."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

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


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def find_server() -> GivenServer | DockerServer | QdrantServer:
    """A server for the whole run. Skips, or fails where one is required."""
    url = os.environ.get("LUMYN_TEST_QDRANT_URL")
    if url:
        return GivenServer(url)
    if os.environ.get("LUMYN_TEST_QDRANT"):
        return own_server()
    if docker_engine():
        return DockerServer()
    missing()
    raise AssertionError


def own_server(settings: dict[str, str] | None = None) -> QdrantServer:
    """A server of the test's own, started, which it may kill. Only a binary gives one."""
    binary = os.environ.get("LUMYN_TEST_QDRANT")
    if not binary:
        missing("no Qdrant server that a test may kill: set LUMYN_TEST_QDRANT to a binary")
    assert binary
    server = QdrantServer(binary, settings)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def missing(why: str = "no Qdrant server: set LUMYN_TEST_QDRANT_URL or LUMYN_TEST_QDRANT, or install Docker") -> None:
    """Skip, or fail where Qdrant is required."""
    if required():
        pytest.fail(why)
    pytest.skip(why)
