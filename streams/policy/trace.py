"""Why a rule hit: the facts that made it true, or those it lacked.

A matched rule names the comparisons that decided: all of an `all`, the true branches of an `any`, and under
`not` (marked `"not": true`) those that made the inside false. An indeterminate rule names the unknown ones.
Values longer than 200 characters are cut; lists and mappings too long or not flat are shown as the beginning
of their JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from schemas.limits import MAX_SAFE_INTEGER
from streams.policy.operators import OPERATORS, Truth
from streams.policy.rules import AllOf, Condition, Leaf, Not

MAX_SHOWN = 200

Entry = dict[str, Any]


def explain(condition: Condition, values: tuple[Any, ...]) -> tuple[Truth, list[Entry]]:
    """What the condition says of its leaves' values (in order), and the entries of those that decided."""
    return _explain(condition, iter(values), False)


def _explain(condition: Condition, values: Iterator[Any], negated: bool) -> tuple[Truth, list[Entry]]:
    if isinstance(condition, Leaf):
        value = next(values)
        truth = OPERATORS[condition.op].test(condition.want, value)
        return truth, [entry(condition, value, truth is None, negated)]
    if isinstance(condition, Not):
        truth, entries = _explain(condition.item, values, not negated)
        return (None if truth is None else not truth), entries
    parts = [_explain(item, values, negated) for item in condition.items]
    truth = _together(isinstance(condition, AllOf), [part[0] for part in parts])
    return truth, [entry for part in parts if part[0] is truth for entry in part[1]]


def _together(is_all: bool, truths: list[Truth]) -> Truth:
    """Kleene: one false decides an `all` and one true an `any`; otherwise one unknown makes it unknown."""
    decisive = not is_all
    if decisive in truths:
        return decisive
    return None if None in truths else is_all


def templates(condition: Condition) -> tuple[Entry, ...] | None:
    """The entries, but for their values, of a condition that needs all its leaves; None for any other.

    When such a rule has matched, its leaves need no second look.
    """
    items = condition.items if isinstance(condition, AllOf) else (condition,)
    plain = [entry(item, None, False, False) for item in items if isinstance(item, Leaf)]
    return tuple(plain) if len(plain) == len(items) else None


def filled(entries: tuple[Entry, ...], values: tuple[Any, ...]) -> tuple[Entry, ...]:
    """The entries with the values of this request."""
    out = []
    for known, value in zip(entries, values, strict=True):
        one = known.copy()
        one["value"] = shown(value)
        if one["want"].__class__ is list:
            one["want"] = one["want"].copy()
        out.append(one)
    return tuple(out)


def entry(leaf: Leaf, value: Any, unknown: bool, negated: bool) -> Entry:
    """One comparison as the record shows it."""
    out: Entry = {"fact": leaf.fact.name, "op": leaf.op, "want": shown(leaf.want)}
    if negated:
        out["not"] = True
    if unknown and value is None:
        out["missing"] = True
        return out
    out["value"] = shown(value)
    if unknown:
        out["wrong_type"] = True
    return out


def shown(value: Any) -> Any:
    """A value that canonical JSON holds and a record can afford."""
    kind = value.__class__
    if kind is str:
        return value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "…"
    if kind is int or kind is float:
        return value if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else _cut(repr(value))
    if kind is bool or value is None:
        return value
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=repr)
    flat = kind in (list, tuple) and all(item is None or item.__class__ in _FLAT for item in value)
    return list(map(shown, value)) if flat and len(text) <= MAX_SHOWN else _cut(text)


_FLAT = frozenset({str, int, float, bool})


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
