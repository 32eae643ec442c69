"""Requests that arrive together are decided together: one call, one transaction, one fsync.

While one group is being decided the next one gathers, so a lone request waits for nobody and many share the cost.
Nothing is answered before its group is durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from schemas.errors import LumynError, StorageUnavailable
from schemas.request import Request
from streams.deciding import Answer

_MOST: Final = 1024
_FLIGHTS: Final = 16
_Waiting = tuple[Request, "asyncio.Future[Answer | LumynError]"]
Decides = Callable[[Sequence[Request]], list["Answer | LumynError"]]


class Gatherer:
    """Calls `decides` off the event loop, with all that waits.

    `flights`: how many groups may be under way. An embedded log decides one at a time anyhow; over Kafka a group waits
    for its slowest partition, and others must not wait for that.
    """

    def __init__(self, decides: Decides, flights: int = 1) -> None:
        self._decides = decides
        self._flights = min(flights, _FLIGHTS)
        self._pool = ThreadPoolExecutor(self._flights, thread_name_prefix="decide")
        self._waiting: list[_Waiting] = []
        self._running: set[asyncio.Task[None]] = set()
        self._under_way = 0

    async def decide(self, request: Request) -> Answer:
        """The durable decision of a request. Raises what `decides` says of it."""
        answer: asyncio.Future[Answer | LumynError] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._under_way < self._flights:
            self._start()
        found = await answer
        if isinstance(found, LumynError):
            raise found
        return found

    def _start(self) -> None:
        self._under_way += 1
        task = asyncio.get_running_loop().create_task(self._run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # what the loop has read already joins
            while self._waiting:
                group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._decide(group)
        finally:  # at once: a request that comes before the task is seen to be done must start another
            self._under_way -= 1

    async def _decide(self, group: list[_Waiting]) -> None:
        """A group that fails as a whole was not written; one by one only the cause of it fails again."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._pool, self._decides, [request for request, _ in group])
        except Exception as error:
            if len(group) == 1 or isinstance(error, StorageUnavailable):
                for _, answer in group:
                    if not answer.done():
                        answer.set_exception(_own(error))
                return
            for one in group:
                await self._decide([one])
            return
        for (_, answer), told in zip(group, found, strict=True):
            if not answer.done():
                answer.set_result(told)

    def close(self) -> None:
        """Let go of the threads; what is under way is finished."""
        self._pool.shutdown(wait=False)


def _own(error: Exception) -> Exception:
    """Each waiter raises an error of its own: one that is raised twice would grow a traceback across requests."""
    if not isinstance(error, LumynError):
        return error
    copy = type(error).__new__(type(error))
    copy.__dict__ = dict(error.__dict__)
    copy.args = error.args
    return copy
