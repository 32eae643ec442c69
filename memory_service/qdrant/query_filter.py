"""A query as Qdrant filters: one that lets only matches through, one that lets every match through.

Where both are the same, Qdrant alone answers. Between them `decided` looks at what a point says, and what it leaves
open only the record itself can tell. A negation swaps the two, so none of this depends on where a `NOT` stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from memory_service.qdrant.engine import Condition, Filter, HasId, IsEmpty, Match, MatchAny
from memory_service.qdrant.engine import Range as Between
from memory_service.qdrant.record_points import NUMBERS, RANK, named, point_id
from memory_service.record_index import SHORT
from schemas.ids import is_decision_id
from schemas.query import And, Expression, Field, Leaf, Not, OneOf, Or, Range, Value, holds, leaves

Bound = Condition | bool
"""A condition on points, or what is so for every point."""

MOST_LEVELS: Final = 24
"""Filters nest this deep at most: a server's decoder gives up at 100 messages in one another, and a level is two."""

_LAST_MS = 1 << 48
_ALWAYS = (RANK, "partition", "offset", "label", "exact", "provenance", "unindexed")


@dataclass(frozen=True, slots=True)
class Bounds:
    """`sure` passes only points that match; `maybe` passes every point that matches."""

    sure: Bound
    maybe: Bound

    @property
    def exact(self) -> bool:
        """Whether the filter alone decides."""
        return self.sure is self.maybe or self.sure == self.maybe


_UNKNOWN = Bounds(False, True)


def translate(expression: Expression) -> Bounds:
    """Both bounds of a query. Its depth is bounded by the parser (`schemas.query.MAX_NESTING`)."""
    match expression:
        case Not(item):
            inner = translate(item)
            sure = none_of(inner.maybe)
            found = Bounds(sure, sure if inner.exact else none_of(inner.sure))
        case And(items) | Or(items):
            parts = [translate(item) for item in items]
            join = all_of if isinstance(expression, And) else any_of
            sure = join(part.sure for part in parts)
            exact = all(part.exact for part in parts)
            found = Bounds(sure, sure if exact else join(part.maybe for part in parts))
        case _:
            return _leaf(expression)
    return found if max(_levels(found.sure), _levels(found.maybe)) <= MOST_LEVELS else _UNKNOWN


def decided(expression: Expression, facts: Mapping[str, Any]) -> bool | None:
    """Whether a point matches, from `record_points.facts_in`; None when only the record can tell."""
    match expression:
        case Not(item):
            answer = decided(item, facts)
            return None if answer is None else not answer
        case And(items) | Or(items):
            settles, unknown = isinstance(expression, Or), False
            for item in items:
                answer = decided(item, facts)
                if answer is settles:
                    return settles
                unknown = unknown or answer is None
            return None if unknown else not settles
        case _:
            return holds(expression, facts) if _is_told(expression.field, facts) else None


def in_records_only(field: Field) -> bool:
    """Whether no point ever says what this field is."""
    return bool(field.path) and not field.name.startswith("provenance.")


def fields_of(expression: Expression) -> tuple[str, ...]:
    """The payload keys that `decided` looks at, with what places a point and finds its record."""
    asked = {leaf.field.name for leaf in leaves(expression) if not leaf.field.path}
    return (*_ALWAYS, *sorted(asked.difference(_ALWAYS)))


def all_of(parts: Iterable[Bound]) -> Bound:
    """Every one of these."""
    must: list[Condition] = []
    must_not: list[Condition] = []
    should: tuple[Condition, ...] = ()
    for part in parts:
        if isinstance(part, bool):
            if not part:
                return False
        elif isinstance(part, Filter) and (not part.should or not should):
            must += part.must
            must_not += part.must_not
            should = part.should or should
        else:
            must.append(part)
    return _filter(must, should, must_not)


def any_of(parts: Iterable[Bound]) -> Bound:
    """At least one of these."""
    should: list[Condition] = []
    for part in parts:
        if isinstance(part, bool):
            if part:
                return True
        elif isinstance(part, Filter) and not part.must and not part.must_not:
            should += part.should
        else:
            should.append(part)
    return _filter((), should, ()) if should else False


def none_of(part: Bound) -> Bound:
    """Its opposite."""
    if isinstance(part, bool):
        return not part
    if isinstance(part, Filter) and not part.must:
        if not part.should:
            return any_of(part.must_not)
        if not part.must_not:
            return Filter(must_not=part.should)
    return Filter(must_not=(part,))


def ranks(low: int | None, high: int | None) -> Condition:
    """Records from one rank to another, both included."""
    return Between(RANK, gte=low, lte=high)


def as_filter(bound: Bound) -> Filter | None:
    """A bound as an engine takes it; None lets everything through."""
    if isinstance(bound, bool):
        return None if bound else Filter(must=(HasId(()),))
    return bound if isinstance(bound, Filter) else Filter(must=(bound,))


