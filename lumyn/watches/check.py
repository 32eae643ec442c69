"""One round of a watch: its windows counted, and what that says. No data is no data: it is never called fine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lumyn.home import Home
from lumyn.searching import understood
from lumyn.watches.store import Saved, keep_round, saved_watches, watch_named
from lumyn.watches.watch import Condition, Watch
from memory_service.nearby import wilson
from schemas.ids import iso_time
from schemas.query import And, Expression, Field, Query, Range
from streams.index_sync import fetcher
from streams.local_log import wall_clock_ms

State = Literal["alert", "ok", "unclear", "no_data", "none"]
TargetState = Literal["met", "not_met", "not_shown", "missed", "no_data"]
_CREATED = Field("created_at", "time")


def check(home: Home, name: str, *, now_ms: int | None = None, keep: bool = True) -> dict[str, Any]:
    """Check one watch now, and keep what was measured.

    Returns `{name, at, at_ms, windows: {short, long, target}, state, alert, target_state, says, incident, ...}`; a
    window is `{seconds, count, events, rate, lower, upper, burn}`, rate None where nothing was decided.
    `state`: `alert`, `ok`, `unclear` (not enough data to tell), `no_data`, `none` (it has no alert). Raises `NotFound`,
    `StorageUnavailable`, `BadQuery`.
    """
    return _round(home, watch_named(home, name), now_ms, keep)


def check_all(home: Home, *, now_ms: int | None = None, keep: bool = True) -> list[dict[str, Any]]:
    """Check every watch of the tenant, as `check` does."""
    return [_round(home, saved, now_ms, keep) for saved in saved_watches(home)]


def _round(home: Home, saved: Saved, now_ms: int | None, keep: bool) -> dict[str, Any]:
    watch, at = saved.watch, wall_clock_ms() if now_ms is None else now_ms
    seconds = {"short": watch.window_s, "long": watch.long_window_s}
    if watch.target is not None:
        seconds["target"] = watch.target_window_s
    windows = dict(zip(seconds, _windows(home, watch, list(seconds.values()), at), strict=True))
    state, says = alert_state(watch, windows["short"], windows["long"])
    target_state: TargetState | None = None
    target_says: str | None = None
    if watch.target is not None:
        target_state, target_says = reached(watch, windows["target"], at)
    result: dict[str, Any] = {
        "name": watch.name,
        "at": iso_time(at),
        "at_ms": at,
        "state": state,
        "alert": state == "alert",
        "says": says,
        "target_state": target_state,
        "target_says": target_says,
        "windows": windows,
        "query": watch.query,
        "of": watch.of,
        "incident": watch.incident,
    }
    if keep:
        keep_round(home, saved, result)
    return result


def _windows(home: Home, watch: Watch, seconds: Sequence[float], at: int) -> list[dict[str, Any]]:
    index, tenant, fetch = home.index(), home.settings.tenant, fetcher(home.log)
    event = understood(home, watch.query, lambda text: None).expression
    base: list[Expression] = [] if watch.of is None else [understood(home, watch.of, lambda text: None).expression]
    out = []
    for span in seconds:
        during: list[Expression] = [*base, Range(_CREATED, at - round(span * 1000), at, above=True)]
        count = index.count(Query("", And(tuple(during))), tenant=tenant, fetch=fetch)
        events = index.count(Query("", And((*during, event))), tenant=tenant, fetch=fetch) if count else 0
        out.append(window(span, events, count, watch.allowed))
    return out


def window(seconds: float, events: int, count: int, allowed: float | None) -> dict[str, Any]:
    """What one window holds: its rate with the 95% Wilson interval, and how fast that burns the allowed rate.

    `burn` is rate over allowed rate: at 1 the budget is used up exactly at the end of its time. Source: Beyer et al.,
    The Site Reliability Workbook (2018), chapter 5.
    """
    out: dict[str, Any] = {"seconds": seconds, "count": count, "events": events}
    if not count:
        return out | {"rate": None, "lower": 0.0, "upper": 1.0, "burn": None}
    rate = events / count
    lower, upper = wilson(rate, count)
    return out | {"rate": rate, "lower": lower, "upper": upper, "burn": None if not allowed else rate / allowed}


def alert_state(watch: Watch, short: dict[str, Any], long: dict[str, Any]) -> tuple[State, str]:
    """The state of the alert, and why.

    It alerts when both windows are beyond the threshold (the long one, that it matters; the short one, that it still
    goes on), and the long one's interval is, too: not by chance.
    """
    condition = watch.alert_condition
    if condition is None:
        return "none", "it has no alert"
    if not long["count"]:
        return "no_data", "nothing was decided in the long window: nothing is known"
    if long["count"] < watch.least:
        return "unclear", f"{long['count']} decisions in the long window, and it takes {watch.least} to say anything"
    if beyond(condition, long["rate"]) and beyond(condition, _nearer_end(condition, long)):
        if not short["count"]:
            return "no_data", f"{condition.text} in the long window, and nothing was decided in the short one since"
        if beyond(condition, short["rate"]):
            return "alert", f"{condition.text} in both windows, and not by chance"
        return "ok", f"{condition.text} in the long window, and no more in the short one"
    if not beyond(condition, _farther_end(condition, long)):
        return "ok", f"not {condition.text}, by the whole interval"
    return "unclear", f"whether {condition.text} can't be told from {long['count']} decisions"


def reached(watch: Watch, seen: dict[str, Any], at_ms: int) -> tuple[TargetState, str]:
    """The target's state (`met`, `not_met`, `not_shown`, `no_data`; `missed` once its day is over), and why."""
    condition = watch.target_condition
    assert condition is not None
    late = watch.due_ms is not None and at_ms >= watch.due_ms
    state: TargetState
    if not seen["count"]:
        state, says = "no_data", "nothing was decided in its window"
    elif seen["count"] >= watch.least and beyond(condition, _nearer_end(condition, seen)):
        return "met", f"{condition.text}, by the whole interval"
    elif beyond(condition, seen["rate"]):
        state, says = "not_shown", f"{condition.text} so far, and {seen['count']} decisions are too few to show it"
    else:
        state, says = "not_met", f"not {condition.text}"
    return ("missed", f"its day, {watch.by}, is over: {says}") if late else (state, says)


def beyond(condition: Condition, rate: float) -> bool:
    """Whether a rate meets the condition."""
    return rate > condition.than if condition.above else rate < condition.than


def _nearer_end(condition: Condition, seen: dict[str, Any]) -> float:
    """The end of the interval that has to be beyond the threshold, so that all of it is."""
    return float(seen["lower"] if condition.above else seen["upper"])


def _farther_end(condition: Condition, seen: dict[str, Any]) -> float:
    return float(seen["upper"] if condition.above else seen["lower"])
