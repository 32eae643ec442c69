"""A stage over Kafka: topics under a prefix of their own, worker processes, memories of their own; all gone afterwards.

The workers are the ones that `lumyn worker` runs. What goes wrong now stands in a file that they look at.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from lumyn.config import Settings
from lumyn.exporting import write_whole
from lumyn.gamedays.faults import BorrowedKeys, Faults, FaultyStore
from lumyn.kafka_home import KafkaHome
from lumyn.subject_keys import subject_keys
from schemas.errors import LumynError, StorageUnavailable
from schemas.request import Request
from streams.deciding import Answer
from streams.kafka.topics import create_topics
from streams.subject_keys import SubjectKeys
from streams.topics import REQUESTS, TOPICS, full_name

STALENESS_S = 2.0
"""The bound on control's age here; the live one is longer than anybody wants to wait in a rehearsal."""
_BREAKER_REST_S = 0.2
_WITHIN_S = 60.0
_FAULTS = "faults.json"


class FaultFile:
    """The faults of now, as another process wrote them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._faults = Faults()

    def __call__(self) -> Faults:
        status = self._path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._faults = Faults(**json.loads(self._path.read_bytes()))
            self._stamp = stamp
        return self._faults

    def reach_control(self) -> None:
        """Raises `StorageUnavailable` while control can't be confirmed."""
        if self().control_stale:
            raise StorageUnavailable("the game day has cut control off")


def _work(kind: str, settings: Settings, faults: Path) -> None:
    """A worker's whole life, in a process of its own."""
    from lumyn.workers import decide_worker, label_worker
    from streams.observe import Observer

    observer, now = Observer(), FaultFile(faults)  # its troubles are the scenario's: the report tells of them
    try:
        if kind == "labels":
            worker = label_worker(settings, observer)
            for name in (signal.SIGTERM, signal.SIGINT):
                signal.signal(name, lambda *_: worker.stop())
            worker.run()
        else:
            decide_worker(
                settings, observer, wrap=lambda inner: FaultyStore(inner, now), reach_control=now.reach_control
            ).run()
    except LumynError as error:
        sys.exit(error.exit_code)


class KafkaStage:
    """A deployment of a game day's own on the configured brokers; each worker has an exact memory of its own."""

    name = "kafka"

    def __init__(self, folder: Path, settings: Settings, home_keys: SubjectKeys, *, seal: bool) -> None:
        """Makes the topics, as many partitions and copies as the live ones have. Raises `StorageUnavailable`."""
        prefix = f"{settings.prefix}-gameday-{uuid.uuid4().hex[:8]}"
        runtime = {**dict(settings.runtime), "control_max_staleness_s": STALENESS_S, "breaker_rest_s": _BREAKER_REST_S}
        self._settings = replace(
            settings, home=folder, prefix=prefix, qdrant=None, policy_path=None, policy_given=False,
            timeout_s=_WITHIN_S, encrypt_subjects=seal, subject_keys=None, runtime=tuple(sorted(runtime.items())),
        )  # fmt: skip
        self._file = folder / _FAULTS
        self._faults = Faults()
        write_whole(self._file, json.dumps(asdict(self._faults)).encode())
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self.home = KafkaHome(self._settings)
        self.home.log.keys = BorrowedKeys(subject_keys(self._settings), home_keys)
        try:
            live = full_name(settings.prefix, REQUESTS)
            facts = self.home.log.client.describe([live])[live]
            split, copies = (facts.partitions, facts.replicas) if facts is not None else (4, 1)
            create_topics(self.home.log.client, prefix, split, copies)
        except BaseException:
            self.close()
            raise

    def begin(self) -> None:
        """Start the workers, once the stage is set."""
        context = multiprocessing.get_context("spawn")
        for kind in ("labels", "decide"):
            arguments = (kind, self._settings, self._file)
            process = context.Process(target=_work, args=arguments, name=f"gameday-{kind}", daemon=True)
            process.start()
            self._processes.append(process)

    def _alive(self) -> None:
        for process in self._processes:
            if not process.is_alive():
                raise StorageUnavailable(f"the worker {process.name} ended with exit code {process.exitcode}")

    def set_time(self, time_ms: int) -> None:
        """The brokers' clock is the log's."""

    def set_faults(self, faults: Faults) -> None:
        """Said to the workers, and waited for: until control's age passes its bound, or the breaker rests no more."""
        if faults == self._faults:
            return
        was, self._faults = self._faults, faults
        write_whole(self._file, json.dumps(asdict(faults)).encode())
        if faults.control_stale != was.control_stale:
            time.sleep(STALENESS_S + 1.0 if faults.control_stale else 1.5)
        elif was.memory_down and not faults.memory_down:
            time.sleep(2 * _BREAKER_REST_S)

    def deliver(self, requests: Sequence[Request]) -> list[Answer | LumynError]:
        self._alive()
        return self.home.agent.decide(requests)

    def close(self) -> None:
        """End the workers; delete topics, groups and collections of this stage alone."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join(5)
        log = self.home.log
        with suppress(LumynError):
            log.client.delete_groups([log.group("decide"), log.group("labels")])
        with suppress(LumynError):
            log.client.delete_topics([log.name(topic) for topic in TOPICS])
        with suppress(LumynError):
            self.home.close()
