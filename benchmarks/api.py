"""make bench-api: the HTTP API. Decisions a second beside the peer's own server, and how long reads take.

    benchmarks/api.py decide [--n 20000]      ours, and `lumyn==1.3.6 serve` where PEER_PYTHON names its interpreter
                                              (with `lumyn[service]`, or uvicorn in PEER_PYTHONPATH)
    benchmarks/api.py reads  [--n 1000000]    a list with three filters, a search, a record, over n indexed decisions

The server is a process of its own, embedded, durable (an fsync before each answer), with an API key. The load comes from
this process: connections that are kept open, each with one request at a time, over bare asyncio protocols. Its own ceiling
is measured against `/healthz` and printed, so that it can be seen not to be what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import workload

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 64
PEER_CONNECTIONS = 8
READ_CONNECTIONS = 4
_CHUNK = 5000


class Connection(asyncio.Protocol):
    """One request after another from a common supply; notes how long each took, in seconds."""

    def __init__(self, supply: Iterator[bytes], took: list[float], bad: list[bytes], done: asyncio.Future[None]) -> None:
        self._supply, self._took, self._bad, self._done = supply, took, bad, done
        self._buffer, self._wanted, self._start = bytearray(), -1, 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        request = next(self._supply, None)
        if request is None:
            self._transport.close()
            return
        self._start = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._wanted < 0:
            head = self._buffer.find(b"\r\n\r\n")
            if head < 0:
                return
            lower = bytes(self._buffer[:head]).lower()
            at = lower.index(b"content-length:") + 15
            self._wanted = head + 4 + int(lower[at : at + 12].split(b"\r")[0])
        if len(self._buffer) >= self._wanted:
            self._took.append(time.perf_counter() - self._start)
            if not self._buffer.startswith(b"HTTP/1.1 2"):
                self._bad.append(bytes(self._buffer[:400]))
            self._buffer.clear()
            self._wanted = -1
            self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def _load(port: int, requests: Iterator[bytes], connections: int) -> tuple[float, list[float]]:
    loop = asyncio.get_running_loop()
    took: list[float] = []
    bad: list[bytes] = []
    done: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    start = time.perf_counter()
    for one in done:
        await loop.create_connection(lambda one=one: Connection(requests, took, bad, one), "127.0.0.1", port)
    await asyncio.gather(*done)
    seconds = time.perf_counter() - start
    if bad:
        raise SystemExit(f"{len(bad)} requests failed: {bad[0].decode(errors='replace')}")
    return seconds, took


def load(port: int, requests: Sequence[bytes], connections: int) -> dict[str, float]:
    """Send requests, `connections` at a time; a second, and percentiles in milliseconds."""
    seconds, took = asyncio.run(_load(port, iter(requests), connections))
    took.sort()
    return {
        "n": len(took),
        "per_second": round(len(took) / seconds, 1),
        "p50_ms": round(1000 * statistics.median(took), 2),
        "p99_ms": round(1000 * took[min(len(took) - 1, int(0.99 * len(took)))], 2),
        "max_ms": round(1000 * took[-1], 2),
    }


def http(method: str, path: str, key: str, body: bytes = b"") -> bytes:
    """A request's bytes."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


@contextmanager
def served(command: Sequence[str], folder: Path, environment: dict[str, str], port: int) -> Iterator[None]:
    """A server, from when it answers until it is not needed."""
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the server ended: {(folder / 'server.log').read_text()[-2000:]}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(folder: Path) -> tuple[list[str], dict[str, str], int, str]:
    """Our server's command, its environment, port and a key."""
    environment = {"PYTHONPATH": str(ROOT), "LUMYN_HOME": str(folder / "home")}
    create = [sys.executable, "-m", "lumyn", "keys", "create", "--role", "decide,read", "--json"]
    made = subprocess.run(create, cwd=folder, env={**os.environ, **environment}, capture_output=True, check=True)
    port = free_port()
    policy = str(workload.POLICIES / "ours.yml")
    command = [sys.executable, "-m", "lumyn", "serve", "--port", str(port), "--policy", policy]
    return command, environment, port, json.loads(made.stdout)["key"]


