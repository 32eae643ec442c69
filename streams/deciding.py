"""Deciding a batch of requests from the log: parse, choose the policy, recall, idempotency, evaluate, outputs.

The embedded agent and the Kafka worker differ in where batches come from and how outputs are committed; what is decided
is decided here, once for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from memory_service.recall import OFF, Asked, Recall
from schemas.canonical import decode_trusted
from schemas.errors import BadRequest, KeysUnavailable, LumynError, RequestConflict, to_keep
from schemas.limits import MAX_RECORD_BYTES
from schemas.receipt import Outcome as ReceiptOutcome
from schemas.request import Request
from schemas.seal import OpenRecord, is_sealed
from streams.control import ControlState
from streams.decide import Decision, Position, decide, internal_error
from streams.log import Append, Message
from streams.memory_sync import Memory
from streams.outputs import dead_letter, receipt
from streams.partitioner import partition_for
from streams.policy import CompiledPolicy
from streams.prior import PriorDecision
from streams.sealing import opened_record, request_in, seal_requests, shown_record
from streams.subject_keys import NO_KEYS, SubjectKeys
from streams.topics import RECORDS


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request, decided now or before; `canonical` is its record's bytes, empty if not at hand."""

    outcome: ReceiptOutcome
    decision_id: str
    canonical: bytes
    record: Mapping[str, Any] | None = None


def opened_answer(keys: SubjectKeys, answer: Answer | LumynError) -> Answer | LumynError:
    """An answer whose record, if it is at hand, is as its caller asked for it: with its personal part."""
    if isinstance(answer, LumynError) or not (answer.canonical or answer.record):
        return answer
    record = answer.record if answer.record is not None else decode_trusted(answer.canonical)
    if not is_sealed(record) and not isinstance(record, OpenRecord):
        return answer
    return replace(answer, record=shown_record(keys, opened_record(keys, record)))


@dataclass(slots=True)
class Pending:
    """One message on its way to a decision. Without a request or without a policy there is a problem instead."""

    message: Message
    request: Request | None
    policy: CompiledPolicy | None
    problem: LumynError | None = None
    recall: Recall = OFF


class Prior(Protocol):
    """The first decisions of request ids, within the window and in the running batch."""

    def find(self, request: Request, time_ms: int) -> PriorDecision | None:
        """The earlier decision, if there is one not older than the window."""
        ...

    def remember(self, request: Request, decision: Decision) -> None:
        """A decision of the running batch."""
        ...

    def record(self, prior: PriorDecision) -> tuple[bytes, str]:
        """The first decision's bytes, empty if not at hand, and its digest."""
        ...


