"""What changed in a window that nobody decided on: each factor before and in it, ranked by what tells bad from good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lumyn.canary import as_ticks
from lumyn.home import Home
from lumyn.rate_files import load_all
from lumyn.searching import understood
from lumyn.traffic import LeftOut, recorded, rows_of
from memory_service.redaction import memory_paths
from schemas.errors import UsageError
from schemas.ids import iso_time
from streams.factor_drift import compared_factors
from streams.factors import Observed, factors_of, names, rate_of
from streams.local_log import wall_clock_ms
from streams.request_factors import beyond, named_by, request_factors, shown
from streams.span import parse_span


def window_of(start: str, end: str | None, since: str | None) -> tuple[int, int, int]:
    """(start of the comparison, start and end of the window), in ms. Raises `UsageError`."""
    now = wall_clock_ms()
    span = parse_span(start, end, now_ms=now)
    if span.partition is not None or span.start is None:
        raise UsageError("`--from` and `--to` are times here", help="such as '2024-12-19 14:00'")
    last = span.end if span.end is not None else now + 1
    if last <= span.start:
        raise UsageError("`--from` lies in the future")
    if since is None:
        return max(0, span.start - (last - span.start)), span.start, last
    before = parse_span(since, None, now_ms=now)
    if before.partition is not None or before.start is None or before.start >= span.start:
        raise UsageError("`--since` must be a time before `--from`")
    return before.start, span.start, last


def changed_in(
    home: Home,
    window: tuple[int, int, int],
    *,
    query: str | None,
    bad: str | None,
    linked: Sequence[str] = (),
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Each factor in the window and before it. Raises `BadQuery`, `StorageUnavailable`.

    What fits `bad` is bad, and so are the decisions `linked` (ids). Factors that `bad` or `query` names are not
    compared: they tell its decisions apart because it chose them so.
    """
    first, start, end = window
    left_out = LeftOut()
    rows = rows_of(home, query, say, start=first, end=end)
    bad_ids = set(linked)
    if bad is not None:
        bad_ids |= {row.decision_id for row in rows_of(home, bad, say, start=first, end=end)}
    with_bad = bad is not None or bool(linked)
    observed = []
    words: dict[str, str] = {}  # a value is held once, however many decisions have it
    for row, record in recorded(home, rows, left_out):
        factors, readable = all_factors(home, record)
        factors = {words.setdefault(name, name): words.setdefault(value, value) for name, value in factors.items()}
        event = row.decision_id in bad_ids
        observed.append(Observed(row.created_ms, row.subject_id or row.decision_id, event, factors, readable))
        tick(1)
    observed.sort(key=lambda one: one.at_ms)
    before = [one for one in observed if one.at_ms < start]
    inside = observed[len(before) :]
    asked = [understood(home, text, lambda _: None).expression for text in (query, bad) if text is not None]
    named = named_by(asked, names(observed))
    too_many = beyond(observed)
    leave_out = {*named, *too_many}
    told, ids = compared_factors(observed, len(before), with_bad=with_bad, leave_out=leave_out)
    bad_before, bad_inside = (sum(one.event for one in part) for part in (before, inside))
    return {
        "since": iso_time(first),
        "from": iso_time(start),
        "to": iso_time(end),
        "query": query,
        "bad": bad,
        "linked": len(linked),
        "before": rate_of(bad_before, len(before)) if with_bad else {"n": len(before)},
        "window": rate_of(bad_inside, len(inside)) if with_bad else {"n": len(inside)},
        "ranked_by": "separates" if with_bad else "differs",
        "factors": told,
        "not_compared": ids,
        "named_by_query": named,
        "too_many_fields": len(too_many),
        "unreadable": sum(not one.readable for one in observed),
        "canary": _canary(home, first, end),
        "closed": left_out.closed,
        "unsound": left_out.unsound,
    }


def all_factors(home: Home, record: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    """A record's factors, those of its request among them, without what is redacted; and whether it could be read."""
    asked = request_factors(record)
    return shown(factors_of(record) | (asked or {}), memory_paths(home.settings.redact)), asked is not None


def _canary(home: Home, first: int, end: int) -> list[dict[str, Any]]:
    """What `lumyn watch canary` measured from the comparison's start to the window's end."""
    found, _ = load_all(home.settings, "canary")
    return [one for one in as_ticks(found) if iso_time(first) <= one["at"] < iso_time(end)]
