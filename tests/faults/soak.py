"""`make soak MINUTES=n`: every fault of the suite mixed at random from a printed seed, round after round, under load.

A round has topics of its own. At its end everything is healed, all must be decided, and the checker reads all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from servers.kafka import JavaBroker, java_broker
from servers.qdrant import QdrantServer, own_server

from faults.deployment import Deployment, Worker, deployed, wait_until
from faults.faulty_worker import DECIDE_POINTS
from faults.invariants import check
from faults.label_load import LabelLoad
from faults.load import Load
from faults.memories import differences, memory_anew, memory_of
from faults.pauses import longest_pause
from schemas.errors import LumynError

_PARTITIONS = 4
_WORKERS = 3
_BROKER = {"group.min.session.timeout.ms": "1000", "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000"}


class Round:
    """Workers of every kind on topics of their own, load, and what may happen to them."""

    def __init__(self, deployment: Deployment, broker: JavaBroker, qdrant: QdrantServer | None, seed: int) -> None:
        self.deployment, self.broker, self.qdrant = deployment, broker, qdrant
        self.pick = random.Random(seed)
        self.load = Load(deployment, seed)
        self.labels = LabelLoad(deployment, seed)
        self.happened: Counter[str] = Counter()
        self.decide = [self._start("decide", f"decide-{number}") for number in range(_WORKERS)]
        self.others = {kind: self._start(kind) for kind in ("labels", "index")}
        self._doomed: set[int] = set()
        self._foreign: list[Producer] = []

    def _start(self, kind: str, name: str | None = None, fault: str | None = None) -> Worker:
        return self.deployment.start(kind, name, fault=fault)

    @property
    def faults(self) -> dict[Callable[[], None], int]:
        """What may happen, and how often in proportion."""
        happen = {
            self.decide_worker_killed: 8,
            self.decide_worker_killed_at_a_point: 8,
            self.decide_worker_paused: 4,
            self.decide_worker_restarted: 4,
            self.partition_taken_by_a_stranger: 2,
            self.label_worker_killed: 4,
            self.index_worker_killed: 2,
            self.requests_left_in_a_transaction: 2,
            self.broker_killed: 1,
            self.broker_stopped: 1,
        }
        if self.qdrant is not None:
            happen |= {self.qdrant_killed: 2, self.qdrant_paused: 2, self.qdrant_emptied: 1}
        return happen

    def happen(self) -> None:
        """One thing, at random."""
        self._bury()
        (fault,) = self.pick.choices(list(self.faults), list(self.faults.values()))
        self.happened[fault.__name__] += 1
        print(f"  {time.strftime('%H:%M:%S')} {fault.__name__}", flush=True)
        fault()

    def _bury(self) -> None:
        """Whoever was to die is followed by another; nobody else may have died."""
        for number, worker in enumerate(self.decide):
            if not worker.alive:
                assert worker.process.pid in self._doomed, f"{worker.name} ended by itself\n{worker.tail()}"
                self.decide[number] = self._start("decide", worker.name)
        for worker in self.others.values():
            assert worker.alive, f"{worker.name} ended by itself\n{worker.tail()}"

    def _one(self) -> int:
        return self.pick.randrange(len(self.decide))

    def decide_worker_killed(self) -> None:
        at = self._one()
        self.decide[at].kill()
        self._pause(3)
        self.decide[at] = self._start("decide", self.decide[at].name)

    def decide_worker_killed_at_a_point(self) -> None:
        at = self._one()
        self.decide[at].kill()
        fault = f"{self.pick.choice(DECIDE_POINTS)}:{self.pick.randrange(1, 60)}"
        self.decide[at] = self._start("decide", self.decide[at].name, fault)
        self._doomed.add(self.decide[at].process.pid)

    def decide_worker_paused(self) -> None:
        at = self._one()
        self.decide[at].pause()
        self._pause(10)
        self.decide[at].resume()

    def decide_worker_restarted(self) -> None:
        at = self._one()
        worker = self.decide[at]
        code = worker.stop()
        assert code == 0 or worker.process.pid in self._doomed or "worker_started" not in worker.text(), worker.tail()
        self.decide[at] = self._start("decide", worker.name)

    def partition_taken_by_a_stranger(self) -> None:
        """As a zombie does that opens its writer late: the owner is fenced, and must take the partition back."""
        log = self.deployment.open_log()
        with suppress(LumynError):  # a coordinator that is still starting
            log.open_writer("decide", "requests", self.pick.randrange(_PARTITIONS), settle=False).close()
        log.close()

    def label_worker_killed(self) -> None:
        self.others["labels"].kill()
        self._pause(2)
        self.others["labels"] = self._start("labels")

    def index_worker_killed(self) -> None:
        self.others["index"].kill()
        self._pause(2)
        self.others["index"] = self._start("index")

    def requests_left_in_a_transaction(self) -> None:
        """A producer that begins and never ends; the broker does after five seconds."""
        options = {"bootstrap.servers": self.deployment.address, "log_level": 0, "transaction.timeout.ms": 5000}
        producer = Producer({**options, "transactional.id": f"{self.deployment.prefix}-{self.pick.random()}"})
        partition = self.pick.randrange(_PARTITIONS)
        with suppress(KafkaException):
            producer.init_transactions(20)
            producer.begin_transaction()
            producer.produce(self.deployment.name("requests"), b"never", partition=partition)
            producer.flush(10)
        self._foreign.append(producer)

    def broker_killed(self) -> None:
        self.broker.kill()
        self._pause(6)
        self.broker.start()

    def broker_stopped(self) -> None:
        self.broker.stop()
        self._pause(6)
        self.broker.start()

    def qdrant_killed(self) -> None:
        assert self.qdrant is not None
        self.qdrant.kill()
        self._pause(5)
        self.qdrant.start()

    def qdrant_paused(self) -> None:
        assert self.qdrant is not None
        self.qdrant.pause()
        self._pause(8)
        self.qdrant.resume()

    def qdrant_emptied(self) -> None:
        assert self.qdrant is not None
        self.qdrant.kill()
        shutil.rmtree(self.qdrant.storage, ignore_errors=True)
        self._pause(3)
        self.qdrant.start()

    def _pause(self, most_s: float) -> None:
        time.sleep(self.pick.uniform(0, most_s))

    def labelling(self, stop: threading.Event) -> None:
        """Label what has been decided, a few at a time."""
        while not stop.wait(2):
            try:
                records = self.deployment.records()
            except (AssertionError, KafkaException):
                continue  # no broker just now
            if records:
                self.labels.batch(self.pick.choices(records, k=10), 10)

    def finish(self) -> str:
        """Heal, wait until all is done, and check; returns a line about it."""
        for worker in self.decide:
            if worker.process.pid in self._doomed and worker.alive:
                worker.kill()
        self._bury()
        self.deployment.wait_done(240, labels=True)
        snapshot = check(self.deployment.address, self.deployment.prefix, _PARTITIONS, self.load.acknowledged)
        if self.qdrant is not None:
            url, folder = self.qdrant.url, self.deployment.folder / "looking"
            anew = memory_anew(self.deployment)
            wait_until(lambda: _version(self.deployment, folder, url) == anew[0], 120, self.deployment.tails, 1.0)
            wrong = differences(memory_of(self.deployment, folder, url), anew)
            assert not wrong, "the memory is not what the labels say:\n" + "\n".join(wrong[:20])
        self._bury()
        outcomes = Counter(json.loads(m.value or b"")["outcome"] for m in snapshot.of("receipts"))
        resident = {worker.name: _resident_mib(worker) for worker in (*self.decide, *self.others.values())}
        return (
            f"{len(snapshot.of('requests'))} requests ({self.load.failed} sends failed), {dict(outcomes)}, "
            f"{len(snapshot.of('labels'))} labels; {sum(self.happened.values())} faults; longest pause "
            f"{longest_pause(snapshot)}; MiB {resident}"
        )

    def close(self) -> None:
        self.load.close()
        self.labels.close()


def _version(deployment: Deployment, folder: Path, url: str) -> int:
    try:
        return memory_of(deployment, folder, url)[0]
    except LumynError:
        return -1


def _resident_mib(worker: Worker) -> int:
    pages = int(Path(f"/proc/{worker.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@contextmanager
def _qdrant() -> Iterator[QdrantServer | None]:
    if not os.environ.get("LUMYN_TEST_QDRANT"):
        print("without a Qdrant server (LUMYN_TEST_QDRANT names a binary): its faults are left out")
        yield None
        return
    server = own_server()
    try:
        yield server
    finally:
        server.resume()
        server.close()


def soak(minutes: float, round_s: float, seed: int) -> int:
    """Rounds until the time is over; returns how many requests were decided."""
    end, number, total = time.monotonic() + 60 * minutes, 0, 0
    happened: Counter[str] = Counter()
    broker = java_broker(overrides=_BROKER)
    try:
        while time.monotonic() < end:
            number += 1
            print(f"round {number}, seed {seed + number}", flush=True)
            with _qdrant() as qdrant:
                env = {"LUMYN_QDRANT": qdrant.url, "LUMYN_QDRANT_DEADLINE": "1"} if qdrant else {}
                with deployed(broker.address, partitions=_PARTITIONS, env=env) as deployment:
                    total += _round(deployment, broker, qdrant, seed + number, min(round_s, end - time.monotonic()), happened)
    finally:
        broker.close()
    print(f"{number} rounds, {total} requests, nothing lost, nothing twice; {dict(happened)}")
    return total


def _round(
    deployment: Deployment,
    broker: JavaBroker,
    qdrant: QdrantServer | None,
    seed: int,
    seconds: float,
    happened: Counter[str],
) -> int:
    this = Round(deployment, broker, qdrant, seed)
    stop = threading.Event()
    labelling = threading.Thread(target=this.labelling, args=(stop,), daemon=True)
    end = time.monotonic() + seconds
    with this.load:
        labelling.start()
        try:
            while time.monotonic() < end:
                time.sleep(this.pick.uniform(0.5, 6))
                this.happen()
        finally:
            stop.set()
            labelling.join(60)
    print(f"  {this.finish()}", flush=True)
    happened.update(this.happened)
    this.close()
    return len(this.load.acknowledged)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--round-minutes", type=float, default=4)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args()
    print(f"seed {given.seed}: `--seed {given.seed}` makes the same choices again", flush=True)
    try:
        soak(given.minutes, 60 * given.round_minutes, given.seed)
    except AssertionError as error:
        print(f"FAILED: {error}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
