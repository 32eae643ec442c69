"""What a server does beside its requests: the record index brought on, checkpoints signed. Requests go first.

Both are long where much was decided at once, and Python runs one thread at a time. So the work is done in small steps
with longer rests between them: a request seldom meets a step, and waits for one at the most. No answer rests on this: a
list brings the index up to the log itself, whatever is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from lumyn.checkpointing import own_checkpointer
from lumyn.home import Home
from lumyn.stores import uses_server
from schemas.errors import LumynError
from streams.reading import ends_of, is_embedded
from streams.topics import RECORDS

CHECKPOINT_S: Final = 10.0
BEHIND: Final = 2000
"""While decisions keep coming, the index may lack this many: a list makes them good in a few tenths of a second."""
ROUND_S: Final = 0.25
_STEP_S: Final = 0.001
INDEX_SHARE: Final = 1 / 3
CHECKPOINT_SHARE: Final = 1 / 10
"""Of the time; as much as deciding at full speed asks for, and some more."""
Says = Callable[[str], None]


class Stopped(Exception):
    """The server ends, and with it what is under way."""


class Pace:
    """Rests between steps, so that no more than a share of the time goes into them. Raises `Stopped`."""

    def __init__(self, stop: threading.Event, share: float) -> None:
        self._stop = stop
        self._rest = 1 / share - 1
        self._since = time.thread_time()

    def __call__(self, _count: int = 0) -> None:
        worked = time.thread_time() - self._since
        if worked < _STEP_S:
            return
        if self._stop.wait(worked * self._rest):
            raise Stopped
        self._since = time.thread_time()


def keep_index(home: Home, stop: threading.Event, say: Says) -> None:
    """Bring a home's record index on until `stop`; where a worker keeps it on a server, there is nothing to do."""
    if uses_server(home.settings):
        return
    index, pace = _Index(home), Pace(stop, INDEX_SHARE)
    _again_and_again(lambda: index.bring_on(pace), ROUND_S, stop, say)


def keep_checkpoints(home: Home, stop: threading.Event, say: Says) -> None:
    """Sign checkpoints over what is new until `stop`. Over Kafka that is the index worker's business."""
    if not is_embedded(home.log):
        return
    checkpointer, pace = own_checkpointer(home), Pace(stop, CHECKPOINT_SHARE)
    _again_and_again(lambda: checkpointer.run(pace), CHECKPOINT_S, stop, say)


def _again_and_again(step: Callable[[], object], every_s: float, stop: threading.Event, say: Says) -> None:
    said = ""
    while not stop.wait(every_s):
        try:
            step()
            said = ""
        except Stopped:
            return
        except Exception as error:  # a fault of ours must not end what has to go on as long as the server does
            told = str(error) if isinstance(error, LumynError) else f"internal error: {type(error).__name__}: {error}"
            if said != told:  # a broker that is away for an hour is said once
                said = told
                say(f"lumyn: {said}")
            stop.wait(2)


class _Index:
    """When the index is brought on: when nothing new came for a round, or much has."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seen = self._taken = -1

    def bring_on(self, pace: Pace) -> None:
        end = sum(ends_of(self._home.log, RECORDS))
        is_quiet, self._seen = end == self._seen, end
        if end == self._taken or not (is_quiet or end - self._taken >= BEHIND):
            return
        self._home.bring_index_on(pace)
        self._taken = end
