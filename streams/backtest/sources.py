"""Where past decisions are read from: a range of the log, a data set of a record a line, or packs.

A source is cut into stretches, fixed before the first is read: what is appended meanwhile is for the next time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from schemas.errors import NotFound, StorageUnavailable
from streams.backtest.raw import Raw
from streams.log import Log
from streams.reading import messages, start_of
from streams.span import Span
from streams.topics import RECORDS

FILE_BYTES: Final = 8 * 1024 * 1024
_BLOCK = 1024 * 1024


class Stretch(NamedTuple):
    """A part of a source, [start, end): record offsets of a partition, bytes of a file from a line on, or places."""

    partition: int
    start: int
    end: int
    line: int = 0


class Source(Protocol):
    """Past decisions in an order that stays."""

    @property
    def name(self) -> str:
        """What is read, for people."""
        ...

    def stretches(self) -> list[Stretch]:
        """All parts, in order."""
        ...

    def read(self, stretch: Stretch) -> Iterator[Raw]:
        """The records of a part. Raises `StorageUnavailable`."""
        ...


@dataclass(slots=True)
class LogSource:
    """The records of requests in a span, up to the ends read when `plan` was called."""

    log: Log
    parts: list[Stretch]
    name: str = "the log"

    def stretches(self) -> list[Stretch]:
        return self.parts

    def read(self, stretch: Stretch) -> Iterator[Raw]:
        where = f"{RECORDS}/{stretch.partition}/"
        for _, partition, offset, _, key, value in messages(self.log, RECORDS, stretch.partition, stretch.start):
            if offset >= stretch.end:
                return
            yield Raw(where, offset, key or b"", partition, value)


def plan(log: Log, span: Span, each: int) -> list[Stretch]:
    """The record offsets of a span, in stretches of at most `each`; nothing that is appended from now on."""
    parts = []
    for partition in range(log.partitions(RECORDS)):
        end, offsets = log.end(RECORDS, partition), span.offsets(log, partition)
        if offsets is None:
            continue
        first, last = offsets
        low = max(log.begin(RECORDS, partition), start_of(log, RECORDS, partition, first))
        high = end if last is None else min(end, start_of(log, RECORDS, partition, last))
        parts += [Stretch(partition, at, min(at + each, high)) for at in range(low, high, each)]
    return parts


@dataclass(slots=True)
class FileSource:
    """A record a line, as `lumyn export --limit N --out F.jsonl` writes."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def stretches(self) -> list[Stretch]:
        """Cut at line ends. Raises `NotFound`, `StorageUnavailable`."""
        cut: list[Stretch] = []
        start = at = 0
        line = lines = 1
        try:
            with self.path.open("rb") as file:
                while block := file.read(_BLOCK):
                    last = block.rfind(b"\n")
                    if last >= 0 and at + last + 1 - start >= FILE_BYTES:
                        end = at + last + 1
                        cut.append(Stretch(0, start, end, line))
                        line = lines + block.count(b"\n")
                        start = end
                    lines += block.count(b"\n")
                    at += len(block)
        except FileNotFoundError:
            raise NotFound("no such data set", where=str(self.path)) from None
        except OSError as error:
            raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(self.path)) from None
        return [*cut, Stretch(0, start, at, line)] if at > start else cut

    def read(self, stretch: Stretch) -> Iterator[Raw]:
        number, at = stretch.line, stretch.start
        with self.path.open("rb") as file:
            file.seek(stretch.start)
            while at < stretch.end and (line := file.readline()):
                at += len(line)
                if line.strip():
                    yield Raw(f"{self.path}:", number, None, 0, line.rstrip(b"\r\n"))
                number += 1


@dataclass(slots=True)
class ListSource:
    """Records at hand, such as those of packs."""

    raws: Sequence[Raw]
    name: str = "packs"

    def stretches(self) -> list[Stretch]:
        return [Stretch(0, 0, len(self.raws))] if self.raws else []

    def read(self, stretch: Stretch) -> Iterator[Raw]:
        yield from self.raws[stretch.start : stretch.end]
