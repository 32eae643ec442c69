"""What stood around a decision and could have made the difference: provenance, policy, engine, traffic mix."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from streams.outcome import ABSENT, plain_values
from streams.statistics.proportions import wilson_interval

OTHER = "(other)"
POLICY_HASH = "policy_hash"
_MOST_CATEGORIES = 50
FEW = 10
_BINS = 10
MOSTLY = 0.95
_WHOLE = 1e16
_LEAST_STEADY = 5
_HASH_CHARS = len("sha256:") + 12


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


def factors_of(record: Mapping[str, Any]) -> dict[str, str]:
    """The factors of a record; all of them stay readable where subjects are encrypted."""
    request, policy = record["request"], record["policy"]
    amount = request["action"].get("amount")
    out = {
        "policy": f"{policy['name']}@{policy['version']}",
        POLICY_HASH: str(policy["hash"])[:_HASH_CHARS],
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
    """Every factor that any of them has; a policy's hash only where one version of it has several."""
    found = {name for one in observed for name in one.factors}
    versions = {(one.factors.get("policy"), one.factors.get(POLICY_HASH)) for one in observed}
    if len({name for name, _ in versions}) == len(versions):
        found.discard(POLICY_HASH)
    return sorted(found)


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
    if at == 0:
        return f"up to {number_text(edges[0])}"
    over = f"over {number_text(edges[at - 1])}"
    return f"{over} to {number_text(edges[at])}" if at < len(edges) else over


def number_text(value: float) -> str:
    """A number in few digits where these are all of it, else in full: 20240117 is not 2.02401e+07."""
    short = f"{value:g}"
    if float(short) == value and "e" not in short:
        return short
    return str(int(value)) if value.is_integer() and abs(value) < _WHOLE else repr(value)


def is_versions(given: Sequence[str]) -> bool:
    """Whether values, in the order of time, stand in stretches as versions do, be they numbers or many.

    A value is seldom left and come back to, and stays for so many decisions that there is a before and an after.
    """
    kinds = len(set(given))
    runs = sum(given[at] != given[at - 1] for at in range(1, len(given))) + 1
    return 1 < kinds <= runs <= 1.5 * kinds and len(given) >= kinds * steady(len(given))


def steady(n: int) -> int:
    """So many of `n` decisions in a row with one value are no chance of values that take turns.

    Of a fair coin's `n` tosses some 2 / n are expected to have two stretches of that length beside each other.
    """
    return max(_LEAST_STEADY, math.ceil(math.log2(max(n, 1))))


def rate_of(events: int, n: int) -> dict[str, Any]:
    """A count as a rate with Wilson's interval."""
    interval = wilson_interval(events, n)
    return {"n": n, "events": events, "rate": interval.estimate, "lower": interval.lower, "upper": interval.upper}
