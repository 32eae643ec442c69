"""What a search asks, question by question: as a filter for the engine, and as a test of a point that was read.

The two first looks answer most questions for most searches. They are not gated by amount: with one filter for every
amount, the engine goes through the points once for a whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from memory_service.qdrant.engine import Condition, Filter
from memory_service.qdrant.memory_cache import Known
from memory_service.qdrant.memory_points import (
    AMOUNTLESS,
    DENIED,
    FAILURE,
    FINE,
    HARMFUL,
    KNOWN,
    SUCCESS,
    as_role,
    in_force,
    not_much_less,
    not_much_more,
    not_too_old,
    of,
)
from memory_service.store import Search
from memory_service.worth import oldest_that_counts

NEAREST: Final = "nearest"
"""First look: the nearest points of every kind."""
NEAREST_BARE: Final = "nearest harmful without text"
"""First look: the nearest harmful points with the text left out."""
NEARBY: Final = "nearby"
BARE: Final = "harmful_without_text"
SOFTENING: Final = "softening"
MOST_SOFTENING: Final = 16

ROLES: Final = {
    "failures": FAILURE,
    "successes": SUCCESS,
    NEARBY: KNOWN,
    "harmful": HARMFUL,
    "fine": FINE,
    SOFTENING: DENIED,
    BARE: HARMFUL,
}
"""The questions (the fields of `Found`) with the role of the points that answer them; harmful before softening."""


def wanted(name: str, search: Search) -> int:
    """How many points answer a question whole, or make a first look."""
    match name:
        case "nearest":
            return max(search.neighbours, search.top_k)
        case "nearby":
            return search.neighbours
        case "failures" | "successes":
            return search.top_k
        case "softening":
            return MOST_SOFTENING
        case _:
            return 1


def filter_of(name: str, search: Search) -> Filter | None:
    """Which points a question or a first look is about; None when no point can be."""
    base = in_force(search.version, search.tenant, search.action_type)
    if name == NEAREST:
        return base
    if name == NEAREST_BARE:
        return of(base, as_role(HARMFUL))
    role = ROLES[name]
    gate: tuple[Condition, ...] | None = ()
    if role == HARMFUL:
        gate = not_much_more(search.amount, search.amount_within)
    elif role in (FINE, DENIED):
        gate = not_much_less(search.amount, search.amount_within, search.comparable)
        if gate is not None:
            gate = (*gate, *not_too_old(search.at_ms, search.half_life_ms))
    return None if gate is None else of(base, as_role(role), *gate)


def test_of(name: str, search: Search) -> Callable[[Known], bool]:
    """The same for a point in force that was read, where there is a filter at all."""
    role, amount, within = ROLES[name], search.amount, search.amount_within
    if role in (FINE, DENIED) and search.half_life_ms is not None:
        at_ms, half_life_ms = search.at_ms, search.half_life_ms
        holds = test_of(name, replace(search, half_life_ms=None))  # first: an age has no limit where trust is too low
        return lambda p: holds(p) and at_ms - p.content.at_ms <= oldest_that_counts(p.content.trust, half_life_ms)
    if role == HARMFUL and amount is not None:
        most = amount * within
        return lambda p: role in p.roles and (p.amount is None or p.amount <= most)
    if role in (FINE, DENIED) and amount is not None:
        least = amount / within
        return lambda p: role in p.roles and p.amount is not None and p.amount >= least
    if role in (FINE, DENIED):
        return lambda p: role in p.roles and AMOUNTLESS in p.roles
    return lambda p: role in p.roles
