"""The decide worker: a Faust stream agent over the requests topic, deciding exactly once.

With `faust_transport` it alone knows Faust. Faust joins the consumer group, spreads partitions and feeds events; what
it must not do is commit: each partition's own transactional writer commits outputs and position together, and its
position is where reading starts after every rebalance (docs/architecture.md, "Exactly once on Kafka").
"""

from __future__ import annotations

import asyncio
import logging
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faust

from schemas.errors import BadConfig, Fenced, KeysUnavailable, LumynError, StorageUnavailable, to_keep
from streams.control import ControlState, publish_event
from streams.decide_agent import GROUP
from streams.deciding import Deciding, Pending
from streams.kafka.faust_transport import Transport, credentials
from streams.kafka.follow import ControlFollower
from streams.kafka.log import KafkaLog
from streams.kafka.patience import BROKERS_WITHIN_S, once_reachable
from streams.log import Message, PartitionWriter
from streams.memory_sync import Memory
from streams.observe import Observer
from streams.partition_agent import PartitionAgent
from streams.policy import CompiledPolicy
from streams.topics import RECEIPTS, REQUESTS

logging.getLogger("faust").setLevel(logging.ERROR)
logging.getLogger("mode").setLevel(logging.ERROR)
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
logging.getLogger("asyncio").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class WorkerSettings:
    """How a decide worker runs. Times in seconds."""

    folder: Path
    batch: int = 500
    linger_s: float = 0.005
    control_max_staleness_s: float = 10.0
    session_timeout_s: float = 6.0
    heartbeat_s: float = 1.5
    rebalance_timeout_s: float = 30.0
    finish_within_s: float = 2.0
    stop_within_s: float = 5.0
    brokers_within_s: float = BROKERS_WITHIN_S
    check_partitions_s: float = 5.0
    report_s: float = 1.0


@dataclass(frozen=True, eq=False)
class Assignment:
    """The partitions that the group gave this worker at one time."""

    partitions: frozenset[int] = frozenset()


