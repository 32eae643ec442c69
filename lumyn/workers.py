"""Building the workers from settings: what `lumyn worker ...` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lumyn.config import LumynConfig, Settings, resolve
from lumyn.policy_file import load_policy_file
from lumyn.stores import Wrap, open_index, open_memory, remove_left_memories, uses_server
from schemas.errors import BadConfig, UsageError
from streams.chosen_memory import ChosenMemory
from streams.find_records import IndexedFinder
from streams.index_sync import Seen, catch_up
from streams.kafka.patience import once_reachable
from streams.memory_sync import SyncedMemory
from streams.observe import Observer
from streams.served_memory import GuardedMemory, ServedMemory
from streams.topics import RECORDS

if TYPE_CHECKING:
    from memory_service.recall import MemoryChoice
    from memory_service.recaller import Recaller
    from memory_service.record_index import RecordIndex
    from memory_service.store import MemoryStore
    from streams.index_worker import IndexWorker
    from streams.kafka.decide_worker import DecideWorker
    from streams.kafka.log import KafkaLog
    from streams.label_worker import LabelWorker
    from streams.shadow_worker import ShadowWorker


def worker_settings(config: LumynConfig | None = None) -> Settings:
    """The settings of a worker, which needs a Kafka. Raises `BadConfig`."""
    settings = resolve(config)
    if settings.kafka is None:
        raise BadConfig(
            "workers run over Kafka, and LUMYN_KAFKA is not set",
            help="set LUMYN_KAFKA=HOST:PORT; without Kafka `lumyn decide` and `lumyn dev` decide by themselves",
        )
    if settings.qdrant is not None and not uses_server(settings):
        raise BadConfig("LUMYN_QDRANT=edge:... is for one process", help="use a Qdrant server, or unset it")
    return settings


def _log(settings: Settings, observer: Observer) -> KafkaLog:
    """The log, once its brokers are there."""
    from lumyn.kafka_log import kafka_log

    log = kafka_log(settings)
    once_reachable(log.client.topics, observer)
    return log


def decide_worker(
    settings: Settings,
    observer: Observer,
    *,
    wrap: Wrap | None = None,
    reach_control: Callable[[], None] = lambda: None,
) -> DecideWorker:
    """A decide worker: memory from the Qdrant server, or an exact one of its own, filled from the same labels.

    `wrap` and `reach_control` are where a game day's faults sit.
    """
    log = _log(settings, observer)
    from streams.kafka.decide_worker import DecideWorker, WorkerSettings

    folder = settings.home.absolute() / f"kafka-{settings.prefix}"
    runtime = settings.runtime_setting
    guarded = GuardedMemory(
        ChosenMemory(lambda choice: _recalled(settings, observer, log, folder, choice, wrap)),
        observer,
        failures=int(runtime("breaker_failures", 3)),
        rest_s=runtime("breaker_rest_s", 2.0),
    )
    fallback = load_policy_file(settings.policy_path) if settings.policy_path else None
    return DecideWorker(
        log,
        guarded,
        observer,
        WorkerSettings(
            folder / "windows",
            batch=int(runtime("batch", 500)),
            linger_s=runtime("linger_s", 0.005),
            control_max_staleness_s=runtime("control_max_staleness_s", 10.0),
            session_timeout_s=runtime("session_timeout_s", 6.0),
            heartbeat_s=runtime("heartbeat_s", 1.5),
            rebalance_timeout_s=runtime("rebalance_timeout_s", 30.0),
            check_partitions_s=runtime("check_partitions_s", 5.0),
        ),
        fallback,
        seal=settings.encrypt_subjects,
        reach_control=reach_control,
    )


def _recalled(
    settings: Settings,
    observer: Observer,
    log: KafkaLog,
    folder: Path,
    choice: MemoryChoice | None,
    wrap: Wrap | None = None,
) -> ServedMemory | SyncedMemory:
    """The memory of a choice as workers ask it."""
    if uses_server(settings) and settings.recall == "server":
        return ServedMemory(
            lambda: open_memory(settings, folder, log.epoch, choice, create=False, wrap=wrap),
            observer,
            max_staleness_s=settings.runtime_setting("memory_max_staleness_s", 60.0),
        )
    own = replace(settings, qdrant=None)

    def opened() -> tuple[MemoryStore, Recaller]:
        remove_left_memories(folder, own, choice)
        return open_memory(own, folder, log.epoch, choice, wrap=wrap)

    return SyncedMemory(log, opened)


def label_worker(settings: Settings, observer: Observer) -> LabelWorker:
    """The label worker; it fills the Qdrant server's memory, or sequences only where each process keeps its own."""
    from streams.label_worker import LabelWorker

    log = _log(settings, observer)
    folder = settings.home.absolute() / f"kafka-{settings.prefix}" / "labels"
    own: Callable[[RecordIndex], object] | None = None
    if not uses_server(settings):
        seen = Seen()
        own = lambda index: catch_up(log, index, seen=seen)  # noqa: E731
    finder = IndexedFinder(
        log,
        lambda: open_index(settings, folder, log.epoch),
        catch_up=own,
        wait_s=settings.runtime_setting("index_wait_s", 30.0),
    )
    open_store: Callable[[MemoryChoice | None], MemoryStore] | None = None
    if uses_server(settings):
        open_store = lambda choice: open_memory(settings, folder, log.epoch, choice, create=True)[0]  # noqa: E731
    return LabelWorker(
        log,
        finder,
        open_store,
        observer,
        beat=_beat,
        beat_s=settings.runtime_setting("memory_max_staleness_s", 60.0) / 3,
    )


def _beat(store: Any, at_ms: int) -> None:
    store.beat(at_ms)


def shadow_worker(settings: Settings, observer: Observer, partitions: Sequence[int] | None = None) -> ShadowWorker:
    """The shadow worker: candidate policies on live decisions, with a memory of its own or the Qdrant server's."""
    from streams.shadow import ShadowAgent
    from streams.shadow_worker import ShadowWorker

    log = _log(settings, observer)
    folder = settings.home.absolute() / f"kafka-{settings.prefix}" / "shadow"
    unknown = [p for p in partitions or () if not 0 <= p < log.partitions(RECORDS)]
    if unknown:
        raise UsageError(f"there is no partition {unknown[0]}", help=f"0 to {log.partitions(RECORDS) - 1}")
    memory = ChosenMemory(lambda choice: _recalled(settings, observer, log, folder, choice))
    return ShadowWorker(ShadowAgent(log, memory, observer, partitions), observer)


def index_worker(settings: Settings, observer: Observer) -> IndexWorker:
    """The index worker: the Qdrant server's record index (or this home's own), and checkpoints with the home's key."""
    from lumyn.home import KEY_FILE
    from lumyn.replaying import trusted_keys
    from streams.checkpointer import Checkpointer
    from streams.index_worker import IndexWorker
    from streams.signing import SigningKey

    log = _log(settings, observer)
    home = settings.home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    key = SigningKey.load_or_create(home / KEY_FILE)
    folder = home / f"kafka-{settings.prefix}"
    return IndexWorker(
        log,
        lambda: open_index(settings, folder, log.epoch),
        observer,
        checkpointer=Checkpointer(log, key, frozenset(trusted_keys(home) or ())),
        checkpoint_s=settings.runtime_setting("checkpoint_s", 10.0),
    )