class Deciding:
    """Decides batches of one requests topic. Holds no state between batches."""

    def __init__(
        self,
        topic: str,
        memory: Memory,
        fallback: CompiledPolicy | None = None,
        *,
        partitions: int | None = None,
        keys: SubjectKeys = NO_KEYS,
        seal: bool = False,
    ) -> None:
        """`topic` is the full name; `fallback` decides where no policy is active; `keys` open what is sealed.

        With `seal`, the record of a request that came in clear is sealed all the same.
        With `partitions`, a request that stands in another partition than its request_id belongs to is rejected: its
        first decision would be looked for in the wrong place.
        """
        self.topic = topic
        self._partitions = partitions
        self.fallback = fallback
        self._memory = memory
        self._keys = keys
        self._seal = seal

    def parse(self, message: Message, control: ControlState) -> Pending:
        """A message as it stands in the log; one that is no request has a problem, and goes to the dead letters.

        Raises `KeysUnavailable`: then nothing is known of the message, and it must wait.
        """
        try:
            request = request_in(self._keys, message.value, f"{self.topic}/{message.partition}/{message.offset}")
            if self._seal:
                request = seal_requests(self._keys, [request])[0]
        except KeysUnavailable:
            raise
        except LumynError as error:
            return Pending(message, None, None, to_keep(error))
        misplaced = self._misplaced(message, request)
        if misplaced is not None:
            return Pending(message, None, None, misplaced)
        return Pending(message, request, *self.choose(request, None, control))

    def _misplaced(self, message: Message, request: Request) -> LumynError | None:
        if self._partitions is None or request.key is None:
            return None
        right = partition_for(request.key, self._partitions)
        if right == message.partition:
            return None
        return BadRequest(
            f"the request stands in partition {message.partition}, but its request_id belongs to partition {right}",
            where=f"{self.topic}/{message.partition}/{message.offset}",
            help="send it with the key `TENANT/REQUEST_ID` and the murmur2 partitioner, as `lumyn submit` does",
        )

    def choose(
        self, request: Request, given: CompiledPolicy | None, control: ControlState
    ) -> tuple[CompiledPolicy | None, LumynError | None]:
        """The policy that decides: the caller's, else the active one, else the file's."""
        name = request.value.get("policy")
        published = control.active_policy(name) if given is None else None
        try:
            policy = given or (control.compiled(published.hash) if published else self.fallback)
        except LumynError as error:
            return None, to_keep(error)
        if policy is None:
            return None, BadRequest("no policy is active", help="give one: `--policy FILE`, or `lumyn policy activate`")
        if name is not None and policy.name != name:
            return None, BadRequest(f"the request asks for policy `{name}`, which is not active")
        return policy, None

    def recall(self, pending: Sequence[Pending], control: ControlState) -> None:
        """One recall, and so one embedding call, for the whole batch; the memory is the one that control chooses."""
        wanted = [
            (
                item,
                Asked(item.request.value, item.policy.memory, at_ms=item.message.time_ms, choice=control.memory),
            )
            for item in pending
            if item.request is not None and item.policy is not None and item.policy.memory is not None
        ]
        if not wanted:
            return
        for (item, _), recall in zip(wanted, self._memory.recall([asked for _, asked in wanted]), strict=True):
            item.recall = recall

    def decide(self, item: Pending, control: ControlState, prior: Prior) -> tuple[Answer | LumynError, list[Append]]:
        """One answer, and what must be written for it: a receipt, with a record or a dead letter where there is one."""
        message, request = item.message, item.request
        if request is None:
            assert item.problem is not None
            return item.problem, self._rejected(message, None, item.problem)
        earlier = prior.find(request, message.time_ms)
        if earlier is not None:
            return self._again(message, request, earlier, prior)
        if item.policy is None:
            assert item.problem is not None
            return item.problem, self._rejected(message, request, item.problem)
        decision = self._evaluate(message, request, item.policy, control, item.recall)
        record = decision.record
        prior.remember(request, decision)
        return Answer("decided", record["decision_id"], decision.canonical, record), [
            Append(RECORDS, decision.canonical, record["decision_id"].encode(), message.partition),
            receipt(self.topic, message, request, "decided", record["decision_id"], record["record_digest"]),
        ]

    def _rejected(self, message: Message, request: Request | None, problem: LumynError) -> list[Append]:
        return [dead_letter(self.topic, message, problem), receipt(self.topic, message, request, "rejected")]

    def _again(
        self, message: Message, request: Request, earlier: PriorDecision, prior: Prior
    ) -> tuple[Answer | LumynError, list[Append]]:
        if earlier.body_digest not in (request.body_digest, request.clear_digest):
            error = RequestConflict(
                f"request_id `{request.request_id}` was decided before with another body (decision "
                f"{earlier.decision_id})",
                help="a retry must send the same body; another request needs another request_id",
            )
            return error, [receipt(self.topic, message, request, "conflict", earlier.decision_id)]
        canonical, record_digest = prior.record(earlier)
        return Answer("duplicate", earlier.decision_id, canonical), [
            receipt(self.topic, message, request, "duplicate", earlier.decision_id, record_digest)
        ]

    def _evaluate(
        self, message: Message, request: Request, policy: CompiledPolicy, control: ControlState, recall: Recall
    ) -> Decision:
        position = Position(self.topic, message.partition, message.offset, message.time_ms)
        try:
            decision = decide(request, position, policy, control, recall)
        except Exception:  # whatever an evaluation raises, the request must not be lost nor stop the next
            return internal_error(request, position, policy, control)
        if len(decision.canonical) > MAX_RECORD_BYTES:  # a trace that no log would take
            return internal_error(request, position, policy, control)
        return decision
