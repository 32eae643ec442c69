"""Waiting for brokers that are down when a worker starts: a restart of everything has no order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import StorageUnavailable
from streams.observe import Observer

BROKERS_WITHIN_S = 60.0
_T = TypeVar("_T")


def once_reachable(act: Callable[[], _T], observer: Observer, within_s: float = BROKERS_WITHIN_S) -> _T:
    """What `act` gives, tried each second while the brokers can't be reached. Raises its `StorageUnavailable`."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return act()
        except StorageUnavailable as error:
            if time.monotonic() > deadline:
                raise
            observer.trouble("brokers_unreachable", error)
            time.sleep(1)
