"""A deployment under test: real worker processes of one prefix on a real broker, that may be killed, paused, stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewPartitions

from faults.reading import Message, Place, committed, ends, read_to_end
from streams.kafka.client import KafkaSettings
from streams.kafka.log import KafkaLog
from streams.kafka.topics import create_topics

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "examples" / "refunds" / "policy.yml"
STOP_WITHIN_S = 10.0
"""How long a worker may take to stop when it is told to (issue: SIGTERM)."""

RUNTIME: Mapping[str, float] = {
    "session_timeout_s": 3.0,
    "heartbeat_s": 0.5,
    "rebalance_timeout_s": 10.0,
    "check_partitions_s": 0.5,
    "kafka_timeout_s": 10.0,
    "memory_max_staleness_s": 6.0,
    "checkpoint_s": 2.0,
}
"""Shorter than the defaults, so that what waits for a timeout does not wait long."""


class Worker:
    """One worker process, in a process group of its own; what it says goes to a file."""

    def __init__(self, name: str, command: list[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9."""
        self._signal(signal.SIGKILL)
        self.process.wait(timeout=10)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, which: signal.Signals) -> None:
        if self.alive:
            os.kill(self.process.pid, which)

    def stop(self, within_s: float = STOP_WITHIN_S) -> int:
        """SIGTERM; returns the exit code. Fails when it takes longer."""
        self._signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {within_s:g} s\n{self.tail()}") from None

    def wait(self, timeout_s: float) -> int:
        """Its exit code, once it has ended by itself."""
        try:
            return self.process.wait(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} has not ended within {timeout_s:g} s\n{self.tail()}") from None

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, size: int = 3000) -> str:
        return f"--- {self.log.name}\n{self.text()[-size:]}"

    def events(self, *names: str) -> list[dict[str, Any]]:
        """The JSON lines it has said so far, of these events."""
        out = []
        for line in self.text().splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and (not names or value.get("event") in names):
                out.append(value)
        return out

    def wait_for(self, event: str, timeout_s: float = 60.0, times: int = 1) -> None:
        """Until it has said an event so many times."""
        wait_until(lambda: len(self.events(event)) >= times or not self.alive, timeout_s, lambda: self.tail())
        assert len(self.events(event)) >= times, f"{self.name} ended before `{event}`\n{self.tail()}"


class Deployment:
    """Topics of a prefix of its own, and the workers on them."""

    def __init__(
        self,
        address: str,
        *,
        partitions: int = 2,
        runtime: Mapping[str, float] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.address = address
        self.prefix = f"f{uuid.uuid4().hex[:8]}"
        self.partitions = partitions
        self.folder = Path(tempfile.mkdtemp(prefix="lumyn-faults-"))
        self.workers: list[Worker] = []
        self._env = dict(env or {})
        table = "".join(f"{key} = {value}\n" for key, value in {**RUNTIME, **(runtime or {})}.items())
        (self.folder / "lumyn.toml").write_text(f"[runtime]\n{table}")
        self.log = self.open_log()
        create_topics(self.log.client, self.prefix, partitions)

    def open_log(self, timeout_s: float = 10.0) -> KafkaLog:
        return KafkaLog(KafkaSettings(self.address, timeout_s=timeout_s), prefix=self.prefix)

    def name(self, topic: str) -> str:
        return f"{self.prefix}.{topic}"

    def start(
        self,
        kind: str,
        name: str | None = None,
        *,
        fault: str | None = None,
        env: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
        level: str = "info",
        module: str | None = None,
        policy: Path | None = POLICY,
    ) -> Worker:
        """Start `lumyn worker KIND`; workers of one name share a home, and so what they keep there.

        `fault` is one of faulty_worker's: that worker kills itself there. `module` runs instead of `lumyn`.
        """
        name = name or kind
        wrapped = fault is not None or "LUMYN_TEST_CLOCK" in (env or {})
        module = module or ("faults.faulty_worker" if wrapped else "lumyn")
        command = [sys.executable, "-m", module, "worker", kind, "--log", level, *arguments]
        if kind == "decide" and policy is not None:
            command += ["--policy", str(policy)]
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self.folder),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            "LUMYN_KAFKA": self.address,
            "LUMYN_PREFIX": self.prefix,
            "LUMYN_HOME": str(self.folder / f"home-{name}"),
            **({"LUMYN_TEST_FAULT": fault} if fault else {}),
            **self._env,
            **(env or {}),
        }
        number = sum(worker.name == name for worker in self.workers)
        log = self.folder / f"{name}-{number}.log"
        worker = Worker(name, command, environment, self.folder, log)
        self.workers.append(worker)
        return worker

    def started(self, kind: str, name: str | None = None, **options: Any) -> Worker:
        """Start a worker and wait until it works."""
        worker = self.start(kind, name, **options)
        worker.wait_for({"decide": "worker_started", "labels": "labels_opened"}[kind])
        return worker

    def waiting(self) -> dict[Place, int]:
        """How many requests and label requests of each partition are not taken up yet.

        One at least where an open transaction hides what there is.
        """
        out = {}
        for topic, group, count in (("requests", "decide", self.partitions), ("label-requests", "labels", 1)):
            places = [(self.name(topic), partition) for partition in range(count)]
            positions = committed(self.address, self.name(group), places)
            stable, high = (ends(self.address, places, read_committed=only) for only in (True, False))
            left = Counter((m.topic, m.partition) for m in read_to_end(self.address, positions))
            for place in places:
                if left[place] or stable[place] < high[place]:
                    out[place] = max(1, left[place])
        return out

    def wait_done(self, timeout_s: float = 90.0, *, labels: bool = False, requests: bool = True) -> None:
        """Until every request in the log is taken up; with `labels` every label request (too)."""
        topics = {self.name("requests")} if requests else set()
        topics |= {self.name("label-requests")} if labels else set()

        def done() -> bool:
            return not any(topic in topics for topic, _ in self.waiting())

        wait_until(done, timeout_s, lambda: f"still waiting: {self.waiting()}\n{self.tails()}", every_s=0.3)

    def tails(self) -> str:
        return "\n".join(worker.tail(1500) for worker in self.workers)

    def add_partitions(self, topic: str, count: int) -> None:
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        for future in admin.create_partitions([NewPartitions(self.name(topic), count)]).values():
            future.result(timeout=20)

    def records(self) -> list[Message]:
        """Every committed record."""
        places = {(self.name("records"), partition): 0 for partition in range(self.partitions)}
        return read_to_end(self.address, places)

    def close(self, *, keep: bool = False) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.resume()
                worker.kill()
        self.log.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def deployed(address: str, **options: Any) -> Iterator[Deployment]:
    """A deployment that leaves nothing running; its folder stays when the test fails, and is named."""
    deployment = Deployment(address, **options)
    keep = True
    try:
        yield deployment
        keep = False
    finally:
        keep = keep or bool(os.environ.get("LUMYN_TEST_KEEP"))
        deployment.close(keep=keep)
        if keep:
            print(f"logs of the workers: {deployment.folder}")


def wait_until(
    reached: Callable[[], bool], timeout_s: float, what: Callable[[], str] | str = "it", every_s: float = 0.05
) -> None:
    """Wait for something that must come; fails with what was said instead."""
    deadline = time.monotonic() + timeout_s
    while not reached():
        if time.monotonic() > deadline:
            text = what() if callable(what) else what
            raise AssertionError(f"not within {timeout_s:g} s: {text}")
        time.sleep(every_s)
