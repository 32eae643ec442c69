"""What a condition says without a request: that it can never be true, or follows from another."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from streams.policy.operators import OPERATORS, kind_of
from streams.policy.rules import AllOf, AnyOf, Condition, Leaf, Not

_ALL_KINDS = frozenset({"text", "number", "flag", "list"})
_SMALL_DOMAINS = {"time.hour": range(24), "time.weekday": range(1, 8)}

Bound = tuple[Any, bool]
"""A limit, and whether the limit itself is outside."""


class Wanted:
    """The values that comparisons ask for, each list read once: two long ones are then compared in one pass.

    For conditions that stay while this does.
    """

    def __init__(self) -> None:
        self._of: dict[int, frozenset[tuple[str | None, Any]]] = {}
        self._kinds: dict[int, frozenset[str]] = {}

    def kinds(self, leaf: Leaf) -> frozenset[str]:
        """The types of fact for which a comparison isn't unknown."""
        found = self._kinds.get(id(leaf))
        if found is None:
            found = self._kinds[id(leaf)] = _kinds(leaf)
        return found

    def of(self, leaf: Leaf) -> frozenset[tuple[str | None, Any]]:
        """The values of an `eq` or `in`, each with its kind: 1 is 1.0, and is not true."""
        found = self._of.get(id(leaf))
        if found is None:
            values = leaf.want if leaf.op == "in" else (leaf.want,)
            found = self._of[id(leaf)] = frozenset((kind_of(value), value) for value in values)
        return found

    def holds(self, leaf: Leaf, value: Any) -> bool:
        """Whether a comparison holds of a value for certain."""
        if leaf.op in ("eq", "in"):
            return (kind_of(value), value) in self.of(leaf)
        return OPERATORS[leaf.op].test(leaf.want, value) is True


def impossible(condition: Condition) -> str | None:
    """Why a condition can never be true, or None. What it finds is so; it doesn't find everything."""
    return _impossible(condition, Wanted())


def _impossible(condition: Condition, wanted: Wanted) -> str | None:
    if isinstance(condition, Not):
        return None
    if isinstance(condition, AnyOf):
        reasons = [_impossible(item, wanted) for item in condition.items]
        return reasons[0] if all(reasons) else None
    items = parts(condition)
    by_fact: dict[str, list[Leaf]] = {}
    for item in items:
        if isinstance(item, Leaf):
            by_fact.setdefault(item.fact.name, []).append(item)
    for same_fact in by_fact.values():
        if _contradict(same_fact, wanted):
            told = " and ".join(dict.fromkeys(f"`{leaf.op} {_written(leaf.want)}`" for leaf in same_fact))
            return f"`{same_fact[0].fact.name}` can't be {told}"
    nested = (_impossible(item, wanted) for item in items if not isinstance(item, Leaf))
    return next((reason for reason in nested if reason), None)


def parts(condition: Condition) -> tuple[Condition, ...]:
    """The conditions that must all hold."""
    return condition.items if isinstance(condition, AllOf) else (condition,)


def follows(needed: Iterable[Condition], given: tuple[Condition, ...], wanted: Wanted) -> bool:
    """Whether all of `needed` hold when all of `given` do, and are at most unknown when those are."""
    return all(any(_implies(one, other, wanted) for one in given) for other in needed)


def _written(want: Any) -> str:
    text = json.dumps(want, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"


def _contradict(same_fact: list[Leaf], wanted: Wanted) -> bool:
    kinds = frozenset.intersection(*(wanted.kinds(leaf) for leaf in same_fact))
    known = same_fact[0].fact.kind
    if not kinds or (known != "any" and not kinds & {known, "absent"}):
        return True
    candidates = _candidates(same_fact)
    if candidates is not None:
        return not any(all(wanted.holds(leaf, value) for leaf in same_fact) for value in candidates)
    lows = [bound for leaf in same_fact if (bound := _low(leaf)) is not None]
    highs = [bound for leaf in same_fact if (bound := _high(leaf)) is not None]
    if not lows or not highs:
        return False
    low, high = max(lows), min(highs, key=lambda bound: (bound[0], not bound[1]))  # the tightest of each
    return bool(low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1])))


def _kinds(leaf: Leaf) -> frozenset[str]:
    """The types of fact for which the comparison isn't unknown."""
    if leaf.op == "exists":
        return _ALL_KINDS if leaf.want else frozenset({"absent"})
    if leaf.op == "contains":
        return frozenset({"text", "list"} if kind_of(leaf.want) == "text" else {"list"})
    if leaf.op in ("starts_with", "ends_with", "matches"):
        return frozenset({"text"})
    values = leaf.want if leaf.want.__class__ is tuple else (leaf.want,)
    return frozenset(kind for value in values if (kind := kind_of(value))) or _ALL_KINDS


def _candidates(same_fact: list[Leaf]) -> Iterable[Any] | None:
    """The only values the fact may have, where they can be listed."""
    for leaf in same_fact:
        if leaf.op == "eq":
            return (leaf.want,)
        if leaf.op == "in":
            return tuple(leaf.want)
    return _SMALL_DOMAINS.get(same_fact[0].fact.name)


def _low(leaf: Leaf) -> Bound | None:
    if leaf.op in ("gt", "gte"):
        return leaf.want, leaf.op == "gt"
    return (leaf.want[0], False) if leaf.op == "between" else None


def _high(leaf: Leaf) -> Bound | None:
    if leaf.op in ("lt", "lte"):
        return leaf.want, leaf.op == "lt"
    return (leaf.want[1], False) if leaf.op == "between" else None


def _implies(one: Condition, other: Condition, wanted: Wanted) -> bool:
    if one == other:
        return not _mixes_true_and_one(one, other)
    if not (isinstance(one, Leaf) and isinstance(other, Leaf)) or one.fact != other.fact:
        return False
    if "exists" in (one.op, other.op) or wanted.kinds(one) != wanted.kinds(other):
        return False
    if one.op in ("eq", "in"):
        if other.op in ("eq", "in"):
            return wanted.of(one) <= wanted.of(other)
        values = one.want if one.op == "in" else (one.want,)
        return all(wanted.holds(other, value) for value in values)
    low, high = _low(other), _high(other)
    if low is None and high is None:
        return False
    return (low is None or _within(_low(one), low, 1)) and (high is None or _within(_high(one), high, -1))


def _mixes_true_and_one(one: Condition, other: Condition) -> bool:
    """Python holds `1 == True`; a policy does not."""
    return repr(one) != repr(other)


def _within(one: Bound | None, other: Bound, direction: int) -> bool:
    if one is None:
        return False
    if one[0] == other[0]:
        return one[1] or not other[1]
    return bool((one[0] > other[0]) == (direction > 0))
