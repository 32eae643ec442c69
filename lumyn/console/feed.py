"""The live feed: every new record is counted, a few are shown, whatever the traffic.

One thread reads the tail of `records` for all who look on, and only while somebody does. What it keeps is bounded:
counts by verdict, a minute of seconds, and one frame a tenant that all of its viewers are given. A slow viewer misses
frames, not counts.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lumyn.cli.output import one_line
from lumyn.figures import amount as shown_amount
from schemas.canonical import decode_trusted, encode
from schemas.errors import LumynError
from schemas.verdict import VERDICTS
from streams.local_log import wall_clock_ms
from streams.log import Log, Message
from streams.tail import Tail, tail_of
from streams.topics import RECORDS

TICK_S: Final = 0.5
ROWS_A_TICK: Final = 10
"""So that at most twenty rows a second are sent."""
WINDOW_S: Final = 60
RATE_S: Final = 10
IDLE_S: Final = 20.0
_TENANTS: Final = 1000


@dataclass(slots=True)
class _Of:
    """What is known of one tenant."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: deque[tuple[int, Counter[str]]] = field(default_factory=deque)
    new: int = 0
    sample: dict[str, deque[dict[str, Any]]] = field(default_factory=dict)

    def take(self, record: Mapping[str, Any], time_ms: int) -> None:
        verdict = record["verdict"]
        self.counts[verdict] += 1
        self.new += 1
        second = time_ms // 1000
        for known, counts in reversed(self.seconds):  # partitions are read one after the other
            if known == second:
                counts[verdict] += 1
                break
            if known < second:
                self.seconds.append((second, Counter({verdict: 1})))
                break
        else:
            self.seconds.appendleft((second, Counter({verdict: 1})))
        kept = self.sample.get(verdict)
        if kept is None:
            kept = self.sample[verdict] = deque(maxlen=ROWS_A_TICK)
        kept.append(_row(record, time_ms))

    def rows(self) -> list[dict[str, Any]]:
        """A few of the tick's rows, in turn of each verdict, so that the rare ones are not drowned; oldest first."""
        waiting = [list(rows) for rows in self.sample.values() if rows]
        chosen: list[dict[str, Any]] = []
        while waiting and len(chosen) < ROWS_A_TICK:
            for rows in waiting:
                if len(chosen) < ROWS_A_TICK:
                    chosen.append(rows.pop())
            waiting = [rows for rows in waiting if rows]
        self.sample.clear()
        return sorted(chosen, key=lambda row: (row["at_ms"], row["id"]))


@dataclass(frozen=True, slots=True)
class Frame:
    """What viewers are sent: an event of a server-sent stream, ready."""

    number: int
    data: bytes


class Feed:
    """The tail of one log. Thread-safe."""

    def __init__(self, log: Log, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._log = log
        self._clock_ms = clock_ms
        self._lock = threading.Lock()
        self._asked = 0.0
        self._thread: threading.Thread | None = None
        self._tail: Tail | None = None
        self._of: dict[str, _Of] = {}
        self._frames: dict[str, Frame] = {}
        self._number = 0
        self._stopped = threading.Event()
        self.since_ms = 0

    def frame(self, tenant: str) -> Frame:
        """The newest frame of a tenant; begins to read when nobody did. Raises `StorageUnavailable`."""
        with self._lock:
            self._asked = time.monotonic()
            if self._thread is None and not self._stopped.is_set():
                self._begin()
            known = self._of.get(tenant)
            if known is None and len(self._of) < _TENANTS:
                known = self._of[tenant] = _Of()
            found = self._frames.get(tenant)
            if found is None:
                found = self._frames[tenant] = self._frame(known or _Of(), [], 0)
            return found

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()

    def _begin(self) -> None:
        self._tail = tail = tail_of(self._log, RECORDS)
        self._of.clear()
        self._frames.clear()
        self.since_ms = self._clock_ms()
        self._thread = threading.Thread(target=self._run, args=(tail,), name="console-feed", daemon=True)
        self._thread.start()

    def _run(self, tail: Tail) -> None:
        try:
            while not self._stopped.wait(TICK_S):
                with self._lock:
                    if time.monotonic() - self._asked > IDLE_S:
                        self._thread = None
                        return
                try:
                    self.step()
                except LumynError:
                    continue  # the log can't be read now: the next tick tries again, and no count is invented
        finally:
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None  # a fault ended it: who looks next begins anew
            tail.close()

    def step(self) -> None:
        """Take in what is new, and make a frame of it for each tenant that is looked at."""
        news: list[Message] = []
        try:
            for message in self._tail.news() if self._tail is not None else ():
                news.append(message)
                if len(news) >= 1000:
                    self._take(news)
                    news = []
        finally:  # what came before an error was given, and will not come again
            self._take(news)
        with self._lock:
            self._number += 1
            for tenant, known in self._of.items():
                new, known.new = known.new, 0
                self._frames[tenant] = self._frame(known, known.rows(), new)

    def _take(self, news: Iterable[Message]) -> None:
        with self._lock:
            for message in news:
                try:
                    record = decode_trusted(message.value)
                    known = self._of.get(record["tenant"])
                    if known is not None and record["verdict"] in VERDICTS:
                        known.take(record, message.time_ms)
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue  # no record: `lumyn verify` names it

    def _frame(self, known: _Of, rows: list[dict[str, Any]], new: int) -> Frame:
        now = self._clock_ms() // 1000
        while known.seconds and known.seconds[0][0] < now - WINDOW_S:
            known.seconds.popleft()
        rates: Counter[str] = Counter()
        for second, counts in known.seconds:
            if now - RATE_S <= second < now:  # whole seconds only
                rates.update(counts)
        by_second = dict.fromkeys(range(now - WINDOW_S, now), 0)
        for second, counts in known.seconds:
            if second in by_second:
                by_second[second] += counts.total()
        told = {
            "counts": {v: known.counts[v] for v in VERDICTS},
            "rates": {v: rates[v] / RATE_S for v in VERDICTS},
            "seconds": list(by_second.values()),
            "since_ms": self.since_ms,
            "new": new,
            "rows": rows,
        }
        return Frame(self._number, b"id: %d\ndata: %s\n\n" % (self._number, encode(told)))


def _figure(value: Any) -> Any:
    """An amount's figure as the other pages have it."""
    return shown_amount(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _row(record: Mapping[str, Any], time_ms: int) -> dict[str, Any]:
    request = record["request"]
    action, amount = request.get("action") or {}, (request.get("action") or {}).get("amount")
    money = amount if isinstance(amount, Mapping) else {}
    return {
        "id": one_line(str(record["decision_id"])),
        "at_ms": time_ms,
        "verdict": record["verdict"],
        "action": one_line(str(action.get("type") or ""))[:80],
        "amount": one_line(f"{_figure(money.get('value', ''))} {money.get('currency', '')}".strip())[:40],
        "reasons": one_line(", ".join(map(str, record["reason_codes"])))[:160],
    }
