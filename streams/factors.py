"""What stood around a decision and could have made the difference: provenance, policy, engine, traffic mix."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.outcome import ABSENT, plain_values
from streams.statistics.multiple import holm
from streams.statistics.proportions import wilson_interval
from streams.statistics.two_groups import fisher

OTHER = "(other)"
_MOST_CATEGORIES = 50
FEW = 10
_BINS = 10
MOSTLY = 0.95


@dataclass(frozen=True, slots=True)
class Observed:
    """One decision: when, whose, whether it is of the event, and its factors by name.

    `readable`: whether what was asked can be read; else it says nothing of the request's fields, not even that they
    were absent.
    """

    at_ms: int
    subject: str
    event: bool
    factors: Mapping[str, str]
    readable: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """A factor's value appeared for the first time: the event's rate before it (from the change before) and after it

    (up to the next). `p_adjusted`: Fisher's exact test, Holm's correction over all changes.
    """

    factor: str
    value: str
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
            "before": rate_of(*self.before),
            "after": rate_of(*self.after),
            "p_value": self.p_value,
            "p_adjusted": self.p_adjusted,
        }


def factors_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The factors of a record; all of them stay readable where subjects are encrypted."""
    request, policy = record["request"], record["policy"]
    amount = request["action"].get("amount")
    out = {
        "policy": f"{policy['name']}@{policy['version']}",
        "engine": str(record["engine"]),
        "action_type": str(request["action"]["type"]),
        "subject_type": str(request["subject"]["type"]),
    }
    if isinstance(amount, Mapping) and isinstance(amount.get("currency"), str):
        out["currency"] = amount["currency"]
    vectoriser = record["memory"].get("vectoriser_id")
    if vectoriser:
        out["memory"] = str(vectoriser)
    return out | {f"provenance.{name}": value for name, value in plain_values(record["provenance"]).items()}


def names(observed: Sequence[Observed]) -> list[str]:
    """Every factor that any of them has."""
    return sorted({name for one in observed for name in one.factors})


def values(observed: Sequence[Observed], name: str) -> list[str]:
    """A factor's value of each."""
    return [one.factors.get(name, ABSENT) for one in observed]


def categories(given: Sequence[str]) -> list[str] | None:
    """The values as few categories: numbers in ten bins of equal size, rare values as one.

    None for what is another one nearly each time: an id says nothing of what changed.
    """
    counts = Counter(given)
    if len(counts) > FEW and are_numbers(given):
        edges = _edges(given)
        found = ((text, number(text)) for text in given)
        return [_bin(value, edges) if value is not None else text for text, value in found]
    if len(counts) > FEW and len(counts) > len(given) / 2:
        return None
    if len(counts) <= _MOST_CATEGORIES:
        return list(given)
    kept = {value for value, _ in counts.most_common(_MOST_CATEGORIES - 1)}
    return [value if value in kept else OTHER for value in given]


def are_numbers(given: Sequence[str]) -> bool:
    """Whether nearly all that are there are numbers."""
    present = sum(value != ABSENT for value in given)
    return present > 0 and sum(number(value) is not None for value in given) >= MOSTLY * present


def bands(given: Sequence[str]) -> list[tuple[str, int]] | None:
    """The same bins as `FROM to UP TO`, with how many values are in each, by size, then what is no number.

    None where that would be no shorter than the values themselves.
    """
    if len(set(given)) <= FEW or not are_numbers(given):
        return None
    edges = _edges(given)
    at: dict[int, list[tuple[float, str]]] = {}
    others: Counter[str] = Counter()
    for text in given:
        value = number(text)
        if value is None:
            others[text] += 1
        else:
            at.setdefault(bisect_left(edges, value), []).append((value, text))
    found = []
    for _, inside in sorted(at.items()):
        (low, first), (high, last) = min(inside), max(inside)
        found.append((first if low == high else f"{first} to {last}", len(inside)))
    return found + others.most_common()


def _edges(given: Sequence[str]) -> list[float]:
    ordered = sorted(value for text in given if (value := number(text)) is not None)
    return sorted({ordered[min(len(ordered) - 1, len(ordered) * part // _BINS)] for part in range(1, _BINS)})


def number(text: str) -> float | None:
    """The number that a value is."""
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _bin(value: float, edges: Sequence[float]) -> str:
    at = bisect_left(edges, value)
    return f"<= {edges[at]:g}" if at < len(edges) else f"> {edges[-1]:g}"


def changes(observed: Sequence[Observed]) -> tuple[list[Change], list[str]]:
    """Each first appearance of a value, the most telling first; and the factors that are ids or numbers.

    `observed` in the order of time.
    """
    found: list[tuple[str, str, int, tuple[int, int], tuple[int, int]]] = []
    left_out: list[str] = []
    for name in names(observed):
        given = values(observed, name)
        if categories(given) != given or _each_its_own(given):
            left_out.append(name)
            continue
        firsts: dict[str, int] = {}
        for at, value in enumerate(given):
            firsts.setdefault(value, at)
        starts = [*firsts.values(), len(given)]
        for number_, (value, at) in enumerate(firsts.items()):
            if number_ == 0:
                continue
            before, after = _count(observed, starts[number_ - 1], at), _count(observed, at, starts[number_ + 1])
            found.append((name, value, observed[at].at_ms, before, after))
    p_values = {str(at): fisher(before, after).p_value for at, (*_, before, after) in enumerate(found)}
    adjusted = holm(p_values)
    made = [Change(*one, p_values[str(at)], adjusted[str(at)]) for at, one in enumerate(found)]
    return sorted(made, key=lambda one: (one.p_value, one.factor, one.at_ms)), left_out


def _each_its_own(given: Sequence[str]) -> bool:
    """Whether it is a number that differs nearly each time, such as a count of tokens, however few there are."""
    different = len(set(given))
    return different > 2 and different > len(given) / 2 and are_numbers(given)


def _count(observed: Sequence[Observed], start: int, end: int) -> tuple[int, int]:
    return sum(one.event for one in observed[start:end]), end - start


def rate_of(events: int, n: int) -> dict[str, Any]:
    """A count as a rate with Wilson's interval."""
    interval = wilson_interval(events, n)
    return {"n": n, "events": events, "rate": interval.estimate, "lower": interval.lower, "upper": interval.upper}