def decide(n: int) -> dict[str, Any]:
    """Decisions a second over HTTP, each durable before it is answered."""
    folder = Path(tempfile.mkdtemp(prefix="bench-api-"))
    command, environment, port, key = ours(folder)
    bodies = [http("POST", "/v1/decisions", key, json.dumps(one).encode()) for one in workload.requests(n + 200)]
    with served(command, folder, environment, port):
        load(port, bodies[n:], 8)
        told = {"ours": load(port, bodies[:n], CONNECTIONS), "ours, one connection": load(port, bodies[n:] * 5, 1)}
        told["the load's own ceiling (/healthz)"] = load(port, [http("GET", "/healthz", key)] * min(n, 5000), CONNECTIONS)
    shutil.rmtree(folder)
    peer = peer_decide(max(100, n // 20))
    if peer is not None:
        told["peer"] = peer
        told["ratio"] = round(told["ours"]["per_second"] / peer["per_second"], 1)  # type: ignore[assignment]
    return told


def peer_decide(n: int) -> dict[str, float] | None:
    """The same of the peer, at the best of one and several connections; None without its interpreter."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        return None
    folder = Path(tempfile.mkdtemp(prefix="bench-api-peer-"))
    environment = {
        "LUMYN_STORAGE_URL": f"sqlite:{folder / 'lumyn.db'}", "LUMYN_POLICY_PATH": str(workload.POLICIES / "peer.yml"),
        "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.environ.get("PEER_PYTHONPATH", ""),
    }  # fmt: skip
    port = free_port()
    worker = str(ROOT / "benchmarks/peer_worker.py")  # its command line, with a stand-in for the model of its memory
    command = [python, worker, "--peer-cli", "", "serve", "--port", str(port)]
    bodies = [
        http("POST", "/v1/decide", "", json.dumps(workload.to_peer(one)).encode())
        for one in workload.requests(2 * n + 20)
    ]
    with served(command, folder, environment, port):
        load(port, bodies[2 * n :], 1)
        found = [load(port, bodies[:n], 1), load(port, bodies[n : 2 * n], PEER_CONNECTIONS)]
    shutil.rmtree(folder)
    return max(found, key=lambda one: one["per_second"])


def reads(n: int) -> dict[str, Any]:
    """How long reads take over `n` indexed decisions, while nothing else goes on."""
    from lumyn import LumynConfig, sdk
    from lumyn.wiring import existing_home

    folder = Path(tempfile.mkdtemp(prefix="bench-api-"))
    config = LumynConfig(policy_path=workload.POLICIES / "ours.yml", home=folder / "home", durable=False)
    supply, ids, subjects = workload.requests(n), [], []
    for start in range(0, n, _CHUNK):
        some = sdk.decide_many([next(supply) for _ in range(min(_CHUNK, n - start))], config)
        for record in random.Random(start).sample(some, min(20, len(some))):
            assert isinstance(record, dict)
            ids.append(record["decision_id"])
            subjects.append(record["request"]["subject"]["id"])
    existing_home(config).index()
    command, environment, port, key = ours(folder)
    chosen = random.Random(1)
    days = "from=2020-01-01&to=2100-01-01"
    asked = {
        "list, three filters": [
            f"/v1/decisions?outcome=triggered&action_type=support.refund&{days}&verdict={chosen.choice(('ALLOW', 'DENY', 'ESCALATE'))}"
            for _ in range(2000)
        ],
        "search, by the query language": [
            f"/v1/decisions?query=subject_id%3D{chosen.choice(subjects)}%20AND%20amount_usd%20%3E%2050" for _ in range(2000)
        ],
        "show": [f"/v1/decisions/{chosen.choice(ids)}" for _ in range(2000)],
    }
    told: dict[str, Any] = {"decisions": n}
    with served(command, folder, environment, port):
        for name, paths in asked.items():
            requests = [http("GET", path, key) for path in paths]
            load(port, requests[:50], 1)
            told[name] = load(port, requests, 1)
            told[f"{name}, {READ_CONNECTIONS} at once"] = load(port, requests, READ_CONNECTIONS)
    shutil.rmtree(folder)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="*", choices=["decide", "reads"], default=["decide", "reads"])
    parser.add_argument("--n", type=int)
    options = parser.parse_args()
    for task in options.task:
        told = decide(options.n or 20_000) if task == "decide" else reads(options.n or 1_000_000)
        sys.stdout.write(json.dumps({task: told}, indent=2) + "\n")


if __name__ == "__main__":
    main()
