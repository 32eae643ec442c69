"""Work in as many processes as there are cores, with results in the order of the items, a few items ahead."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal, TypeVar

from schemas.errors import StorageUnavailable

_AHEAD = 3
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    start: Callable[..., None],
    arguments: tuple[Any, ...] = (),
    *,
    method: Literal["fork", "spawn"],
    lost: str,
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[tuple[Item, Result]]:
    """Each item with its result. `start(*arguments)` is called once in each process, `meanwhile()` here, beside them.

    Raises `StorageUnavailable` with the message `lost` when a process is killed, and what `work` raises.
    """
    count = os.cpu_count() or 1
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    pool = ProcessPoolExecutor(count, multiprocessing.get_context(method), initializer=start, initargs=arguments)
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) == _AHEAD * count:
                if meanwhile is not None:
                    meanwhile()
                    meanwhile = None
                yield _next(waiting)
        while waiting:
            yield _next(waiting)
    except BrokenProcessPool:
        raise StorageUnavailable(lost, help="was memory short? `dmesg` tells; try again") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _next(waiting: deque[tuple[Item, Future[Result]]]) -> tuple[Item, Result]:
    item, future = waiting.popleft()
    return item, future.result()
