"""The interval at a figure."""

from __future__ import annotations

from typing import Any

from memory_service.nearby import wilson
from streams.backtest.measures import Value, as_counts


def figure(value: Value, design_effect: float = 1.0) -> dict[str, Any]:
    """A value with its interval (Wilson's), as the report holds it."""
    counts = as_counts(value)
    if value.rate is None:
        return counts | {"lower": 0.0, "upper": 1.0, "n_effective": 0, "method": "nothing was observed"}
    n = value.seen[1] / design_effect
    lower, upper = wilson(value.rate, n)
    return counts | {"lower": lower, "upper": upper, "n_effective": n, "method": "wilson"}
