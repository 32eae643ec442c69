"""The checkpointer: signs what became of the requests, and the events of people, range after range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from schemas.checkpoint import SCHEMA, Statement
from schemas.errors import IntegrityError, LumynError
from schemas.ids import iso_time
from schemas.limits import MAX_CHECKPOINT_LEAVES
from streams import merkle
from streams.checkpoints import Chain, Checkpoint, root_text, sign
from streams.leaves import CODES, GAP, event_entry, gap_entry, request_entry, request_leaf
from streams.log import Append, Log, Message, PartitionWriter
from streams.reading import MOST_AT_ONCE, is_embedded, messages, object_in, request_offset, start_of
from streams.signing import SigningKey
from streams.topics import CHECKPOINTS, CONTROL, EVENTS, LABELS, RECEIPTS, REQUESTS, full_name

GROUP = "checkpoint"
_FAR = 2000
"""Offsets over which it is quicker to start reading anew than to read on."""
_PAGE = 256
"""Messages that are read at once from an embedded log: its other users wait meanwhile."""
Pace = Callable[[], None]


@dataclass(slots=True)
class _Draft:
    """A range to be signed: its first offset, its leaves, and the log's time of the newest message read."""

    start: int
    leaves: list[bytes] = field(default_factory=list)
    tree: merkle.Growing = field(default_factory=merkle.Growing)
    up_to_ms: int = 0

    def add(self, leaf: bytes) -> None:
        """The leaf of the next offset."""
        self.leaves.append(leaf)
        self.tree.add(merkle.leaf_hash(leaf))

    @property
    def next(self) -> int:
        return self.start + len(self.leaves)

    @property
    def full(self) -> bool:
        return len(self.leaves) >= MAX_CHECKPOINT_LEAVES


