"""Shadow: candidate policies evaluated on live decisions, by a consumer of its own: the real decision never waits.

It reads records as they come, decides each again by the one evaluator, and writes what a candidate would have said to
the `shadow` topic, exactly once: verdicts and the moved position are one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from memory_service.recall import OFF, Asked, MemoryChoice, Recall, recorded, unavailable
from schemas.canonical import encode_plain
from schemas.errors import KeysUnavailable, LumynError, UsageError
from schemas.ids import time_ms_of
from schemas.shadow import ShadowMemory, ShadowOutcome, ShadowVerdict
from streams.control import ControlState, ShadowedPolicy, read_control
from streams.diff import MISSHAPEN, checked_record, outcome_of
from streams.log import Append, Log, Message, PartitionWriter
from streams.memory_sync import Memory
from streams.observe import Observer
from streams.policy import CompiledPolicy
from streams.reading import at_time
from streams.replay import check_recorded_memory
from streams.sealing import opened_record, require_open
from streams.subject_keys import keys_of
from streams.topics import RECORDS, SHADOW, full_name

GROUP = "shadow"
_AT_ONCE = 500


@dataclass(slots=True)
class _Asking:
    """One record under one candidate, on its way; `asked` is what memory must still say."""

    record: Mapping[str, Any]
    shadow: ShadowedPolicy
    policy: CompiledPolicy | None
    memory: ShadowMemory = "off"
    recall: Recall = OFF
    asked: Asked | None = None
    error: str | None = None


class ShadowAgent:
    """Evaluates the candidates of the control topic on one or more partitions of the records, in their order.

    The newest agent of a partition is its owner: an older one's next commit raises `Fenced`.
    """

    def __init__(self, log: Log, memory: Memory, observer: Observer, partitions: Sequence[int] | None = None) -> None:
        """`partitions`: those that this agent looks after; None: all."""
        self._log = log
        self._memory = memory
        self._observer = observer
        self._topic = full_name(log.prefix, RECORDS)
        self._partitions = list(range(log.partitions(RECORDS))) if partitions is None else list(partitions)
        self._writers: dict[int, PartitionWriter] = {}
        self._position: dict[int, int] = {}
        self._passed: dict[int, int] = {}
        self._control = ControlState()

    def step(self) -> int:
        """One batch of each partition; returns how many records were read. Raises `LumynError`, `Fenced`."""
        self._control = read_control(self._log, self._control)
        if not self._control.shadows:
            return 0
        return sum(self._step(partition) for partition in self._partitions)

    def _step(self, partition: int) -> int:
        writer = self._writers.get(partition)
        if writer is None:
            writer = self._writers[partition] = self._log.writer(GROUP, RECORDS, partition)
            self._position[partition] = writer.position
        start = self._start(partition)
        messages = self._log.read(RECORDS, partition, start, _AT_ONCE)
        if not messages:
            return 0
        outputs = [
            Append(SHADOW, encode_plain(verdict), verdict["decision_id"].encode(), partition)
            for verdict in self._verdicts(messages)
        ]
        position = messages[-1].offset + 1
        writer.commit(outputs, position)
        self._position[partition] = position
        self._observer.event("shadowed", partition=partition, records=len(messages), verdicts=len(outputs))
        return len(messages)

    def _start(self, partition: int) -> int:
        """The next record to look at; where the first candidate is new, what was decided before it is passed over."""
        since = min(shadow.since_ms for shadow in self._control.shadows.values())
        if self._passed.get(partition) != since:
            self._passed[partition] = since
            first = at_time(self._log, RECORDS, partition, since)
            self._position[partition] = max(self._position[partition], first)
        return self._position[partition]

    def _verdicts(self, messages: Sequence[Message]) -> Iterator[ShadowVerdict]:
        asking: list[tuple[Message, _Asking]] = []
        for message in messages:
            try:
                record = opened_record(keys_of(self._log), checked_record(message.value))
                asking += [(message, one) for one in self._asking(record, message.time_ms)]
            except KeysUnavailable:
                raise  # it will be read when they can be
            except (LumynError, *MISSHAPEN) as error:
                self._observer.trouble("record_not_shadowed", error, {"offset": message.offset})
        waiting = [one for _, one in asking if one.asked is not None]
        if waiting:
            recalls = self._memory.recall([one.asked for one in waiting if one.asked is not None])
            for one, recall in zip(waiting, recalls, strict=True):
                one.recall = recall
                if not recall.available:
                    one.memory = "unavailable"
        for message, one in asking:
            yield self._verdict(message, one)

    def _asking(self, record: Mapping[str, Any], time_ms: int) -> Iterator[_Asking]:
        for shadow in self._control.shadows.values():
            # what was written before the candidate was there is a backtest's business
            if shadow.instead_of != record["policy"]["name"] or time_ms < shadow.since_ms:
                continue
            try:
                require_open(record)
                policy = self._control.compiled(shadow.hash)
            except LumynError as error:
                yield _Asking(record, shadow, None, error=error.message)
                continue
            yield _with_memory(record, shadow, policy, self._control.memory_of)

    def _verdict(self, message: Message, one: _Asking) -> ShadowVerdict:
        record, candidate = one.record, None
        if one.error is None and one.policy is not None:
            try:
                verdict, reasons = outcome_of(record, one.policy, one.recall)
                candidate = ShadowOutcome(
                    policy=f"{one.policy.name}@{one.policy.version}",
                    policy_hash=one.policy.policy_hash,
                    verdict=verdict,
                    reason_codes=list(reasons),
                )
            except LumynError as error:
                one.error = error.message
            except Exception as error:  # a candidate's fault must not stop the next record, nor pass for an answer
                one.error = f"evaluation raised {type(error).__name__}"
        policy = record["policy"]
        return {
            "source": {"topic": self._topic, "partition": message.partition, "offset": message.offset},
            "decision_id": record["decision_id"],
            "record_digest": record["record_digest"],
            "tenant": record["tenant"],
            "decided_at": record["created_at"],
            "decided": {
                "policy": f"{policy['name']}@{policy['version']}",
                "policy_hash": policy["hash"],
                "verdict": record["verdict"],
                "reason_codes": list(record["reason_codes"]),
            },
            "candidate": candidate,
            "candidate_hash": one.shadow.hash,
            "memory": one.memory,
            "error": one.error,
        }

    def close(self) -> None:
        """Give the partitions up."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._passed.clear()


def _with_memory(
    record: Mapping[str, Any],
    shadow: ShadowedPolicy,
    policy: CompiledPolicy,
    memory_of: Callable[[str | None], MemoryChoice | None],
) -> _Asking:
    """The candidate's memory: what the record holds where it was asked alike, else the memory as of then."""
    if policy.memory is None:
        return _Asking(record, shadow, policy)
    held = record["memory"]
    try:
        check_recorded_memory(record, policy)
        return _Asking(record, shadow, policy, "recorded" if held["available"] else "unavailable", recorded(record))
    except UsageError:
        choice = memory_of(held["vectoriser_id"])
        at_ms = time_ms_of(record["created_at"])
        asked = Asked(record["request"], policy.memory, held["version"], at_ms=at_ms, choice=choice)
        mode: ShadowMemory = "current" if held["version"] is None else "as-of"
        return _Asking(record, shadow, policy, mode, unavailable(), asked)
