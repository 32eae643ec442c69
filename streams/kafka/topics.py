"""The topics on Kafka: what each must be like, making them, and saying where a cluster differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.errors import BadConfig, LumynError
from streams.kafka.client import KafkaClient
from streams.kafka.facts import NewTopicSpec
from streams.topics import DEFAULT_PARTITIONS, REQUESTS, TOPICS, Topic, full_name

MOST_PARTITIONS = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. `mend` says what to do about it; empty when it is well."""

    ok: bool
    what: str
    mend: str = ""


def topic_config(topic: Topic, replication: int) -> dict[str, str]:
    """A topic's settings in Kafka's names. `LogAppendTime`: callers can't forge when they asked."""
    return {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "retention.ms": str(topic.retention_ms) if topic.retention_ms is not None else "-1",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(topic.max_bytes),
        "min.insync.replicas": "2" if replication >= 3 else "1",
        "unclean.leader.election.enable": "false",
    }


def create_topics(
    client: KafkaClient, prefix: str, partitions: int = DEFAULT_PARTITIONS, replication: int = 1
) -> list[str]:
    """Make the topics that are missing; returns their names. One that exists is left as it is (`doctor` checks it).

    Raises `BadConfig` when there are other partition counts already, `StorageUnavailable`.
    """
    if not 1 <= partitions <= MOST_PARTITIONS:
        raise BadConfig(f"{partitions} partitions: it must be 1 to {MOST_PARTITIONS}")
    known = client.topics()
    counts = {known[full_name(prefix, t.name)] for t in TOPICS.values() if full_name(prefix, t.name) in known}
    existing = {known[full_name(prefix, t.name)] for t in TOPICS.values() if _is_split(t, prefix, known)}
    if counts and existing - {partitions}:
        raise BadConfig(
            f"prefix `{prefix}` has topics of {', '.join(map(str, sorted(existing)))} partitions, not {partitions}",
            help="a partition count never changes within a prefix: use the same, or another LUMYN_PREFIX",
        )
    missing = [t for t in TOPICS.values() if full_name(prefix, t.name) not in known]
    client.create_topics(
        [
            NewTopicSpec(
                full_name(prefix, t.name), t.partitions or partitions, replication, topic_config(t, replication)
            )
            for t in missing
        ]
    )
    return [full_name(prefix, t.name) for t in missing]


def _is_split(topic: Topic, prefix: str, known: Mapping[str, int]) -> bool:
    return topic.partitions is None and full_name(prefix, topic.name) in known


def check_topics(client: KafkaClient, prefix: str) -> list[Finding]:
    """Every topic's existence, partition count and settings, each with how to mend it."""
    try:
        facts = client.describe([full_name(prefix, name) for name in TOPICS])
    except LumynError as error:
        return [Finding(False, error.message, error.help or "start the brokers, or correct LUMYN_KAFKA")]
    there = [name for name, fact in facts.items() if fact is not None]
    configs = client.topic_configs(there) if there else {}
    requests = facts[full_name(prefix, REQUESTS)]
    wanted = requests.partitions if requests else None
    findings: list[Finding] = []
    for topic in TOPICS.values():
        name = full_name(prefix, topic.name)
        fact = facts[name]
        if fact is None:
            findings.append(Finding(False, f"topic `{name}` is missing", "`lumyn topics create`"))
            continue
        wrong = _wrong(topic, fact.partitions, fact.replicas, configs.get(name, {}), wanted)
        findings += wrong or [
            Finding(True, f"topic `{name}`: {fact.partitions} partitions, {fact.replicas} replicas")
        ]
    return findings


def _wrong(
    topic: Topic, partitions: int, replicas: int, config: Mapping[str, str], split: int | None
) -> list[Finding]:
    findings = []
    expected = topic.partitions or split
    if expected is not None and partitions != expected:
        findings.append(
            Finding(
                False,
                f"topic `{topic.name}` has {partitions} partitions, not {expected}",
                "partition counts must be equal and never change: move to a new LUMYN_PREFIX",
            )
        )
    for key, value in topic_config(topic, replicas).items():
        found = config.get(key, "")
        if found == value or (key == "max.message.bytes" and found.isdigit() and int(found) >= int(value)):
            continue
        if key == "retention.ms" and topic.compacted:
            continue  # compaction keeps by key, not by age
        if key == "min.insync.replicas" and found.isdigit() and int(found) > int(value):
            continue
        findings.append(
            Finding(
                False,
                f"topic `{topic.name}` has {key}={found or '(unset)'}, not {value}",
                f"`lumyn topics create --fix` sets {key}={value}",
            )
        )
    return findings


def fix_topics(client: KafkaClient, prefix: str) -> list[str]:
    """Set what settings of existing topics differ; returns `topic: key=value` for each. Counts are never changed."""
    facts = client.describe([full_name(prefix, name) for name in TOPICS])
    there = {name: fact for name, fact in facts.items() if fact is not None}
    configs = client.topic_configs(list(there)) if there else {}
    changed = []
    for topic in TOPICS.values():
        name = full_name(prefix, topic.name)
        if name not in there:
            continue
        wanted = topic_config(topic, there[name].replicas)
        differ = {key: value for key, value in wanted.items() if configs[name].get(key) != value}
        if differ:
            client.alter_topic(name, differ)
            changed += [f"{name}: {key}={value}" for key, value in differ.items()]
    return changed
