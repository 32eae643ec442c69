"""Changes of factors, dated: when a value came, and the rate of an event before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from streams.factors import Observed, are_numbers, categories, is_versions, names, rate_of, steady, values
from streams.statistics.multiple import holm
from streams.statistics.two_groups import fisher


@dataclass(frozen=True, slots=True)
class Change:
    """A factor's value came: the event's rate before it (from the change before) and after it (up to the next).

    `again`: it had been left for another one, and came back. `p_adjusted`: Fisher's exact test, Holm's correction over
    all changes.
    """

    factor: str
    value: str
    again: bool
    at_ms: int
    before: tuple[int, int]
    after: tuple[int, int]
    p_value: float
    p_adjusted: float

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, without the time."""
        return {
            "factor": self.factor,
            "value": self.value,
            "again": self.again,
            "before": rate_of(*self.before),
            "after": rate_of(*self.after),
            "p_value": self.p_value,
            "p_adjusted": self.p_adjusted,
        }


def changes(observed: Sequence[Observed]) -> tuple[list[Change], list[str]]:
    """Each change, the most telling first; and the factors that are ids or measured numbers.

    `observed` in the order of time.
    """
    found: list[tuple[str, str, bool, int, tuple[int, int], tuple[int, int]]] = []
    left_out: list[str] = []
    for name in names(observed):
        some = _in_order(observed, values(observed, name))
        given = [value for _, value in some]
        if (categories(given) != given or _each_its_own(given)) and not is_versions(given):
            left_out.append(name)
            continue
        starts = [*_starts(given), (len(given), False)]
        for (earlier, _), (at, again), (later, _) in zip(starts, starts[1:], starts[2:], strict=False):
            before, after = _count(some[earlier:at]), _count(some[at:later])
            found.append((name, given[at], again, some[at][0].at_ms, before, after))
    p_values = {str(at): fisher(before, after).p_value for at, (*_, before, after) in enumerate(found)}
    adjusted = holm(p_values)
    made = [Change(*one, p_values[str(at)], adjusted[str(at)]) for at, one in enumerate(found)]
    return sorted(made, key=lambda one: (one.p_value, one.factor, one.at_ms)), left_out


def _each_its_own(given: Sequence[str]) -> bool:
    """Whether it is a number that differs nearly each time, such as a count of tokens, however few there are."""
    different = len(set(given))
    return different > 2 and different > len(given) / 2 and are_numbers(given)


def _in_order(observed: Sequence[Observed], given: Sequence[str]) -> list[tuple[Observed, str]]:
    """With their values, in the order of time; of one moment what goes on first, then what was there, then the new.

    Decisions of a batch have one time, and the order of their ids says nothing.
    """
    out: list[tuple[Observed, str]] = []
    seen: dict[str, int] = {}
    for _, group in groupby(zip(observed, given, strict=True), key=lambda one: one[0].at_ms):
        some = list(group)
        if len(some) > 1:
            some.sort(key=_place_in_moment(out[-1][1] if out else None, seen))
        out += some
        for _, value in some:
            seen.setdefault(value, len(seen))
    return out


def _place_in_moment(
    now: str | None, seen: Mapping[str, int]
) -> Callable[[tuple[Observed, str]], tuple[bool, int, str]]:
    new = len(seen)
    return lambda one: (one[1] != now, seen.get(one[1], new), one[1])


def _starts(given: Sequence[str]) -> Iterator[tuple[int, bool]]:
    """Where a value comes, the first among them, and whether it comes back.

    It does where it stays, and what it follows had stayed (`steady`): of values that take turns each is new once.
    """
    least, seen, at, before = steady(len(given)), set[str](), 0, 0
    for value, run in groupby(given):
        length = sum(1 for _ in run)
        if value not in seen:
            yield at, False
        elif min(length, before) >= least:
            yield at, True
        seen.add(value)
        at, before = at + length, length


def _count(some: Sequence[tuple[Observed, str]]) -> tuple[int, int]:
    return sum(one.event for one, _ in some), len(some)
