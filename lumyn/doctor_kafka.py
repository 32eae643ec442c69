"""The doctor over Kafka: brokers, topics, permissions, workers, and the stores on a Qdrant server."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata

from lumyn.config import Settings
from lumyn.doctor_home import control_findings, derived_files, index_findings
from lumyn.findings import Finding, failed, guarded
from lumyn.kafka_log import kafka_log
from lumyn.stores import collections, open_engine, open_memory, uses_server
from memory_service.qdrant.engine import NoCollection, QdrantEngine
from schemas.errors import Fenced, LumynError, MemoryUnavailable
from streams.control import read_control
from streams.decide_agent import GROUP
from streams.decided import decided_up_to
from streams.kafka.log import KafkaLog
from streams.kafka.topics import check_topics
from streams.label_worker import GROUP as LABEL_GROUP
from streams.topics import LABEL_REQUESTS, LABELS, REQUESTS, TOPICS
from streams.versions import last_version

_MANY = 10_000
"""Requests that wait without the workers being short of breath."""
_DECIDE = "start `lumyn worker decide`"
_LABELS = "is `lumyn worker labels` running?"
_FILL = "start `lumyn worker labels`; if it runs, see its log"
_INDEX = "is `lumyn worker index` running?"
_Look = Callable[[Settings, KafkaLog], Iterator[Finding]]


def examine_kafka(settings: Settings, timeout_s: float) -> Iterator[Finding]:
    """Everything behind LUMYN_KAFKA and LUMYN_QDRANT."""
    runtime = (*(item for item in settings.runtime if item[0] != "kafka_timeout_s"), ("kafka_timeout_s", timeout_s))
    log = kafka_log(replace(settings, runtime=runtime))
    try:
        usable = yield from _brokers_and_topics(settings, log)
        if usable:
            for part, look in _ON_TOPICS:
                yield from guarded(part, partial(look, settings, log))
        if uses_server(settings):
            yield from _qdrant(settings, log, usable)
        elif usable:
            yield from guarded(
                "memory", lambda: derived_files(settings, log, settings.home.absolute() / f"kafka-{settings.prefix}")
            )
    finally:
        log.close()


def _brokers_and_topics(settings: Settings, log: KafkaLog) -> Generator[Finding, None, bool]:
    """Returns whether there is anything to look at behind them."""
    try:
        brokers = log.client.brokers()
    except LumynError as error:
        yield failed("brokers", error, service=True, mend="start them, or correct LUMYN_KAFKA and [kafka]")
        return False
    yield Finding("brokers", "ok", f"{len(brokers)} reached: {', '.join(sorted(brokers.values()))}")
    try:
        known = log.client.topics()
    except LumynError as error:
        yield failed("topics", error)
        return False
    missing = [name for name in map(log.name, TOPICS) if name not in known]
    if missing:
        yield Finding("topics", "fail", f"missing: {', '.join(missing)}", "`lumyn topics create`")
        return False
    yield from guarded("topics", lambda: _topics(settings, log, len(brokers)))
    return True


def _topics(settings: Settings, log: KafkaLog, brokers: int) -> Iterator[Finding]:
    findings = check_topics(log.client, settings.prefix)
    wrong = [finding for finding in findings if not finding.ok]
    for finding in wrong:
        yield Finding("topics", "fail", finding.what, finding.mend)
    if not wrong:
        yield Finding("topics", "ok", f"{len(findings)} as they must be, {log.partitions(REQUESTS)} partitions")
    facts = log.client.describe([log.name(name) for name in TOPICS])
    copies = min(fact.replicas for fact in facts.values() if fact)
    if copies < 3:
        why = f"{copies} cop{'y' if copies == 1 else 'ies'} of each message: decisions may be lost with a broker"
        mend = "three brokers, and `lumyn topics create --replication 3` under a new LUMYN_PREFIX"
        yield Finding("topics", "warn", why, mend if brokers < 3 else "reassign the partitions to three brokers")


def _session(settings: Settings, log: KafkaLog) -> Iterator[Finding]:
    """A session timeout that the brokers refuse keeps a worker out of its group for good."""
    try:
        least, most = log.client.session_bounds_s()
    except LumynError as error:
        yield Finding("settings", "warn", error.message, "allow this user DescribeConfigs on the cluster")
        return
    asked = settings.runtime_setting("session_timeout_s", 6.0)
    if least <= asked <= most:
        yield Finding("settings", "ok", f"session timeout {asked:g} s: the brokers take {least:g} to {most:g}")
    else:
        what = f"[runtime] session_timeout_s is {asked:g}, and the brokers take {least:g} to {most:g} only"
        yield Finding("settings", "fail", what, "correct it; decide workers could never join their group")


def _access(settings: Settings, log: KafkaLog) -> Iterator[Finding]:  # noqa: ARG001
    """What this user may do, as the brokers say; no message is written to find out."""
    allowed = log.client.allowed([log.name(name) for name in TOPICS])
    unread = sorted(name for name, operations in allowed.items() if "READ" not in operations)
    written = sorted(name for name, operations in allowed.items() if "WRITE" in operations)
    if unread:
        yield Finding("access", "warn", f"this user may not read {', '.join(unread)}", "the ACLs: docs/run-on-kafka.md")
    said = "every topic" if len(written) == len(TOPICS) else ", ".join(written) or "none"
    yield Finding("access", "ok", f"this user may write: {said}")


def _transactions(settings: Settings, log: KafkaLog) -> Iterator[Finding]:
    """A transaction without a message is begun and taken back: coordinators and their log work, and nothing stays."""
    producer = log.client.producer(f"{settings.prefix}-append-doctor")
    try:
        with suppress(Fenced):  # another doctor, at the same time
            producer.open()
            producer.begin()
            producer.abort()
    finally:
        producer.close()
    yield Finding("transactions", "ok", "a transactional producer opens, begins and takes back")


def _control(settings: Settings, log: KafkaLog) -> Iterator[Finding]:
    yield from control_findings(settings, read_control(log))


def _decide(settings: Settings, log: KafkaLog) -> Iterator[Finding]:  # noqa: ARG001
    places = [(log.name(REQUESTS), p) for p in range(log.partitions(REQUESTS))]
    begins, ends = log.client.begins(places), log.client.ends(places)
    positions = {place: log.committed(GROUP, REQUESTS, place[1]) or decided_up_to(log, place[1]) for place in places}
    expired = sum(max(0, begins[place] - at) for place, at in positions.items())
    waiting = sum(max(0, ends[place] - max(at, begins[place])) for place, at in positions.items())
    if expired:
        yield Finding(
            "decide", "fail", f"{expired} requests expired before they were decided", "callers must send them again"
        )
    group = log.client.group(log.group(GROUP))
    idle = [str(p) for topic, p in places if (topic, p) not in group.assigned]
    said = f"{group.members} worker{'' if group.members == 1 else 's'}, {waiting} requests wait"
    if group.members == 0:
        yield Finding("decide", "fail" if waiting else "warn", said, _DECIDE)
    elif group.state != "STABLE":
        yield Finding("decide", "warn", f"{said}; the group is {group.state.lower()}", "look again in some seconds")
    elif idle:
        yield Finding("decide", "fail", f"{said}; nobody has partition {', '.join(idle)}", "restart the workers")
    elif waiting > _MANY:
        yield Finding("decide", "warn", said, f"more workers, up to {len(places)}")
    else:
        yield Finding("decide", "ok", said)


def _labels(settings: Settings, log: KafkaLog) -> Iterator[Finding]:  # noqa: ARG001
    position, end = log.committed(LABEL_GROUP, LABEL_REQUESTS, 0), log.end(LABEL_REQUESTS, 0)
    waiting = len(log.read(LABEL_REQUESTS, 0, position, _MANY)) if position < end else 0
    yield Finding("labels", "warn" if waiting else "ok", f"{waiting} label requests wait", _LABELS if waiting else "")


_ON_TOPICS: tuple[tuple[str, _Look], ...] = (
    ("settings", _session),
    ("access", _access),
    ("transactions", _transactions),
    ("control", _control),
    ("decide", _decide),
    ("labels", _labels),
)


def _qdrant(settings: Settings, log: KafkaLog, usable: bool) -> Iterator[Finding]:
    try:
        with closing(open_engine(settings)) as engine:
            yield _server(engine)
            if usable:
                yield from guarded("memory", lambda: _memory(settings, log))
                yield from guarded("index", lambda: _index(settings, log, engine))
    except LumynError as error:
        yield failed("qdrant", error, service=True, mend="start it, or correct LUMYN_QDRANT; gRPC must be open, too")


def _server(engine: QdrantEngine) -> Finding:
    server, client = engine.version(), metadata.version("qdrant-client")
    said = f"{engine.where} answers: version {server}, client {client}"
    if _minor_distance(server, client) > 1:
        return Finding("qdrant", "warn", said, "versions may be one minor apart: upgrade the older one")
    return Finding("qdrant", "ok", said)


def _minor_distance(one: str, other: str) -> int:
    """How many minor versions lie between two; many, when the major one differs."""
    (major, minor), (major_too, minor_too) = (tuple(map(int, v.split(".")[:2])) for v in (one, other))
    return abs(minor - minor_too) if major == major_too else 1000


def _memory(settings: Settings, log: KafkaLog) -> Iterator[Finding]:
    """The watermark, whose count of points is compared with the points that are there."""
    last = last_version(log, LABELS)
    store, _ = open_memory(settings, settings.home, log.epoch, read_control(log).memory, create=False)
    try:
        mark = store.watermark()
    except MemoryUnavailable as error:
        if not (last == 0 and isinstance(error.__cause__, NoCollection)):
            raise
        yield Finding("memory", "warn", "there is none yet: policies with `memory` abstain", _FILL)
        return
    finally:
        store.close()
    most = settings.runtime_setting("memory_max_staleness_s", 60.0)
    age = None if mark.at_ms is None else max(0.0, time.time() - mark.at_ms / 1000)
    said = f"version {mark.version} of {last}, {mark.count} points, "
    said += "never vouched for" if age is None else f"vouched for {age:.0f} s ago"
    if mark.version > last:
        yield Finding("memory", "fail", f"{said}: it knows labels that the log does not", "`lumyn memory rebuild`")
    elif age is None or age > most:
        yield Finding("memory", "fail", f"{said}, and {most:.0f} s is the most: workers don't ask it", _FILL)
    elif mark.version < last:
        yield Finding("memory", "warn", said, _FILL)
    else:
        yield Finding("memory", "ok", said)


def _index(settings: Settings, log: KafkaLog, engine: QdrantEngine) -> Iterator[Finding]:
    from memory_service.qdrant.record_index import QdrantRecordIndex, collection_of

    name = collections(settings)
    stored = collection_of(name)
    if not engine.exists(stored) or not engine.count(stored):  # opening it would make it
        yield Finding("index", "warn", "there is none yet", _INDEX)
        return
    yield from index_findings(log, QdrantRecordIndex(engine, name, log.epoch), "warn", _INDEX)
