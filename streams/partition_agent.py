"""Deciding one partition exactly once: a writer that owns it, the window of its request ids, and the gap rule."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from schemas.errors import LumynError
from streams.control import ControlState
from streams.decided import decided_up_to
from streams.deciding import Answer, Deciding, Pending
from streams.log import Append, Log, Message, PartitionWriter
from streams.observe import Observer
from streams.topics import REQUESTS
from streams.window import ReceiptWindow

_MOST_BYTES = 8 * 1024 * 1024
_MOST_OUTPUTS = 2000


class PartitionAgent:
    """Owns one requests partition from `open` to `close`. Used by one thread at a time; `close` may come from another.

    Below its position everything is committed. Messages under it are stale and dropped; a gap above it is read from
    the log itself, and accepted only when the log has the gap.
    """

    def __init__(
        self,
        log: Log,
        partition: int,
        deciding: Deciding,
        *,
        open_writer: Callable[[], PartitionWriter],
        folder: Path,
        epoch: str,
        observer: Observer,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """`wanted` is asked while the window is caught up, which may take long: opening ends when it says no."""
        self.partition = partition
        self._log = log
        self._deciding = deciding
        self._open_writer = open_writer
        self._observer = observer
        self._wanted = wanted
        self._using = threading.Lock()
        self._stopped = threading.Event()
        self._closed = False
        self._writer: PartitionWriter | None = None
        self._position = 0
        self._window = ReceiptWindow(log, partition, folder, epoch)

    def open(self) -> int:
        """Become the partition's owner; returns the position, which is exact. Raises `StorageUnavailable`."""
        with self._using:
            self._reopen()
            return self._position

    @property
    def position(self) -> int:
        """The next offset to decide."""
        return self._position

    def _reopen(self) -> None:
        """The older writer is fenced and its open transaction ended; only then are position and receipts read."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
        self._writer = self._open_writer()
        self._position = max(self._writer.position, decided_up_to(self._log, self.partition))
        if self._position > self._writer.position:
            self._observer.event("position_was_lost", partition=self.partition, position=self._position)
        self._window.catch_up(lambda: self._wanted() and not self._stopped.is_set())
        self._observer.event("partition_opened", partition=self.partition, position=self._position)

    def take(self, messages: Sequence[Message]) -> list[Message]:
        """Those of the messages that are to be decided, with what lies in gaps between them."""
        out: list[Message] = []
        expected = self._position
        for message in messages:
            if message.offset < expected:
                continue
            if message.offset > expected:
                missing = self._between(expected, message.offset)
                if missing:
                    self._observer.event("gap_filled", partition=self.partition, offset=expected, count=len(missing))
                out += missing
            out.append(message)
            expected = message.offset + 1
        return out

    def _between(self, start: int, end: int) -> list[Message]:
        found: list[Message] = []
        while start < end:
            some = self._log.read(REQUESTS, self.partition, start, min(1000, end - start))
            if not some:
                break
            found += [m for m in some if m.offset < end]
            start = some[-1].offset + 1
        return found

    def decide(self, pending: Sequence[Pending], control: ControlState) -> None:
        """Decide and commit, in transactions of bounded size; returns when all took effect, or when the partition was

        given up: then the rest is its next owner's.

        Raises `Fenced` when the partition has another owner, `StorageUnavailable` when the log can't be written: then
        some may have taken effect, which `position` tells after the next `decide` or `open`. Nothing is lost: what was
        not committed is decided on the next try, or by the next owner.
        """
        with self._using:
            if self._stopped.is_set():
                return
            try:
                if self._writer is None:
                    self._reopen()
                while pending := [item for item in pending if item.message.offset >= self._position]:
                    assert self._writer is not None
                    self._commit_some(self._writer, pending, control)
                    if self._stopped.is_set():
                        break
            except LumynError:
                self._drop_writer()
                raise
            finally:
                if self._stopped.is_set():
                    self._let_go()

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _commit_some(self, writer: PartitionWriter, pending: Sequence[Pending], control: ControlState) -> None:
        """One transaction: as many of the pending as fit, in order."""
        self._window.load(item.request for item in pending)
        outputs: list[Append] = []
        answers: list[tuple[Pending, Answer | LumynError]] = []
        size = 0
        for item in pending:
            answer, appends = self._deciding.decide(item, control, self._window)
            answers.append((item, answer))
            outputs += appends
            size += sum(len(append.value) for append in appends)
            if size >= _MOST_BYTES or len(outputs) >= _MOST_OUTPUTS:
                break
        position = answers[-1][0].message.offset + 1
        begun = time.monotonic()
        messages = writer.commit(outputs, position)
        self._position = position
        self._window.committed(messages)
        self._tell(answers, time.monotonic() - begun)

    def _tell(self, answers: Sequence[tuple[Pending, Answer | LumynError]], seconds: float) -> None:
        now_ms = time.time() * 1000
        self._observer.committed(seconds, len(answers))
        for item, answer in answers:
            latency = max(0.0, (now_ms - item.message.time_ms) / 1000)
            if isinstance(answer, LumynError):
                outcome = "conflict" if answer.code == "request_conflict" else "rejected"
                self._observer.decided(outcome, None, latency, None)
                if outcome == "rejected":
                    self._observer.dead_letter(answer.code)
            else:
                verdict = answer.record["verdict"] if answer.record is not None else None
                self._observer.decided(answer.outcome, verdict, latency, answer.decision_id)

    def close(self, wait_s: float = 5.0) -> None:
        """Give the partition up, after the transaction that is running, which may still take effect.

        Waits so many seconds for that one, which lets everything go itself when it ends later.
        """
        self._stopped.set()
        if self._using.acquire(timeout=wait_s):
            try:
                self._let_go()
            finally:
                self._using.release()

    def _let_go(self) -> None:
        if not self._closed:
            self._closed = True
            self._drop_writer()
            self._window.close()
