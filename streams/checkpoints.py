"""Checkpoints as they stand in the log: reading them, checking their chain, finding the one that covers an offset."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_right
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from schemas.canonical import encode
from schemas.checkpoint import EVENT, Covered, Statement
from schemas.digests import digest
from schemas.errors import IntegrityError
from streams import merkle
from streams.leaves import GAP, LEAF_BYTES, split
from streams.log import Log, Message
from streams.reading import messages, object_in
from streams.signing import PublicKey, SigningKey
from streams.topics import CHECKPOINTS, CONTROL, LABELS, full_name

Place = tuple[str, int]
"""(full topic name, partition)"""
NOTHING: Covered = {"end": 0, "checkpoint": None}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint with its leaves."""

    statement: Statement
    public_key: str
    signature: str
    leaves: bytes

    @property
    def digest(self) -> str:
        """What the next checkpoint calls `previous`."""
        return digest(encode(self.statement))

    @property
    def place(self) -> Place:
        """The topic and partition that it covers."""
        return self.statement["topic"], self.statement["partition"]

    def as_event(self) -> bytes:
        """The message's value."""
        leaves = base64.b64encode(self.leaves).decode("ascii")
        return encode(
            {
                "statement": self.statement,
                "public_key": self.public_key,
                "signature": self.signature,
                "leaves": leaves,
            }
        )


def sign(statement: Statement, leaves: bytes, key: SigningKey) -> Checkpoint:
    """A signed checkpoint."""
    return Checkpoint(statement, key.public.text, key.sign(encode(statement)), leaves)


def read_checkpoint(message: Message) -> Checkpoint:
    """The checkpoint in a message. Raises `IntegrityError` when it is none, or its leaves are not those signed for."""
    where = f"{message.topic}/{message.partition}/{message.offset}"
    value = object_in(message)
    try:
        EVENT.validate_python(value)
        leaves = base64.b64decode(value["leaves"], validate=True)
    except (ValidationError, binascii.Error, ValueError):
        raise IntegrityError("the stored bytes are not a checkpoint", where=where) from None
    return Checkpoint(value["statement"], value["public_key"], value["signature"], leaves)


def leaves_fault(checkpoint: Checkpoint) -> str | None:
    """What is wrong with the leaves: their number, or their root."""
    statement, leaves = checkpoint.statement, checkpoint.leaves
    size = statement["end"] - statement["start"]
    if size <= 0 or statement["start"] < 0 or len(leaves) != size * LEAF_BYTES:
        return "its leaves are not as many as its offsets"
    listed = split(leaves)
    if statement["root"] != root_text(merkle.root(listed)):
        return "its leaves are not those of the signed root"
    if statement["count"] != sum(leaf[:1] != GAP for leaf in listed):
        return "its count is not that of its leaves"
    return None


def signature_fault(statement: Mapping[str, Any], public_key: str, signature: str, keys: Container[str]) -> str | None:
    """What is wrong with the signature; `keys` are the ids of the keys that are believed."""
    try:
        key = PublicKey.from_text(public_key)
    except IntegrityError:
        return "its public key is not an Ed25519 key"
    if key.key_id != statement["key_id"]:
        return "it does not name its own key"
    if not key.verify(signature, encode(statement)):
        return f"the signature is not key {key.key_id}'s"
    if key.key_id not in keys:
        return (
            f"signed by key {key.key_id}, which is not trusted here; "
            f"`lumyn keys trust {key.text}` if you know that it is right"
        )
    return None


def root_text(root: bytes) -> str:
    """A hash as it is written: `sha256:<hex>`."""
    return "sha256:" + root.hex()


