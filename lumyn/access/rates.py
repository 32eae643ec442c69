"""How many requests a key may make: a token bucket each, in the process that serves."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from schemas.errors import RateLimited, UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600}
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|m|h)\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` requests in each `seconds`; as many may come at once."""

    count: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.count}/{next(unit for unit, s in _UNITS.items() if s == self.seconds)}"

    @classmethod
    def parse(cls, text: str) -> Rate:
        """`100/s`, `600/m`, `5000/h`. Raises `UsageError`."""
        found = _RATE.match(text.strip())
        if found is None:
            raise UsageError(f"`{text}` is no rate", help="a rate is a count a time: `100/s`, `600/m`, `9000/h`")
        return cls(int(found[1]), _UNITS[found[2]])


class Buckets:
    """A bucket a key. A request that costs more than is left is taken on credit, and those after it wait for that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._left: dict[str, tuple[Rate, float, float]] = {}

    def take(self, key_id: str, rate: Rate | None, cost: int = 1) -> None:
        """Take `cost` requests' worth. Raises `RateLimited`, with the seconds after which the next one may come."""
        if rate is None:
            return
        now = self._clock()
        with self._lock:
            of, left, then = self._left.get(key_id, (rate, float(rate.count), now))
            if of != rate:
                left = float(rate.count)
            left = min(float(rate.count), left + max(0.0, now - then) * rate.count / rate.seconds)
            spent = left < 1
            self._left[key_id] = (rate, left if spent else left - cost, now)
        if spent:
            wait_s = (1 - left) * rate.seconds / rate.count
            raise RateLimited(f"this key may make {rate} requests", retry_after_s=wait_s)

    def charge(self, key_id: str, rate: Rate | None, cost: int) -> None:
        """Take what a request that was let in turned out to cost beyond its first; never refuses."""
        if rate is None or cost < 1:
            return
        with self._lock:
            if key_id in self._left:
                of, left, then = self._left[key_id]
                self._left[key_id] = (of, left - cost, then)
