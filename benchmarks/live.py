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
LABELLED = 20_000
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


KINDS = ("faust", "passthrough", "decide")
"""A pass-through agent on Faust's own consumer, one on ours (which mends its waits), both with our writer; and ours."""


def passthrough(address: str, n: int, rounds: int) -> dict[str, Any]:
    """One worker with memory off, beside two that pass requests through by the same writer."""
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        for kind, seen in rates.items():
            seen.append(one_rate(address, kind, n))
        print("  " + ", ".join(f"{kind} {seen[-1]:,.0f}/s" for kind, seen in rates.items()), file=sys.stderr)
    ours = statistics.median(rates["decide"])
    share = {kind: ours / statistics.median(rates[kind]) for kind in KINDS[:2]}
    return {"per_s": rates, "share": share, "target": ">= 0.60"}


def memory(address: str, n: int, rounds: int) -> dict[str, Any]:
    """One worker with memory on, 20,000 labelled decisions behind a Qdrant server, beside the peer with its memory.

    Recall from the server, and from the worker's own exact index of the same labels.
    """
    from servers.qdrant import find_server

    server = find_server()
    n = min(n, 10_000)
    deployment = Deployment(address)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        os.environ["LUMYN_QDRANT"] = server.url
        deployment.fill(LABELLED, seed=7)
        workers.append(deployment.worker("decide", POLICY_MEMORY))
        deployment.wait(LABELLED, workers[-1], 900)
        stop(workers.pop())
        workers.append(deployment.worker("labels", None))
        workers.append(deployment.worker("index", None))
        seconds = label_all(deployment)
        stop(workers.pop())  # the index worker, which would take half of a machine of two cores from the decide worker
        ours: dict[str, list[float]] = {"server": [], "local": []}
        used: dict[str, float] = {}
        for number in range(rounds):
            for turn, (place, rates) in enumerate(ours.items()):
                before = len(deployment.times())
                deployment.fill(n, seed=100 + number * len(ours) + turn)
                workers.append(deployment.worker("decide", POLICY_MEMORY, LUMYN_MEMORY_RECALL=place))
                deployment.wait(before + n, workers[-1], 900)
                stop(workers.pop())
                times = deployment.times()
                assert len(times) == before + n
                rates.append(rate(times[before:]))
                used[place] = in_memory(deployment)
                print(f"  memory of {LABELLED:,} labels, recall {place}: {rates[-1]:,.0f}/s", file=sys.stderr)
    finally:
        for worker in workers:
            stop(worker)
        os.environ.pop("LUMYN_QDRANT", None)
        deployment.close()
        server.close()
    peer = peer_rate()
    return {
        "decide_per_s": ours,
        "labels_per_s": LABELLED / seconds,
        "share_with_memory": used,
        "peer_per_s": peer,
        "ratio": {place: statistics.median(rates) / peer for place, rates in ours.items()} if peer else None,
        "target": ">= 40x",
    }


def label_all(deployment: Deployment) -> float:
    """Label every decision through the label worker; returns the seconds it took."""
    from schemas.canonical import decode_trusted, encode
    from streams.topics import LABEL_REQUESTS
    from streams.versions import last_version

    log, appends = deployment.log, []
    for partition in range(log.partitions(RECORDS)):
        offset = 0
        while messages := log.read(RECORDS, partition, offset, 5000):
            for m in messages:
                record = decode_trusted(m.value)
                name = record["decision_id"]
                label = "failure" if int(name[-2:].encode().hex(), 16) % 3 == 0 else "success"
                request = {
                    "event_id": name, "decision_id": name, "tenant": record["tenant"], "type": "label",
                    "label": label, "summary": "benchmark", "actor": "bench",
                }  # fmt: skip
                appends.append(Append(LABEL_REQUESTS, encode(request), name.encode()))
            offset = messages[-1].offset + 1
    begun = time.monotonic()
    log.send_many(appends)
    while last_version(log, LABELS) < len(appends):
        time.sleep(0.2)
    seconds = time.monotonic() - begun
    time.sleep(3)  # the store follows the topic; the decisions below say which version they saw
    return seconds


def in_memory(deployment: Deployment) -> float:
    """The share of the last decisions that memory answered."""
    from schemas.canonical import decode_trusted

    log, seen = deployment.log, []
    for partition in range(log.partitions(RECORDS)):
        end = log.end(RECORDS, partition)
        for m in log.read(RECORDS, partition, max(0, end - 500), 500):
            memory = decode_trusted(m.value)["memory"]
            seen.append(memory["available"] and memory["version"] == LABELLED)
    return sum(seen) / len(seen)


