"""What changed in a window that nobody decided on: each factor before and in it, ranked by what tells bad from good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from lumyn.canary import as_ticks
from lumyn.rate_files import load_all
from lumyn.traffic import LeftOut, recorded, rows_of
from lumyn.wiring import Home
from schemas.errors import UsageError
from schemas.ids import iso_time
from streams.factors import Observed, categories, factors_of, names, number, rate_of, values
from streams.local_log import wall_clock_ms
from streams.span import parse_span
from streams.statistics.drift import drift
from streams.statistics.multiple import holm
from streams.statistics.two_groups import association

_MOST_VALUES = 20


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
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Each factor in the window and before it. Raises `BadQuery`, `StorageUnavailable`."""
    first, start, end = window
    left_out = LeftOut()
    rows = rows_of(home, query, say, start=first, end=end)
    bad_ids = {row.decision_id for row in rows_of(home, bad, say, start=first, end=end)} if bad is not None else set()
    observed = []
    for row, record in recorded(home, rows, left_out):
        event = row.decision_id in bad_ids
        observed.append(Observed(row.created_ms, row.subject_id or row.decision_id, event, factors_of(record)))
        tick(1)
    observed.sort(key=lambda one: one.at_ms)
    before = [one for one in observed if one.at_ms < start]
    inside = observed[len(before) :]
    told, ids = _factors(observed, len(before), bad is not None)
    bad_before, bad_inside = (sum(one.event for one in part) for part in (before, inside))
    return {
        "since": iso_time(first),
        "from": iso_time(start),
        "to": iso_time(end),
        "query": query,
        "bad": bad,
        "before": rate_of(bad_before, len(before)) if bad is not None else {"n": len(before)},
        "window": rate_of(bad_inside, len(inside)) if bad is not None else {"n": len(inside)},
        "ranked_by": "separates" if bad is not None else "differs",
        "factors": told,
        "not_compared": ids,
        "canary": _canary(home, first, end),
        "closed": left_out.closed,
        "unsound": left_out.unsound,
    }


def _factors(observed: Sequence[Observed], cut: int, with_bad: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Every factor that is not always the same, the most telling first; and those that are ids."""
    told: dict[str, dict[str, Any]] = {}
    ids = []
    for name in names(observed):
        raw = values(observed, name)
        if len(set(raw)) < 2:
            continue
        kinds = categories(raw)
        if kinds is None:
            ids.append(name)
            continue
        told[name] = _factor(name, raw, kinds, [one.event for one in observed], cut, with_bad)
    for figure in ("differs", "separates"):
        adjusted = holm({name: one[figure]["p_value"] for name, one in told.items() if one[figure] is not None})
        for name, p_value in adjusted.items():
            told[name][figure]["p_adjusted"] = p_value
    key = "separates" if with_bad else "differs"

    def rank(one: Mapping[str, Any]) -> tuple[float, float, float, str]:
        figure, other = one[key], one["differs"]
        strength = -figure["association"] if figure else 1.0
        return strength, figure["p_value"] if figure else 1.0, -other["association"] if other else 1.0, one["factor"]

    return sorted(told.values(), key=rank), ids


def _factor(
    name: str, raw: Sequence[str], kinds: Sequence[str], events: Sequence[bool], cut: int, with_bad: bool
) -> dict[str, Any]:
    before, inside = Counter(kinds[:cut]), Counter(kinds[cut:])
    bad = Counter(kind for kind, event in zip(kinds, events, strict=True) if event)
    good = Counter(kind for kind, event in zip(kinds, events, strict=True) if not event)
    ranked = sorted({*before, *inside}, key=lambda kind: (-inside[kind], -before[kind], kind))
    numbers = [[found for text in part if (found := number(text)) is not None] for part in (raw[:cut], raw[cut:])]
    binned = list(kinds) != list(raw) and any(numbers)
    return {
        "factor": name,
        "new": [] if binned else [kind for kind in ranked if not before[kind]][:_MOST_VALUES],
        "gone": [] if binned else [kind for kind in ranked if not inside[kind]][:_MOST_VALUES],
        "median": [median(part) if part else None for part in numbers] if binned else None,
        "differs": _compared(before, inside),
        "separates": _compared(good, bad) if with_bad else None,
        "values": [
            {
                "value": kind,
                "before": before[kind],
                "window": inside[kind],
                **({"bad": rate_of(bad[kind], bad[kind] + good[kind])} if with_bad else {}),
            }
            for kind in ranked[:_MOST_VALUES]
        ],
    }


def _compared(first: Counter[str], second: Counter[str]) -> dict[str, Any] | None:
    """How far two mixes differ; None where one of them is empty."""
    if not first.total() or not second.total():
        return None
    found = drift(first, second)
    return {
        "association": association(first, second),
        "psi": found.psi,
        "psi_expected": found.psi_expected,
        "chi_squared": found.chi_squared,
        "df": found.df,
        "p_value": found.p_value,
        "warnings": list(found.warnings),
    }


def _canary(home: Home, first: int, end: int) -> list[dict[str, Any]]:
    """What `lumyn watch canary` measured from the comparison's start to the window's end."""
    found, _ = load_all(home.settings, "canary")
    return [one for one in as_ticks(found) if iso_time(first) <= one["at"] < iso_time(end)]
