"""`make bench-live`: the decide worker on a real broker, beside a pass-through agent with the same writer, and the peer.

Rates come from the log itself: the number of records divided by the time between the first and the last one's append.
Requests are all in the log before the worker starts. The broker is the one that the tests find or start; a Qdrant
server is named by LUMYN_TEST_QDRANT (a binary) or LUMYN_QDRANT (an address).

    python benchmarks/live.py TASK... [--n N] [--rounds R]     tasks: passthrough memory latency million
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import workload  # noqa: E402

from schemas.request import parse_request  # noqa: E402
from streams.decide_agent import request_append  # noqa: E402
from streams.kafka.client import KafkaSettings  # noqa: E402
from streams.kafka.log import KafkaLog  # noqa: E402
from streams.kafka.topics import create_topics  # noqa: E402
from streams.log import Append  # noqa: E402
from streams.topics import LABELS, RECORDS, REQUESTS, TOPICS, full_name  # noqa: E402

OUT = HERE.parent / "bench-out"
PARTITIONS = 4
POLICY = workload.POLICIES / "ours.yml"
POLICY_MEMORY = workload.POLICIES / "ours_memory.yml"


class Deployment:
    """Fresh topics under a prefix of their own."""

    def __init__(self, address: str, partitions: int = PARTITIONS) -> None:
        self.address = address
        self.prefix = f"bench{uuid.uuid4().hex[:8]}"
        self.home = tempfile.mkdtemp(prefix="lumyn-bench-")
        self.log = KafkaLog(KafkaSettings(address, timeout_s=60), prefix=self.prefix)
        create_topics(self.log.client, self.prefix, partitions)

    def fill(self, n: int, *, seed: int = workload.SEED, request_ids: bool = True) -> None:
        batch: list[Append] = []
        for number, request in enumerate(workload.requests(n, seed=seed, request_ids=request_ids)):
            batch.append(request_append(parse_request(request), number % PARTITIONS))
            if len(batch) == 20_000:
                self.log.send_many(batch)
                batch = []
        self.log.send_many(batch)

    def worker(self, kind: str, policy: Path | None = POLICY, **env: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(HERE / "live.py"), "--worker", kind]
        surroundings = {
            **os.environ, "LUMYN_KAFKA": self.address, "LUMYN_PREFIX": self.prefix, "LUMYN_HOME": self.home, **env,
        }  # fmt: skip
        if policy is not None:
            surroundings["LUMYN_POLICY"] = str(policy)
        log = (Path(self.home) / f"{kind}.log").open("wb")
        return subprocess.Popen(command, env=surroundings, stdout=log, stderr=log)

    def times(self) -> list[int]:
        """Every record's append time, in milliseconds."""
        out: list[int] = []
        for partition in range(self.log.partitions(RECORDS)):
            offset = 0
            while messages := self.log.read(RECORDS, partition, offset, 5000):
                out += [m.time_ms for m in messages]
                offset = messages[-1].offset + 1
        return sorted(out)

    def wait(self, n: int, process: subprocess.Popen[bytes], limit_s: float) -> None:
        """Until the group's positions are at the end of the requests."""
        deadline = time.monotonic() + limit_s
        group = self.log.group("decide")
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError((Path(self.home) / "decide.log").read_text()[-3000:])
            done = sum(
                self.log.client.committed(group, (self.log.name(REQUESTS), p))
                for p in range(self.log.partitions(REQUESTS))
            )
            if done >= n:
                return
            time.sleep(0.2)
        raise RuntimeError("not done in time")

    def close(self) -> None:
        self.log.client.delete_topics([full_name(self.prefix, topic) for topic in TOPICS])
        self.log.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def rate(times: list[int]) -> float:
    return (len(times) - 1) / ((times[-1] - times[0]) / 1000)


def one_rate(address: str, kind: str, n: int) -> float:
    deployment = Deployment(address)
    try:
        deployment.fill(n)
        process = deployment.worker(kind)
        try:
            deployment.wait(n, process, 600)
        finally:
            stop(process)
        times = deployment.times()
        assert len(times) == n, f"{len(times)} records of {n} requests"
        return rate(times)
    finally:
        deployment.close()


def passthrough(address: str, n: int, rounds: int) -> dict[str, Any]:
    """One worker with memory off, beside one that passes requests through by the same writer."""
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(one_rate(address, "passthrough", n))
        ours.append(one_rate(address, "decide", n))
        print(f"  pass-through {plain[-1]:,.0f}/s, decide {ours[-1]:,.0f}/s", file=sys.stderr)
    share = statistics.median(ours) / statistics.median(plain)
    return {"decide_per_s": ours, "passthrough_per_s": plain, "share": share, "target": ">= 0.60"}


def run_worker(kind: str) -> None:
    from lumyn.observing import make_observer
    from lumyn.workers import decide_worker, label_worker, worker_settings

    settings = worker_settings()
    observer = make_observer(kind, "info", "127.0.0.1", 0)
    if kind == "labels":
        worker = label_worker(settings, observer)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()
        return
    decider = decide_worker(settings, observer)
    if kind == "passthrough":
        _pass_through(decider)
    decider.run()


def _pass_through(worker: Any) -> None:
    """The same Faust agent and the same transactions, with nothing decided."""
    from streams.deciding import Answer, Deciding, Pending
    from streams.log import Message
    from streams.topics import RECEIPTS

    class PassThrough(Deciding):
        def parse(self, message: Message, control: Any) -> Pending:  # noqa: ARG002
            return Pending(message, None, None)

        def recall(self, pending: Any) -> None:
            pass

        def decide(self, item: Pending, control: Any, prior: Any) -> Any:  # noqa: ARG002
            message = item.message
            name = b"%d-%d" % (message.partition, message.offset)
            return Answer("decided", "", b""), [
                Append(RECORDS, message.value, name, message.partition),
                Append(RECEIPTS, name, None, message.partition),
            ]

    worker._deciding = PassThrough(worker._topic, worker._deciding._memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=["passthrough"])
    parser.add_argument("--worker")
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.worker:
        run_worker(options.worker)
        return
    from servers.kafka import find_broker

    broker = find_broker()
    results: dict[str, Any] = {}
    try:
        for task in options.tasks:
            print(f"{task} ...", file=sys.stderr)
            results[task] = TASKS[task](broker.address, options.n, options.rounds)
            print(json.dumps({task: results[task]}, indent=2))
    finally:
        broker.close()
    OUT.mkdir(exist_ok=True)
    about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.platform(), "cores": os.cpu_count()}
    (OUT / "live.json").write_text(json.dumps({"about": about, **results}, indent=2) + "\n")


TASKS = {"passthrough": passthrough}

if __name__ == "__main__":
    main()
