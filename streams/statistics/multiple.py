"""Many slices, one conclusion: Holm's correction of p-values."""

from __future__ import annotations

from collections.abc import Mapping

from schemas.errors import BadInput


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: reject all at most alpha, and P(any false rejection) <= alpha under any dependence.

    The i-th smallest of m is multiplied by m - i + 1, then made no smaller than those before, and at most 1. Keys keep
    their order. Source: Holm 1979, Scand. J. Statist. 6:65. Raises `BadInput` for what is no p-value.
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise BadInput(f"`{p}` of `{name}` is not a p-value")
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda key: p_values[key])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
