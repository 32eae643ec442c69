"""The garbage collector where nearly all that is made stays or is freed by count: its walks would find no garbage."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_pauses = 0
_was_on = False


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the cyclic collector (reference counting goes on); the last of several batches at once wakes it."""
    global _pauses, _was_on
    with _lock:
        if _pauses == 0:
            _was_on = gc.isenabled()
            gc.disable()
        _pauses += 1
    try:
        yield
    finally:
        with _lock:
            _pauses -= 1
            if _pauses == 0 and _was_on:
                gc.enable()


def collect_seldom() -> None:
    """For a process that works through batches until it ends: what start-up made is left alone, and walks are rarer.

    Python's own pace (each 700 new objects) costs a decide worker a sixth of its time. Nothing may rely on the walks:
    what holds a batch, a connection or an error is let go of by name (`to_keep`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
