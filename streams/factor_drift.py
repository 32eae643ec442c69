"""How each factor differs between a window and the time before it, and how well it tells bad decisions from good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from statistics import median
from typing import Any

from streams.factors import Observed, categories, is_versions, names, number, rate_of, values
from streams.request_factors import is_of_request, request_kinds
from streams.statistics.drift import drift
from streams.statistics.multiple import holm
from streams.statistics.two_groups import association

_MOST_VALUES = 20


def compared_factors(
    observed: Sequence[Observed], cut: int, *, with_bad: bool, leave_out: Collection[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every factor that is not always the same, the most telling first; and those that are ids.

    `observed` in the order of time; from place `cut` on they are in the window. `differs` compares the two parts,
    `separates` (with `with_bad`) the events with the others. p-values are Holm's over all factors. `leave_out`: factors
    that are not compared. Fields of the request are compared among the decisions whose request can be read.
    """
    readable = [one for one in observed if one.readable]
    readable_cut = sum(one.readable for one in observed[:cut])
    told: dict[str, dict[str, Any]] = {}
    ids = []
    for name in names(observed):
        if name in leave_out:
            continue
        asked = is_of_request(name)
        some, at = (readable, readable_cut) if asked else (observed, cut)
        raw = values(some, name)
        if len(set(raw)) < 2:
            continue
        few = request_kinds(raw) if asked else raw
        kinds = None if few is None else categories(few)
        if few is None or kinds is None:
            ids.append(name)
            continue
        told[name] = _factor(name, few, kinds, [one.event for one in some], at, with_bad)
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
    there = (before, inside)
    if binned and is_versions(raw):
        there = (Counter(raw[:cut]), Counter(raw[cut:]))
    elif binned:
        there = (Counter(), Counter())
    return {
        "factor": name,
        "new": _only_in(there[1], there[0]) if cut else [],
        "gone": _only_in(there[0], there[1]) if cut < len(kinds) else [],
        "median": [median(part) if part else None for part in numbers] if binned else None,
        "differs": _compared(before, inside),
        "separates": _compared(good, bad) if with_bad else None,
        "sets_apart": _sets_apart(good, bad) if with_bad else None,
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


def _only_in(here: Counter[str], other: Counter[str]) -> list[str]:
    """The values that one part alone has, the most frequent first."""
    return sorted((value for value in here if not other[value]), key=lambda value: (-here[value], value))[:_MOST_VALUES]


def _sets_apart(good: Counter[str], bad: Counter[str]) -> dict[str, Any] | None:
    """The value whose share among the bad ones lies furthest above that among the others; None where one is empty."""
    if not good.total() or not bad.total():
        return None
    value = min(bad, key=lambda kind: (good[kind] / good.total() - bad[kind] / bad.total(), kind))
    return {
        "value": value, "bad": bad[value], "of_bad": bad.total(), "others": good[value], "of_others": good.total(),
    }  # fmt: skip


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