@dataclass(frozen=True, slots=True)
class Stretch:
    """The offsets [start, end) that a checkpoint covers, and where it stands."""

    start: int
    end: int
    number: int
    offset: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with the chain itself."""

    place: str
    detail: str


class Chain:
    """All checkpoints of a log that believed keys have signed, each following from the one before.

    Keeps a few numbers of each, not its leaves. `catch_up` reads what is new.
    """

    def __init__(self, log: Log, keys: Container[str], *, check_leaves: bool = True, wanted: str | None = None) -> None:
        """`check_leaves` False leaves the roots to `load`. `wanted`: note whether this statement's digest is there."""
        self._log = log
        self._keys = keys
        self._check_leaves = check_leaves
        self._wanted = wanted
        self._offset = 0
        self._stretches: dict[Place, list[Stretch]] = {}
        self._heads: dict[Place, Covered] = {}
        self.faults: list[Fault] = []
        self.last: Statement | None = None
        self.last_digest: str | None = None
        self.seen_wanted = False

    @property
    def count(self) -> int:
        """How many checkpoints hold."""
        return sum(map(len, self._stretches.values()))

    @property
    def next_number(self) -> int:
        """The number of the checkpoint to come."""
        return 0 if self.last is None else self.last["number"] + 1

    def head(self, topic: str, partition: int) -> Covered:
        """How far a partition is covered; `topic` without its prefix."""
        return self._heads.get((full_name(self._log.prefix, topic), partition), NOTHING)

    def catch_up(self) -> None:
        """Take in the checkpoints that were appended since. Faults are noted, and such checkpoints cover nothing."""
        for message in messages(self._log, CHECKPOINTS, 0, self._offset):
            self.add(message)

    def add(self, message: Message) -> None:
        """Take in the next message of the topic."""
        self._offset = message.offset + 1
        where = f"{CHECKPOINTS}/{message.partition}/{message.offset}"
        try:
            checkpoint = read_checkpoint(message)
        except IntegrityError as error:
            self.faults.append(Fault(where, error.message))
            return
        statement = checkpoint.statement
        name = f"checkpoint {statement['number']}"
        wrong = signature_fault(statement, checkpoint.public_key, checkpoint.signature, self._keys) or (
            leaves_fault(checkpoint) if self._check_leaves else None
        )
        if wrong is not None:
            self.faults.append(Fault(where, f"{name}: {wrong}"))
            return
        found = checkpoint.digest
        self.seen_wanted |= found == self._wanted
        if statement["number"] < self.next_number:
            self.faults.append(Fault(where, f"{name} stands after checkpoint {self.next_number - 1}: out of order"))
            return
        wrong = self._link_fault(statement)
        if wrong is not None:
            self.faults.append(Fault(where, wrong))
        self.last, self.last_digest = statement, found
        self._cover(checkpoint, message.offset, where, found)

    def _link_fault(self, statement: Statement) -> str | None:
        """What is wrong with how a checkpoint follows from the one before."""
        number, expected = statement["number"], self.next_number
        name = f"checkpoint {number}"
        if number == expected + 1:
            return f"checkpoint {expected} is gone: {name} stands in its place"
        if number > expected:
            return f"checkpoints {expected} to {number - 1} are gone: {name} stands in their place"
        if statement["previous"] != self.last_digest:
            return f"{name} does not follow from the one before: checkpoint {number - 1} is not the one that it names"
        for topic in (CONTROL, LABELS):
            if statement[topic] != self.head(topic, 0):  # type: ignore[literal-required]
                return f"{name} names another state of `{topic}` than the checkpoints before it"
        return None

    def _cover(self, checkpoint: Checkpoint, offset: int, where: str, found: str) -> None:
        statement = checkpoint.statement
        head = self._heads.get(checkpoint.place, NOTHING)
        if statement["start"] < head["end"]:
            detail = f"checkpoint {statement['number']} covers offsets that are covered already"
            self.faults.append(Fault(where, detail))
            return
        stretch = Stretch(statement["start"], statement["end"], statement["number"], offset)
        self._stretches.setdefault(checkpoint.place, []).append(stretch)
        self._heads[checkpoint.place] = {"end": statement["end"], "checkpoint": found}

    def covering(self, topic: str, partition: int, offset: int) -> Stretch | None:
        """The checkpoint that covers an offset; `topic` is the full name."""
        stretches = self._stretches.get((topic, partition), [])
        at = bisect_right(stretches, offset, key=lambda stretch: stretch.start) - 1
        return stretches[at] if at >= 0 and offset < stretches[at].end else None

    def load(self, stretch: Stretch) -> Checkpoint:
        """A checkpoint with its leaves, checked. Raises `IntegrityError`."""
        page = self._log.read(CHECKPOINTS, 0, stretch.offset, 1)
        where = f"{CHECKPOINTS}/0/{stretch.offset}"
        if not page or page[0].offset != stretch.offset:
            raise IntegrityError(f"checkpoint {stretch.number} is gone", where=where)
        checkpoint = read_checkpoint(page[0])
        wrong = leaves_fault(checkpoint) or signature_fault(
            checkpoint.statement, checkpoint.public_key, checkpoint.signature, self._keys
        )
        if wrong is None and checkpoint.statement["number"] != stretch.number:
            wrong = "it is another one than before"
        if wrong is not None:
            raise IntegrityError(f"checkpoint {stretch.number}: {wrong}", where=where)
        return checkpoint

    def leaves(self, topic: str, partition: int, start: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """(offset, leaf, checkpoint's number) of every covered offset from `start` on; `topic` is the full name."""
        for stretch in self._stretches.get((topic, partition), []):
            if stretch.end <= start:
                continue
            for at, leaf in enumerate(split(self.load(stretch).leaves), start=stretch.start):
                if at >= start:
                    yield at, leaf, stretch.number
