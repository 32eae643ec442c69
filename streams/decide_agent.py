"""The embedded decide agent: requests in, records and receipts out, in one transaction of the local log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from schemas.errors import LumynError
from schemas.request import Request
from streams.control import ControlState, publish_event, read_control
from streams.deciding import Answer, Deciding, Pending, opened_answer
from streams.log import Append, Log, Message, Transaction, TransactionalLog
from streams.memory_sync import Memory
from streams.policy import CompiledPolicy
from streams.prior import PriorDecisions
from streams.sealing import seal_each
from streams.subject_keys import keys_of
from streams.topics import CONTROL, REQUESTS, full_name

GROUP = "decide"
_MOST_AT_ONCE = 1024


@dataclass(slots=True)
class _Job:
    requests: Sequence[Request]
    policy: CompiledPolicy | None
    decide: bool
    answers: list[Answer | LumynError | None] = field(default_factory=list)
    error: BaseException | None = None
    done: bool = False


class DecideAgent:
    """Decides on an embedded log. Threads that call at once share a transaction (group commit)."""

    def __init__(
        self,
        log: TransactionalLog,
        memory: Memory,
        fallback: CompiledPolicy | None = None,
        sticky: int = 0,
        *,
        seal: bool = False,
        follow: Callable[[Log, ControlState], ControlState] = read_control,
    ) -> None:
        """`fallback` decides where the caller names no policy and none is active.

        With `seal` requests are sealed under their subjects' keys before they are appended.

        `sticky` picks the partition of requests without a request_id, as Kafka's own producers do for keyless ones.
        `follow` brings a control state to the topic's end before anything is decided.
        """
        self._log = log
        self._keys = keys_of(log)
        self._seal = seal
        self._deciding = Deciding(full_name(log.prefix, REQUESTS), memory, fallback, keys=self._keys, seal=seal)
        self._fallback = fallback
        self._follow = follow
        self._sticky = sticky % log.partitions(REQUESTS)
        self._control = ControlState()
        self._queue: list[_Job] = []
        self._queue_lock = threading.Lock()
        self._turn = threading.Lock()

    def control(self) -> ControlState:
        """The control state, read to its end."""
        with self._turn:
            self._control = read_control(self._log, self._control)
            return self._control

    def decide(self, requests: Sequence[Request], policy: CompiledPolicy | None = None) -> list[Answer | LumynError]:
        """Append and decide requests, in order; a conflict is an error in its place. Durable when it returns."""
        given = seal_each(self._keys, requests) if self._seal else requests
        good = [request for request in given if isinstance(request, Request)]
        answers: list[Answer | LumynError] = []
        for start in range(0, len(good), _MOST_AT_ONCE):
            job = self._run(_Job(good[start : start + _MOST_AT_ONCE], policy, decide=True))
            answers.extend(opened_answer(self._keys, answer) for answer in job.answers if answer is not None)
        if len(good) == len(given):
            return answers
        told = iter(answers)
        return [one if isinstance(one, LumynError) else next(told) for one in given]

    def submit(self, requests: Sequence[Request]) -> list[Message | LumynError]:
        """Append requests without deciding them; `drain` or the next `decide` does."""
        given = seal_each(self._keys, requests) if self._seal else requests
        good = [request_append(request, self._sticky) for request in given if isinstance(request, Request)]
        told = iter(self._log.append(good))
        return [one if isinstance(one, LumynError) else next(told) for one in given]

    def drain(self, limit: int = _MOST_AT_ONCE) -> int:
        """Decide up to `limit` waiting requests of each partition; returns how many there were."""
        with self._turn, self._restored(), self._log.transaction() as transaction:
            self._catch_up(transaction, [])
            waiting = [
                message
                for partition in range(self._log.partitions(REQUESTS))
                for message in self._waiting(transaction, partition, self._log.end(REQUESTS, partition))[:limit]
            ]
            self._decide_all(transaction, [self._deciding.parse(message, self._control) for message in waiting])
        return len(waiting)

    def _run(self, job: _Job) -> _Job:
        with self._queue_lock:
            self._queue.append(job)
        with self._turn:
            if not job.done:
                self._run_queue()
        if job.error is not None:
            raise job.error
        return job

    def _run_queue(self) -> None:
        with self._queue_lock:
            jobs, self._queue = self._queue, []
        try:
            with self._restored(), self._log.transaction() as transaction:
                self._run_jobs(transaction, jobs)
        except BaseException as error:
            for job in jobs:
                job.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            for job in jobs:
                job.done = True

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """What a transaction read of its own control events is forgotten when it does not commit."""
        control = self._control
        try:
            yield
        except BaseException:
            self._control = control
            raise

    def _run_jobs(self, transaction: Transaction, jobs: Sequence[_Job]) -> None:
        self._catch_up(transaction, [job.policy for job in jobs])
        asked = [(job, request) for job in jobs for request in job.requests]
        messages = transaction.append([request_append(request, self._sticky) for _, request in asked])
        pending = []
        firsts: dict[int, int] = {}
        for message in messages:
            firsts.setdefault(message.partition, message.offset)
        for partition, first in firsts.items():
            waiting = self._waiting(transaction, partition, first)
            pending += [self._deciding.parse(message, self._control) for message in waiting]
        own = [
            Pending(message, request, *self._deciding.choose(request, job.policy, self._control))
            for message, (job, request) in zip(messages, asked, strict=True)
        ]
        answers = self._decide_all(transaction, [*pending, *own])[len(pending) :]
        for (job, _), answer in zip(asked, answers, strict=True):
            job.answers.append(answer)

    def _waiting(self, transaction: Transaction, partition: int, end: int) -> list[Message]:
        """Requests below an offset that nobody has decided yet."""
        position = transaction.position(GROUP, REQUESTS, partition)
        if position >= end:
            return []
        return [m for m in self._log.read(REQUESTS, partition, position, end - position) if m.offset < end]

    def _catch_up(self, transaction: Transaction, policies: Sequence[CompiledPolicy | None]) -> None:
        """Control is read to its end before anything is decided; policies used are published by their hash."""
        if self._follow is not read_control or self._log.end(CONTROL, 0) > self._control.position:
            self._control = self._follow(self._log, self._control)
        for policy in {p.policy_hash: p for p in (*policies, self._fallback) if p is not None}.values():
            known = self._control.policies.get(policy.policy_hash)
            if known is None or known.origin == "shadow":
                transaction.append([publish_event(policy, "lumyn", "file")])
                self._control = read_control(self._log, self._control)

    def _decide_all(self, transaction: Transaction, pending: Sequence[Pending]) -> list[Answer | LumynError]:
        """Idempotency, one recall for all, evaluation, and the outputs with the moved positions."""
        prior = PriorDecisions(self._log)
        self._deciding.recall(pending, self._control)
        answers: list[Answer | LumynError] = []
        outputs: list[Append] = []
        positions: dict[int, int] = {}
        for item in pending:
            answer, appends = self._deciding.decide(item, self._control, prior)
            answers.append(answer)
            outputs += appends
            positions[item.message.partition] = item.message.offset + 1
        transaction.append(outputs)
        for partition, position in positions.items():
            transaction.move(GROUP, REQUESTS, partition, position)
        return answers


def request_append(request: Request, sticky: int) -> Append:
    """With a request_id the key chooses the partition, so that a retry meets its first; else a sticky one does."""
    if request.key is not None:
        return Append(REQUESTS, request.canonical, request.key)
    return Append(REQUESTS, request.canonical, None, sticky)
