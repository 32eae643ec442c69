"""Following the control topic: read to its end before the first decision, then kept current, with its age known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from schemas.errors import LumynError, StorageUnavailable
from streams.control import ControlState, apply_control
from streams.kafka.log import KafkaLog
from streams.log import Message
from streams.observe import Observer
from streams.topics import CONTROL

_POLL_S = 0.1


class ControlFollower:
    """The newest control state, by a thread of its own. It is stale when its end could not be confirmed lately."""

    def __init__(
        self,
        log: KafkaLog,
        observer: Observer,
        *,
        max_staleness_s: float = 10.0,
        reach: Callable[[], None] = lambda: None,
    ) -> None:
        """`reach` is called before the topic's end is asked for; what it raises means that nobody answers."""
        self._reach = reach
        self._log = log
        self._observer = observer
        self._max_staleness_s = max_staleness_s
        self._place = (log.name(CONTROL), 0)
        self._reader = log.client.reader()
        self._state = ControlState()
        self._confirmed = float("-inf")
        self._topic_id: str | None = None
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    def start(self, timeout_s: float = 60.0) -> None:
        """Read control to its end, then follow. Raises `StorageUnavailable` when the end isn't reached in time."""
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(self._is_fresh, timeout_s):
                raise self._log.client.unreachable("the control topic can't be read to its end")

    def state(self, wait_s: float = 1.0) -> ControlState:
        """The control state, `stale` when cut off for longer than allowed even after a short wait for news."""
        with self._changed:
            fresh = self._changed.wait_for(self._is_fresh, wait_s)
            return self._state if fresh else replace(self._state, stale=True)

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._confirmed <= self._max_staleness_s

    def wait_for(self, reached: Callable[[ControlState], bool], timeout_s: float) -> bool:
        """Wait until the followed state is as wanted."""
        with self._changed:
            return self._changed.wait_for(lambda: reached(self._state), timeout_s)

    def _run(self) -> None:
        self._reader.assign({self._place: 0})
        next_check = 0.0
        while not self._stopping.is_set():
            try:
                messages = self._reader.poll(500, _POLL_S)
                if messages:
                    state = self._state
                    for m in messages:
                        state = apply_control(
                            state, Message(CONTROL, m.partition, m.offset, m.time_ms, m.key, m.value or b"")
                        )
                    with self._changed:
                        self._state = state
                        self._changed.notify_all()
                if messages or time.monotonic() >= next_check:
                    next_check = time.monotonic() + min(1.0, self._max_staleness_s / 3)
                    self._confirm()
            except LumynError as error:
                self._observer.trouble("control_unreachable", error)
                self._stopping.wait(0.5)

    def _confirm(self) -> None:
        """What was the end when asked has been read: so far back, nothing is unknown."""
        asked = time.monotonic()
        self._reach()
        end = self._log.client.ends([self._place])[self._place]
        if self._is_another_topic() or self._reader.positions[self._place] > end:
            self._start_over()
        elif self._reader.positions[self._place] >= end:
            with self._changed:
                self._confirmed = asked
                self._changed.notify_all()

    def _is_another_topic(self) -> bool:
        """Whether the topic was deleted and made anew."""
        name = self._place[0]
        facts = self._log.client.describe([name])[name]
        if facts is None:
            raise StorageUnavailable("the control topic is gone", where=name, help="`lumyn topics create`")
        known, self._topic_id = self._topic_id, facts.topic_id
        return known not in (None, facts.topic_id)

    def _start_over(self) -> None:
        """Read all of the new topic; nothing is current until its end was seen."""
        self._observer.event("control_topic_replaced", topic=self._place[0])
        with self._changed:
            self._state, self._confirmed = ControlState(), float("-inf")
        self._reader.close()
        self._reader = self._log.client.reader()
        self._reader.assign({self._place: 0})

    def stop(self) -> None:
        """End the thread and let go of the connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(1)
        if not self._thread.is_alive():  # one that still waits for a broker ends with the process
            self._reader.close()