class Checkpointer:
    """Appends checkpoints of what no checkpoint covers yet.

    On the embedded log a checkpoint is made in one transaction, so that two checkpointers at once continue one chain.
    On another log it owns the `checkpoints` topic through a partition writer, which fences an older checkpointer.
    """

    def __init__(self, log: Log, key: SigningKey, trusted: Iterable[str] = ()) -> None:
        """`trusted`: ids of other keys whose checkpoints are continued (an earlier key's, say)."""
        self._log = log
        self._key = key
        self._writer: PartitionWriter | None = None
        self._read: dict[int, tuple[int, int]] = {}
        self._pace: Pace = lambda: None
        self._page = _PAGE if is_embedded(log) else MOST_AT_ONCE
        self.chain = Chain(log, frozenset({key.public.key_id, *trusted}), check_leaves=False)

    def run(self, pace: Pace = lambda: None) -> list[Checkpoint]:
        """Cover what the log held when this was called; returns the new checkpoints.

        `pace` is called between any two messages, while nothing is locked: it may wait, so that others come to their
        turn, or raise, which ends the run.

        A partition that is not sound is left as it is and the others are covered; then `IntegrityError` is raised, and
        says where. Raises `Fenced` when another checkpointer has taken over, `StorageUnavailable`.
        """
        self._pace = pace
        partitions = range(self._log.partitions(REQUESTS))
        ends = {partition: self._log.end(RECEIPTS, partition) for partition in partitions}
        # events are covered after the receipts' ends were read: they hold all that those rested on
        wanted = [(topic, 0, self._log.end(topic, 0)) for topic in EVENTS]
        wanted += [(REQUESTS, partition, ends[partition]) for partition in partitions]
        made: list[Checkpoint] = []
        faults: list[IntegrityError] = []
        for topic, partition, end in wanted:
            try:
                made.extend(self._cover(topic, partition, end))
            except IntegrityError as error:
                faults.append(error)
        if faults:
            raise faults[0]
        return made

    def close(self) -> None:
        """Give the topic up."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _cover(self, topic: str, partition: int, end: int) -> Iterator[Checkpoint]:
        """Checkpoints of a partition up to `end`, an offset of the topic that is read."""
        step = self._in_transaction if is_embedded(self._log) else self._as_owner
        while (checkpoint := step(topic, partition, end)) is not None:
            yield checkpoint

    def _in_transaction(self, topic: str, partition: int, end: int) -> Checkpoint | None:
        """What is long is done before the transaction; one who has covered the same meanwhile is continued."""
        assert is_embedded(self._log)
        while True:
            self.chain.catch_up()
            covered = self.chain.head(topic, partition)["end"]
            if covered >= end:  # offsets are dense: nothing new, and no lock is needed
                return None
            draft = self._draft(topic, partition, end)
            if draft is None:
                return None
            with self._log.transaction() as transaction:
                self.chain.catch_up()
                if self.chain.head(topic, partition)["end"] == covered:
                    checkpoint = self._signed(topic, partition, draft)
                    transaction.append([Append(CHECKPOINTS, checkpoint.as_event())])
                    return checkpoint

    def _as_owner(self, topic: str, partition: int, end: int) -> Checkpoint | None:
        if self._writer is None:  # nobody else can append from here on, so the chain is read to its end
            self._writer = self._log.writer(GROUP, CHECKPOINTS, 0)
            self.chain.catch_up()
        draft = self._draft(topic, partition, end)
        if draft is None:
            return None
        checkpoint = self._signed(topic, partition, draft)
        event = Append(CHECKPOINTS, checkpoint.as_event(), partition=0)
        try:
            (message,) = self._writer.commit([event], self.chain.next_number + 1)
        except LumynError:  # whether it took effect, the next writer's reading tells
            self.close()
            raise
        self.chain.add(message)
        return checkpoint

    def _draft(self, topic: str, partition: int, end: int) -> _Draft | None:
        """What the next checkpoint of a partition covers, if there is anything."""
        draft = self._of_requests(partition, end) if topic == REQUESTS else self._of_events(topic, end)
        return None if draft is None or not draft.leaves else draft

    def _signed(self, topic: str, partition: int, draft: _Draft) -> Checkpoint:
        statement: Statement = {
            "schema": SCHEMA,
            "number": self.chain.next_number,
            "previous": self.chain.last_digest,
            "topic": full_name(self._log.prefix, topic),
            "partition": partition,
            "start": draft.start,
            "end": draft.next,
            "count": sum(leaf[:1] != GAP for leaf in draft.leaves),
            "root": root_text(draft.tree.root()),
            "up_to": iso_time(draft.up_to_ms),
            "control": self.chain.head(CONTROL, 0),
            "labels": self.chain.head(LABELS, 0),
            "key_id": self._key.public.key_id,
        }
        return sign(statement, b"".join(draft.leaves), self._key)

    def _of_requests(self, partition: int, end: int) -> _Draft | None:
        """What the receipts say, from where the last checkpoint ends."""
        covered, asked = self.chain.head(REQUESTS, partition)["end"], self._log.end(REQUESTS, partition)
        requests = _Forward(self._log, REQUESTS, partition)
        draft: _Draft | None = None
        joined = False
        for message in messages(self._log, RECEIPTS, partition, self._receipt_before(partition, covered), self._page):
            self._pace()
            if message.offset >= end or (draft is not None and draft.full):
                break
            offset, leaf = self._leaf(message)
            if draft is None and offset < covered:
                joined = offset == covered - 1
                continue
            if draft is None:  # where the last covered receipt has expired, others after it may have, too
                draft = _Draft(covered if joined else offset)
            if offset < draft.next:
                raise IntegrityError("a receipt stands twice or out of order", where=_place(message))
            if offset >= asked:
                raise IntegrityError("this is the receipt of a request that is not there", where=_place(message))
            draft.up_to_ms = message.time_ms
            if self._fill(draft, requests, offset):
                draft.add(leaf)
                self._read[partition] = (draft.next, message.offset)
        return draft

    def _receipt_before(self, partition: int, covered: int) -> int:
        """Where the receipt of the last covered request stands; remembered from having read it."""
        end, offset = self._read.get(partition, (0, 0))
        return offset if covered and end == covered else start_of(self._log, RECEIPTS, partition, covered - 1)

    def _leaf(self, message: Message) -> tuple[int, bytes]:
        """A receipt's request offset and leaf."""
        receipt, offset = object_in(message), request_offset(message)
        here = {"topic": full_name(self._log.prefix, REQUESTS), "partition": message.partition, "offset": offset}
        if offset is None or receipt["source"] != here or receipt.get("outcome") not in CODES:
            raise IntegrityError("this is no receipt of this partition", where=_place(message))
        try:
            return offset, request_entry(request_leaf(receipt))
        except KeyError as missing:
            raise IntegrityError(f"the receipt lacks {missing}", where=_place(message)) from None

    def _of_events(self, topic: str, end: int) -> _Draft:
        draft = _Draft(self.chain.head(topic, 0)["end"])
        events = _Forward(self._log, topic, 0)
        for message in messages(self._log, topic, 0, draft.start, self._page):
            self._pace()
            if message.offset >= end or draft.full:
                break
            draft.up_to_ms = message.time_ms
            if self._fill(draft, events, message.offset):
                draft.add(event_entry(self._log.prefix, message))
        return draft

    def _fill(self, draft: _Draft, held: _Forward, offset: int) -> bool:
        """Say of the offsets before one that they hold nothing. False when the draft is full before it is reached."""
        if draft.next < offset:
            found = held.first_from(draft.next)
            if found is not None and found.offset < offset:
                raise IntegrityError("the request was passed over: it has no receipt", where=_place(found))
            if is_embedded(self._log):
                raise IntegrityError("what stood here is gone", where=f"{held.topic}/{held.partition}/{draft.next}")
        name = full_name(self._log.prefix, held.topic)
        while draft.next < offset and not draft.full:
            draft.add(gap_entry(name, held.partition, draft.next))
        return not draft.full


class _Forward:
    """Looks for messages at ever higher offsets, by reading on."""

    def __init__(self, log: Log, topic: str, partition: int) -> None:
        self._log = log
        self.topic = topic
        self.partition = partition
        self._messages: Iterator[Message] = iter(())
        self._current: Message | None = None

    def first_from(self, offset: int) -> Message | None:
        """The first message at an offset or after it."""
        if self._current is None or offset - self._current.offset > _FAR:
            self._messages = messages(self._log, self.topic, self.partition, offset)
            self._current = next(self._messages, None)
        while self._current is not None and self._current.offset < offset:
            self._current = next(self._messages, None)
        return self._current


def _place(message: Message) -> str:
    return f"{message.topic}/{message.partition}/{message.offset}"
