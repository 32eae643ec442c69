"""The run of numbers round one that alters the verdict, so that it can be said as `500 or less`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from streams.counterfactual.changes import Change, Situation

Run = tuple[Change, ...]


def run_round(at: int, singles: Sequence[Change], alike: Callable[[int], bool]) -> Run:
    """The changes of the same number round `singles[at]` that are alike; none where it is no number's.

    The points of a number stand side by side and in order, and every number lies at one of them or between two that
    decide as the point between them does (`streams.counterfactual.numbers`).
    """
    if singles[at].point is None:
        return ()
    low = high = at
    while _beside(singles, low, low - 1) and alike(low - 1):
        low -= 1
    while _beside(singles, high, high + 1) and alike(high + 1):
        high += 1
    return tuple(singles[low : high + 1])


def _beside(singles: Sequence[Change], at: int, other: int) -> bool:
    """Whether it is a number of the same field, on the same side of what was asked."""
    if not 0 <= other < len(singles):
        return False
    one, next_ = singles[at], singles[other]
    if next_.of != one.of or next_.point is None or next_.kind != one.kind:
        return False
    return one.kind != "number" or (next_.now > one.was) == (one.now > one.was)


def runs_of_pair(
    first: int, second: int, singles: Sequence[Change], start: Situation, verdict_of: Callable[[Situation], str]
) -> tuple[Run, Run]:
    """The first number's run, with the second change as it is; then the second's, with all of the first's run."""
    verdict = verdict_of(singles[second].apply(singles[first].apply(start)))

    def same(one: Change, other: Change) -> bool:
        return verdict_of(other.apply(one.apply(start))) == verdict

    of_first = run_round(first, singles, lambda at: same(singles[at], singles[second]))
    firsts = of_first or (singles[first],)
    return of_first, run_round(second, singles, lambda at: all(same(one, singles[at]) for one in firsts))
