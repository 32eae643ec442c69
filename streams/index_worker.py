"""The index worker: records and labels into the record index, and signed checkpoints over what was decided."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from memory_service.record_index import RecordIndex
from schemas.errors import IntegrityError, LumynError
from streams.checkpointer import Checkpointer
from streams.index_sync import Seen, catch_up
from streams.log import Log
from streams.observe import Observer


class IndexWorker:
    """Runs until stopped. The index may be filled by several; checkpoints have one writer, the newest."""

    def __init__(
        self,
        log: Log,
        open_index: Callable[[], RecordIndex],
        observer: Observer,
        *,
        checkpointer: Checkpointer | None = None,
        checkpoint_s: float = 10.0,
        poll_s: float = 0.1,
    ) -> None:
        self._log = log
        self._open_index = open_index
        self._observer = observer
        self._checkpointer = checkpointer
        self._checkpoint_s = checkpoint_s
        self._poll_s = poll_s
        self._index: RecordIndex | None = None
        self._seen = Seen()
        self._stopping = threading.Event()
        self._checkpointed = 0.0
        observer.ready("index", False)

    def run(self) -> None:
        """Index and checkpoint until stopped; trouble is told and tried again. Raises `Fenced`."""
        wait = 0.1
        while not self._stopping.is_set():
            try:
                worked = self.step()
                wait = 0.1
                if not worked:
                    self._stopping.wait(self._poll_s)
            except IntegrityError as error:  # the log says something that can't be: never signed, told each time
                self._observer.trouble("checkpoint_refused", error)
                self._stopping.wait(self._checkpoint_s)
            except LumynError as error:
                if error.code == "fenced":
                    raise
                self._observer.trouble("index_halted", error)
                self._close_index()
                self._stopping.wait(wait)
                wait = min(5.0, wait * 2)
        self._close_index()

    def step(self) -> bool:
        """Index what is new; checkpoint when it is time. Returns whether there was anything new."""
        if self._index is None:
            self._index = self._open_index()
            self._seen = Seen()
            self._observer.ready("index", True)
        done = catch_up(self._log, self._index, seen=self._seen)
        for refused in done.refused:
            self._observer.event("record_refused", partition=refused.partition, offset=refused.offset, why=refused.why)
        if self._checkpointer is not None and time.monotonic() - self._checkpointed >= self._checkpoint_s:
            self._checkpointed = time.monotonic()
            made = self._checkpointer.run()
            if made:
                self._observer.event("checkpoints_made", count=len(made))
        return bool(done.records or done.labels)

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
            self._observer.ready("index", False)

    def stop(self) -> None:
        """End the run, from any thread."""
        self._stopping.set()
