"""Runs `lumyn worker ...` with faults built in from outside: a signal at a named point, or a clock that jumps.

`LUMYN_TEST_FAULT=POINT:N` kills the process (kill -9) the Nth time it gets to a point, `POINT:N:STOP` pauses it there.
`LUMYN_TEST_CLOCK=A,B,...` adds seconds to the wall clock, another of them each second. The product has no such
switches: they are put in here.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

DECIDE_POINTS = (
    "opened",  # the older writer is fenced; position and receipts not read yet
    "begin",  # a batch is decided, nothing of it is sent
    "half-sent",  # some outputs of a batch are with the broker
    "sent",  # all outputs are
    "offsets-sent",  # the position is, too
    "committing",  # the commit is on its way
    "committed",  # it took effect; the worker's own window does not know
    "window-half",  # the window is being written
    "window-written",  # all is done, nobody was told
)
LABEL_POINTS = (
    "opened",
    "sent",
    "committing",
    "sequenced",  # the events are in the log, the store does not know
)
STORE_POINTS = (
    "points-written",  # a batch's points are in the store, their documents not
    "documents-written",  # the watermark is not
    "applied",  # the watermark is; it was not vouched for
)


class Bomb:
    """Kills or pauses the process the Nth time that its point is reached."""

    def __init__(self, spec: str) -> None:
        given = spec.split(":")
        self.point, number, which = given + ["", "1", "KILL"][len(given) :]
        self._left = int(number)
        self._signal = signal.Signals[f"SIG{which}"]

    def at(self, point: str) -> None:
        if point == self.point and self.due():
            self.go_off()

    def due(self) -> bool:
        self._left -= 1
        return self._left == 0

    def go_off(self) -> None:
        os.kill(os.getpid(), self._signal)


def before(owner: Any, name: str, act: Callable[[], None]) -> None:
    """Do something before each call of a function."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        act()
        return inner(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: Any, name: str, act: Callable[[], None]) -> None:
    """Do something after each call that returned."""
    inner = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        act()
        return result

    setattr(owner, name, wrapped)


def plant(bomb: Bomb) -> None:
    """Put the bomb where its point is."""
    from streams.kafka.producer import KafkaProducer
    from streams.window import ReceiptWindow

    def commit_with_a_bomb(self: Any, *args: Any, **kwargs: Any) -> None:
        if bomb.point == "sent":
            self._producer.flush(5)
        bomb.at("sent")
        self._producer = _Committing(self._producer, bomb)
        commit(self, *args, **kwargs)
        self._producer = self._producer.inner
        bomb.at("committed")

    def trace_of(database: Any) -> Any:
        database.set_trace_callback(lambda statement: bomb.at("window-half") if statement == "COMMIT" else None)
        return database

    commit = KafkaProducer.commit
    KafkaProducer.commit = commit_with_a_bomb  # type: ignore[method-assign]
    after(KafkaProducer, "open", lambda: bomb.at("opened"))
    before(KafkaProducer, "begin", lambda: bomb.at("begin"))
    after(ReceiptWindow, "committed", lambda: bomb.at("window-written"))
    if bomb.point == "half-sent":
        _flushing_half(KafkaProducer, bomb)
    if bomb.point == "window-half":
        import streams.window

        connect = streams.window._connect
        streams.window._connect = lambda path: trace_of(connect(path))
    if bomb.point in (*LABEL_POINTS, *STORE_POINTS):
        _plant_labels(bomb)


class _Committing:
    """A client's producer whose commit the bomb may go off in."""

    def __init__(self, inner: Any, bomb: Bomb) -> None:
        self.inner = inner
        self._bomb = bomb

    def commit_transaction(self, *args: Any) -> None:
        self._bomb.at("offsets-sent")
        if self._bomb.point == "committing" and self._bomb.due():
            wait_s = int.from_bytes(os.urandom(2), "big") / 65536 * 0.01
            threading.Timer(wait_s, self._bomb.go_off).start()
            self.inner.commit_transaction(*args)
            time.sleep(1)  # the process is not to get any further
            return
        self.inner.commit_transaction(*args)

    def __len__(self) -> int:
        return len(self.inner)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def _flushing_half(producer: Any, bomb: Bomb) -> None:
    """The first messages of a transaction reach the broker before the bomb goes off."""
    send = producer.send

    def sending(self: Any, *args: Any, **kwargs: Any) -> None:
        send(self, *args, **kwargs)
        if bomb.due():
            self._producer.flush(5)
            bomb.go_off()

    producer.send = sending


def _plant_labels(bomb: Bomb) -> None:
    import streams.label_worker as labels

    after(labels.LabelWorker, "_sequence", lambda: bomb.at("sequenced"))
    after(labels, "catch_up", lambda: bomb.at("applied"))
    if bomb.point in STORE_POINTS:
        from memory_service.qdrant.server import ServerEngine

        upsert = ServerEngine.upsert

        def writing(self: Any, collection: str, points: Any, *more: Any, **named: Any) -> None:
            upsert(self, collection, points, *more, **named)
            if collection.endswith("-memory-labels"):
                bomb.at("documents-written")
            elif any("memory_id" in point.payload for point in points):
                bomb.at("points-written")

        ServerEngine.upsert = writing  # type: ignore[method-assign]


def jump(spec: str) -> None:
    """Make the wall clock jump between offsets, in seconds."""
    offsets = [float(part) for part in spec.split(",")]
    seconds, nanoseconds = time.time, time.time_ns

    def offset() -> float:
        return offsets[int(time.monotonic()) % len(offsets)]

    time.time = lambda: seconds() + offset()
    time.time_ns = lambda: nanoseconds() + int(offset() * 1e9)


if __name__ == "__main__":
    if os.environ.get("LUMYN_TEST_CLOCK"):
        jump(os.environ["LUMYN_TEST_CLOCK"])
    if os.environ.get("LUMYN_TEST_FAULT"):
        plant(Bomb(os.environ["LUMYN_TEST_FAULT"]))
    sys.argv[0] = "lumyn"
    from lumyn.__main__ import main

    main()