def _filter(must: Iterable[Condition], should: Iterable[Condition], must_not: Iterable[Condition]) -> Bound:
    """In its plainest form, nothing said twice.

    No condition may stand in two parts of a filter: Qdrant 1.18.3 skips checking points that an index gave it when
    every condition equals one that the index was asked for, those under `must_not` too.
    """
    every, some, none = (tuple(dict.fromkeys(conditions)) for conditions in (must, should, must_not))
    if set(every) & set(none):
        return False
    if set(every) & set(some):
        some = ()
    elif some and none:
        some = tuple(condition for condition in some if condition not in none)
        if not some:
            return False
    if not none and len(every) + len(some) == 1:
        return (every or some)[0]
    return Filter(every, some, none) if every or some or none else True


def _levels(part: Bound) -> int:
    if not isinstance(part, Filter):
        return 0
    return 1 + max(map(_levels, (*part.must, *part.should, *part.must_not)), default=0)


def _leaf(leaf: Leaf) -> Bounds:
    field = leaf.field
    if in_records_only(field):
        return _UNKNOWN
    if field.path:
        return _provenance(leaf)
    if field.name in NUMBERS:
        return _number(leaf)
    if field.name == "created_at":
        return _same(_time(leaf))
    if isinstance(leaf, Range):  # text has no order but on paths
        return _UNKNOWN
    if field.name == "decision_id":
        ids = {point_id(value) for value in leaf.values if isinstance(value, str) and is_decision_id(value)}
        return _same(HasId(tuple(sorted(ids))) if ids else False)
    return _same(any_of([_texts(field.name, leaf.values), None in leaf.values and IsEmpty(field.name)]))


def _same(bound: Bound) -> Bounds:
    return Bounds(bound, bound)


def _texts(key: str, values: Iterable[Value]) -> Bound:
    texts = tuple(sorted({value for value in values if isinstance(value, str)}))
    if len(texts) == 1:
        return Match(key, texts[0])
    return MatchAny(key, texts) if texts else False


def _time(leaf: Leaf) -> Bound:
    """`created_at` is a whole number of milliseconds in every record."""
    if isinstance(leaf, OneOf):
        times: list[Any] = [value for value in leaf.values if _is_number(value)]
        return any_of(Between("created_at", gte=value, lte=value) for value in times)
    low, high = (min(max(at, -1), _LAST_MS) if isinstance(at, int | float) else None for at in (leaf.low, leaf.high))
    return _between("created_at", leaf, low, high)


def _number(leaf: Leaf) -> Bounds:
    """Numbers marked as approximate are held a little off, and the hugest not at all."""
    key = leaf.field.name
    rough = Match("approximate", key)
    if isinstance(leaf, OneOf):
        numbers: list[Any] = [value for value in leaf.values if _is_number(value)]
        absent = all_of([IsEmpty(key), none_of(rough)]) if None in leaf.values else False
        if not numbers:
            return _same(absent)
        exact = any_of([absent, *(Between(key, gte=value, lte=value) for value in numbers)])
        near = any_of(Between(key, gte=value - _slack(value), lte=value + _slack(value)) for value in numbers)
        sure_if_rough: Bound = absent
    elif _is_number(leaf.low if leaf.low is not None else leaf.high):
        low, high = leaf.low, leaf.high
        exact = _between(key, leaf, low, high)
        near = _between(key, leaf, _moved(low, -1), _moved(high, 1))
        sure_if_rough = _between(key, leaf, _moved(low, 1), _moved(high, -1))
    else:
        return _same(False)
    near_or_huge = any_of([near, IsEmpty(key)])
    return Bounds(
        any_of([all_of([exact, none_of(rough)]), sure_if_rough]),
        any_of([exact, all_of([rough, near_or_huge])]),
    )


def _between(key: str, bounds: Range, low: Any, high: Any) -> Bound:
    return Between(
        key,
        gt=low if bounds.above else None,
        gte=None if bounds.above else low,
        lt=high if bounds.below else None,
        lte=None if bounds.below else high,
    )


def _moved(bound: Any, sign: int) -> Any:
    return None if bound is None else bound + sign * _slack(bound)


def _slack(number: int | float) -> float:
    """More than Qdrant's reading can be off: 8 units in the last place."""
    return abs(number) * 2.0**-49 + 1e-320


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _provenance(leaf: Leaf) -> Bounds:
    """Strings up to `SHORT` are in the index; of names with other values it knows only that there is one."""
    path = leaf.field.path
    name = ".".join(path)
    above = [".".join(path[:end]) for end in range(1, len(path) + 1)]
    has_text = _texts("names", [name])
    elsewhere = _texts("unindexed", above)
    open_ = all_of([elsewhere, none_of(has_text)])
    if isinstance(leaf, Range):
        of_text = isinstance(leaf.low if leaf.low is not None else leaf.high, str)
        return Bounds(False, any_of([of_text and has_text, open_]))
    texts = [value for value in leaf.values if isinstance(value, str) and len(value) <= SHORT]
    absent = none_of(any_of([has_text, elsewhere])) if None in leaf.values else False
    sure = any_of([_texts("provenance", [named(name, text) for text in texts]), absent])
    return Bounds(sure, any_of([sure, open_]))


def _is_told(field: Field, facts: Mapping[str, Any]) -> bool:
    if not field.path:
        return True
    if in_records_only(field):
        return False
    if ".".join(field.path) in facts["provenance"]:
        return True
    unindexed = facts.get("unindexed", ())
    return not any(".".join(field.path[:end]) in unindexed for end in range(1, len(field.path) + 1))