class DecideWorker:
    """Runs until it is told to stop (SIGTERM, SIGINT, `stop`) or something is wrong that only an operator can mend."""

    def __init__(
        self,
        log: KafkaLog,
        memory: Memory,
        observer: Observer,
        settings: WorkerSettings,
        fallback: CompiledPolicy | None = None,
        *,
        seal: bool = False,
        reach_control: Callable[[], None] = lambda: None,
    ) -> None:
        """With `seal`, the record of a request that came in clear is sealed all the same.

        `reach_control` is called before the end of control is asked for (`ControlFollower`).
        """
        self._log = log
        self._observer = observer
        self._settings = settings
        self._fallback = fallback
        self.topic = log.name(REQUESTS)
        self._partitions = log.partitions(REQUESTS)
        self._deciding = Deciding(self.topic, memory, fallback, partitions=self._partitions, keys=log.keys, seal=seal)
        self._agents: dict[int, PartitionAgent] = {}
        self._owning = threading.Lock()
        self._assigning = threading.Lock()
        self._assignment = Assignment()
        self._pool = ThreadPoolExecutor(max_workers=min(16, self._partitions), thread_name_prefix="partition")
        self._follower = ControlFollower(
            log, observer, max_staleness_s=settings.control_max_staleness_s, reach=reach_control
        )
        self._stopping = threading.Event()
        self._failure: LumynError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done: asyncio.Event | None = None
        self._receipts_id = ""
        for part in ("control", "partitions"):
            observer.ready(part, False)

    def run(self) -> None:
        """Decide until stopped. Raises the `LumynError` that ended it, if one did."""
        once_reachable(self._prepare, self._observer, self._settings.brokers_within_s)
        self._follower.start()
        self._publish_fallback()
        for name in (signal.SIGTERM, signal.SIGINT):  # for good: a second one must not cut the ending short
            signal.signal(name, lambda *_: self.stop())
        hook, threading.excepthook = threading.excepthook, self._thread_failed
        try:
            with tempfile.TemporaryDirectory(prefix="lumyn-faust-", ignore_cleanup_errors=True) as folder:
                asyncio.run(self._main(folder))
        finally:
            threading.excepthook = hook
            self._stopping.set()
            self._log.client.hasten()
            deadline = time.monotonic() + 1.5
            for partition in list(self._agents):  # what is not over by then ends with the process
                self._give_up(partition, max(0.0, deadline - time.monotonic()))
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._follower.stop()
        if self._failure is not None:
            raise self._failure

    def _prepare(self) -> None:
        """What must be known of the brokers before the first partition."""
        self._check_counts()
        self._check_session_timeout()
        facts = self._log.client.describe([self._log.name(RECEIPTS)])[self._log.name(RECEIPTS)]
        self._receipts_id = facts.topic_id if facts else ""

    def _publish_fallback(self) -> None:
        """A policy used from a file is published by its hash first, so that every record can be explained."""
        policy = self._fallback
        known = self._follower.state().policies.get(policy.policy_hash) if policy is not None else None
        if policy is None or (known is not None and known.origin != "shadow"):
            return
        self._log.append([publish_event(policy, "lumyn", "file")])
        self._follower.wait_for(lambda state: policy.policy_hash in state.policies, 10)

    def stop(self, failure: LumynError | None = None) -> None:
        """End the run, from any thread."""
        self._failure = self._failure or failure
        self._stopping.set()
        if self._loop is not None and self._done is not None:
            with suppress(RuntimeError):  # the loop is closed: the run is ending already
                self._loop.call_soon_threadsafe(self._done.set)

    def _thread_failed(self, told: threading.ExceptHookArgs) -> None:
        """One of the stream's own threads died: without it nothing would be read, and nobody would know."""
        if told.exc_value is not None and not self._stopping.is_set():
            self.stop(StorageUnavailable(f"the stream ended: {told.exc_type.__name__}: {told.exc_value}"))

    async def _main(self, folder: str) -> None:
        """Until stopped; Faust wants a folder, in which it keeps nothing."""
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        app = self._app(folder)
        watcher = asyncio.create_task(self._watch(app))
        reporter = asyncio.create_task(self._report())
        await app.start()
        self._observer.event("worker_started", topic=self.topic, partitions=self._partitions)
        await self._done.wait()
        watcher.cancel()
        reporter.cancel()
        self._loop.call_later(self._settings.finish_within_s, self._log.client.hasten)
        try:
            await asyncio.wait_for(app.stop(), self._settings.stop_within_s)
        except (TimeoutError, asyncio.CancelledError):
            self._observer.event("stopped_late")
        self._observer.event("worker_stopped")

    async def _watch(self, app: Any) -> None:
        """What ends a worker: Faust itself failing, or another partition count."""
        checked = time.monotonic()
        while True:
            await asyncio.sleep(0.2)
            if app.crashed or app.should_stop:
                self.stop(StorageUnavailable(f"the stream ended: {app.crash_reason!r}"))
                return
            if time.monotonic() - checked > self._settings.check_partitions_s:
                checked = time.monotonic()
                try:
                    await asyncio.to_thread(self._check_counts)
                    await asyncio.to_thread(self._tell_lag)
                except BadConfig as error:
                    self.stop(error)
                    return
                except LumynError as error:
                    self._observer.trouble("brokers_unreachable", error)

    async def _report(self) -> None:
        """What is so between batches, too: whether control is current, without which every decision is ABSTAIN."""
        while True:
            control = self._follower.state(0)
            self._observer.control_version(control.version, control.stale)
            self._observer.ready("control", not control.stale)
            await asyncio.sleep(self._settings.report_s)

    def _tell_lag(self) -> None:
        with self._owning:
            positions = {(self.topic, partition): agent.position for partition, agent in self._agents.items()}
        ends = self._log.client.ends(positions)
        self._observer.lag({place[1]: max(0, ends[place] - position) for place, position in positions.items()})

    def _check_counts(self) -> None:
        """Raises `BadConfig` when a topic's partition count is another than at the start."""
        found = self._log.client.topics(timeout_s=3).get(self.topic)
        if found is not None and found != self._partitions:
            raise BadConfig(
                f"topic `{self.topic}` has {found} partitions now, {self._partitions} when this worker started",
                help="a partition count never changes within a prefix: request ids would be looked for in the wrong "
                "place. Stop all workers and move to a new LUMYN_PREFIX (docs/run-on-kafka.md)",
            )

    def _check_session_timeout(self) -> None:
        """Raises `BadConfig` when no group would take this worker: the stream would ask for ever, and say nothing."""
        try:
            least, most = self._log.client.session_bounds_s()
        except StorageUnavailable as error:  # this user may not ask
            self._observer.trouble("session_timeout_not_checked", error)
            return
        asked = self._settings.session_timeout_s
        if not least <= asked <= most:
            raise BadConfig(
                f"[runtime] session_timeout_s is {asked:g}, and the brokers take {least:g} to {most:g} only",
                help="correct it; `heartbeat_s` is a third of it, at most",
            )

    def _app(self, folder: str) -> Any:
        settings, client = self._settings, self._log.client.settings
        app = faust.App(
            self._log.group(GROUP),
            broker=";".join(f"kafka://{address.strip()}" for address in client.bootstrap.split(",")),
            broker_credentials=credentials(client.options),
            broker_session_timeout=settings.session_timeout_s,
            broker_heartbeat_interval=settings.heartbeat_s,
            broker_rebalance_timeout=settings.rebalance_timeout_s,
            broker_max_poll_records=settings.batch,
            consumer_auto_offset_reset="earliest",
            stream_buffer_maxsize=2 * settings.batch,
            stream_wait_empty=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            datadir=folder,
            store="memory://",
            value_serializer="raw",
            key_serializer="raw",
            autodiscover=False,
        )
        app.transport = Transport(app.conf.broker, app, self, loop=app.loop)
        topic = app.topic(self.topic, key_type=bytes, value_type=bytes, acks=False)

        async def decide(stream: Any) -> None:
            async for events in stream.take_events(settings.batch, within=settings.linger_s):
                messages = [_message(event.message) for event in events]
                try:
                    await asyncio.to_thread(self.process, messages)
                except Exception as error:
                    self.stop(_unexpected(error))
                    await asyncio.Event().wait()  # take nothing more

        app.agent(topic, name="decide")(decide)
        return app

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that are ours now."""
        return self._assignment.partitions

    def reassigned(self, partitions: Iterable[int]) -> Assignment:
        """The group says that these are ours now, and no others: what is being done for an older assignment stops."""
        self._assignment = Assignment(frozenset(partitions))
        self._observer.ready("partitions", False)
        return self._assignment

    def open(self, assignment: Assignment) -> dict[int, int]:
        """Own the assigned partitions and no others; returns each one's exact position.

        Blocks while writers are opened. An assignment that is not the newest any more gives nothing: its successor may
        have opened these by now, or another worker.
        """
        with self._assigning:
            if assignment is not self._assignment:
                return {}
            for partition in set(self._agents) - assignment.partitions:
                self._give_up(partition)
            new = sorted(assignment.partitions - set(self._agents))
            for partition, agent in zip(new, self._pool.map(lambda p: self._own(p, assignment), new), strict=True):
                if agent is not None:
                    with self._owning:
                        self._agents[partition] = agent
            if assignment is self._assignment:  # none is a share, too: a spare worker is ready to take over
                self._observer.ready("partitions", True)
            return {partition: agent.position for partition, agent in self._agents.items()}

    def _own(self, partition: int, assignment: Assignment) -> PartitionAgent | None:
        """Open a partition, trying on while the brokers are in trouble; None once it is not wanted any more."""
        wait = 0.1
        while not self._stopping.is_set() and assignment is self._assignment:
            agent = None
            try:
                agent = PartitionAgent(
                    self._log,
                    partition,
                    self._deciding,
                    open_writer=lambda: self._open_writer(partition),
                    folder=self._settings.folder,
                    epoch=self._receipts_id,
                    observer=self._observer,
                    wanted=lambda: not self._stopping.is_set() and partition in self._assignment.partitions,
                )
                agent.open()
                return agent
            except StorageUnavailable as error:
                if agent is not None:
                    agent.close(0.1)
                self._observer.trouble("partition_not_opened", error, {"partition": partition})
                self._stopping.wait(wait)
                wait = min(2.0, wait * 2)
        return None

    def _open_writer(self, partition: int) -> PartitionWriter:
        """Our own open transaction is ended by opening; anybody else's would hide receipts, and so first decisions."""
        writer = self._log.open_writer(GROUP, REQUESTS, partition, settle=False)
        place = (self._log.name(RECEIPTS), partition)
        try:
            if self._log.client.is_settled(place):
                return writer
        except BaseException:
            writer.close()
            raise
        writer.close()
        raise StorageUnavailable(
            "another producer's open transaction hides receipts: retries could not be told from new requests",
            where=f"{place[0]}/{partition}",
            help="it ends at its time limit, or by `kafka-transactions.sh abort`; only decide workers may write there",
        )

    def revoked(self, partitions: Iterable[int]) -> None:
        """Give partitions up, after what is being committed."""
        with self._assigning:
            for partition in partitions:
                self._give_up(partition)

    def _give_up(self, partition: int, wait_s: float = 5.0) -> None:
        with self._owning:
            agent = self._agents.pop(partition, None)
        if agent is not None:
            agent.close(wait_s)

    def process(self, messages: Sequence[Message]) -> None:
        """Decide a batch and commit it, partition by partition; returns when all that this worker owns took effect."""
        self._observer.batch(len(messages))
        left: dict[int, list[Message]] = {}
        for message in messages:
            left.setdefault(message.partition, []).append(message)
        wait = 0.1
        while left and not self._stopping.is_set():
            control = self._follower.state()
            self._observer.control_version(control.version, control.stale)
            left, fenced = self._attempt(left, control)
            if fenced:
                self._wait_while_owned(left, 2 * self._settings.heartbeat_s)
            elif left:
                self._stopping.wait(wait)
                wait = min(2.0, wait * 2)

    def _wait_while_owned(self, partitions: Iterable[int], most_s: float) -> None:
        """Until the group says who owns these now. Who was fenced and opened its writer at once would fence the new

        owner in turn; and an owner that was fenced by a zombie must go on with what it has, or it would stay undecided.
        """
        agents = {partition: self._agents.get(partition) for partition in partitions}
        deadline = time.monotonic() + most_s
        while any(agent is not None and self._agents.get(p) is agent for p, agent in agents.items()):
            left = deadline - time.monotonic()
            if left <= 0 or self._stopping.wait(min(0.05, left)):
                return

    def _attempt(
        self, batch: Mapping[int, list[Message]], control: ControlState
    ) -> tuple[dict[int, list[Message]], bool]:
        """One try; returns what could not be committed, and whether that was because another writer fenced ours."""
        work: list[tuple[PartitionAgent, list[Pending]]] = []
        failed: dict[int, list[Message]] = {}
        fenced = False
        for partition, messages in batch.items():
            with self._owning:
                agent = self._agents.get(partition)
            if agent is None:
                if partition in self._assignment.partitions:  # it is being opened
                    failed[partition] = messages
                continue  # else its new owner reads it
            try:
                taken = agent.take(messages)
            except StorageUnavailable as error:
                self._observer.trouble("gap_unreadable", error, {"partition": partition})
                failed[partition] = messages
                continue
            try:
                if taken:
                    work.append((agent, [self._deciding.parse(message, control) for message in taken]))
            except KeysUnavailable as error:  # nothing sealed can be read, so nothing may be decided
                self._observer.trouble("keys_unavailable", error, {"partition": partition})
                failed[partition] = messages
        self._deciding.recall([item for _, pending in work for item in pending], control)
        outcomes = self._pool.map(lambda one: _decided(one[0], one[1], control), work)
        for (agent, _), problem in zip(work, outcomes, strict=True):
            if isinstance(problem, StorageUnavailable):
                fenced = fenced or isinstance(problem, Fenced)
                name = "fenced" if isinstance(problem, Fenced) else "commit_failed"
                self._observer.trouble(name, problem, {"partition": agent.partition})
                failed[agent.partition] = batch[agent.partition]
            elif problem is not None:
                raise problem
        return failed, fenced


def _decided(agent: PartitionAgent, pending: Sequence[Pending], control: ControlState) -> LumynError | None:
    try:
        agent.decide(pending, control)
    except LumynError as error:
        return to_keep(error)
    return None


def _unexpected(error: Exception) -> LumynError:
    if isinstance(error, LumynError):
        return error
    return StorageUnavailable(
        f"deciding failed in a way that it never should: {type(error).__name__}: {error}",
        help="nothing of the batch was committed; start the worker again, and report this with the worker's log",
    )


def _message(message: Any) -> Message:
    value = message.value if message.value is not None else b""
    return Message(REQUESTS, message.partition, message.offset, round(message.timestamp * 1000), message.key, value)