def peer_rate() -> float | None:
    """The peer's decisions a second with its memory on; None without its interpreter (PEER_PYTHON)."""
    python = os.environ.get("PEER_PYTHON")
    if not python:
        return None
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(HERE / "peer_worker.py"), "decide_memory", "--n", "60", "--labelled", str(LABELLED)]
        done = subprocess.run([*command, "--dir", folder], capture_output=True, text=True, timeout=1800, check=True)
    return float(json.loads(done.stdout.strip().splitlines()[-1])["per_second"])


def latency(address: str, n: int, rounds: int) -> dict[str, Any]:  # noqa: ARG001 - one form for all tasks
    """Request to record, by the log's own times, at half of what one worker decides when it has all it can."""
    full = one_rate(address, "decide", n)
    deployment = Deployment(address)
    try:
        process = deployment.worker("decide")
        made = workload.requests(int(full / 2 * 31), seed=5, request_ids=True)
        waiting = [request_append(parse_request(request), 0) for request in made]
        step, sent = 0.02, 0
        deployment.fill(100, seed=6)
        deployment.wait(100, process, 60)
        first = deployment.log.ends(RECORDS)
        begun = time.monotonic()
        while (at := time.monotonic() - begun) < 30:
            due = int(at * full / 2)
            deployment.log.send_many(waiting[sent:due])
            sent = due
            time.sleep(max(0.0, step - (time.monotonic() - begun - at)))
        deployment.wait(sent + 100, process, 120)
        stop(process)
        taken = sorted(request_to_record(deployment, first))
    finally:
        deployment.close()
    at_share = {f"p{share}": taken[min(len(taken) - 1, len(taken) * share // 100)] for share in (50, 90, 99)}
    return {"full_per_s": full, "asked_per_s": sent / 30, "ms": at_share | {"max": taken[-1]}, "target": "p99 <= 100 ms"}


def request_to_record(deployment: Deployment, first: list[int]) -> list[int]:
    """Milliseconds between the appends of each request and its record, for records from these offsets on."""
    from schemas.ids import decision_time_ms

    out: list[int] = []
    for partition, offset in enumerate(first):
        while messages := deployment.log.read(RECORDS, partition, offset, 5000):
            out += [m.time_ms - decision_time_ms((m.key or b"").decode()) for m in messages]
            offset = messages[-1].offset + 1
    return out


def million(address: str, n: int, rounds: int) -> dict[str, Any]:  # noqa: ARG001
    """One million requests in, one million records out, with the worker's memory over time."""
    n = 1_000_000
    deployment = Deployment(address)
    sizes: list[tuple[float, int]] = []
    done = threading.Event()
    try:
        deployment.fill(n)
        process = deployment.worker("decide")

        def watch() -> None:
            begun = time.monotonic()
            while not done.wait(5):
                text = Path(f"/proc/{process.pid}/status").read_text()
                kilobytes = int(text.split("VmRSS:")[1].split()[0])
                sizes.append((round(time.monotonic() - begun, 1), kilobytes // 1024))

        watcher = threading.Thread(target=watch)
        watcher.start()
        deployment.wait(n, process, 3000)
        done.set()
        watcher.join()
        stop(process)
        times = deployment.times()
        names = set()
        for partition in range(deployment.log.partitions(RECORDS)):
            offset = 0
            while messages := deployment.log.read(RECORDS, partition, offset, 5000):
                names.update(m.key for m in messages)
                offset = messages[-1].offset + 1
    finally:
        done.set()
        deployment.close()
    return {
        "requests": n, "records": len(times), "distinct": len(names), "per_s": rate(times),
        "rss_mb": {"first": sizes[2], "middle": sizes[len(sizes) // 2], "last": sizes[-1]},
    }  # fmt: skip


def run_worker(kind: str) -> None:
    from lumyn.collector import collect_seldom
    from lumyn.observing import make_observer
    from lumyn.workers import decide_worker, index_worker, label_worker, worker_settings

    settings = worker_settings()
    observer = make_observer(kind, "info", "127.0.0.1", 0)
    collect_seldom()
    if kind in ("labels", "index"):
        worker: Any = label_worker(settings, observer) if kind == "labels" else index_worker(settings, observer)
        signal.signal(signal.SIGTERM, lambda *_: worker.stop())
        worker.run()
        return
    decider = decide_worker(settings, observer)
    if kind != "decide":
        _pass_through(decider)
    if kind == "faust":
        _fausts_own_waits()
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

    worker._deciding = PassThrough(worker.topic, worker._deciding._memory)


def _fausts_own_waits() -> None:
    """The consumer as Faust has it: a second's sleep when buffers are full, 1.5 s for a fetch of nothing."""
    from streams.kafka import faust_transport

    del faust_transport._Consumer._wait_next_records
    faust_transport._FETCH_WAIT_MS = 1500


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


TASKS = {"passthrough": passthrough, "memory": memory, "latency": latency, "million": million}

if __name__ == "__main__":
    main()
