"""An agent's recorded action beside the one that it would choose now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from schemas.canonical import decode
from schemas.errors import BadInput, BadJson, LumynError
from schemas.ledger import Contested, Outcome
from streams.backfill.contested import base_of, money_of
from streams.backtest.case import Case

MOST_BYTES: Final = 1024 * 1024
"""The longest output that is read, in bytes."""
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_FREE_TEXT: Final = frozenset({"intent"})
OTHER: Final = "(other)"
"""Stands for a name that is not written like one: it could be anything, also what somebody wrote about himself."""


def action_in(output: bytes, where: str) -> dict[str, Any] | None:
    """The action in an output: `{"type": ...}`, or `{"action": {...}}`; None where it is null: the agent does nothing.

    Raises `BadInput`.
    """
    try:
        value = decode(output, where=where, limit=MOST_BYTES)
    except LumynError as error:
        raise BadJson(f"the output is not JSON: {error.message}", where=where) from None
    return action_of(value, where)


def action_of(value: Any, where: str) -> dict[str, Any] | None:
    """The same, of a decoded output."""
    if isinstance(value, dict) and "action" in value and "type" not in value:
        value = value["action"]
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str) or not value["type"]:
        raise BadInput("the output is no action", where=where, help='such as {"type": "refund", "amount": 20}, or null')
    return value


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any], compare: Sequence[str]) -> list[str]:
    """The arguments that differ. By default the type, the amount, and all that both name, free text aside."""
    names = compare or sorted({"type", "amount"} | (recorded.keys() & now.keys()) - _FREE_TEXT)
    return [name for name in names if not _alike(name, recorded, now)]


def _alike(name: str, recorded: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    one, other = recorded.get(name), now.get(name)
    if name == "amount" and money_of(dict(recorded))[0] is not None:
        return money_of(dict(recorded)) == money_of(dict(now))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def contested_action(case: Case, now: dict[str, Any] | None, compare: Sequence[str]) -> Contested | None:
    """What the ledger says of a decision whose agent would do something else now; None: it would do the same."""
    then = case.seen.request["action"]
    fields = ["type"] if now is None else differing(then, now, compare)
    if not fields:
        return None
    amount, currency = money_of(then)
    recorded: Outcome = {
        "verdict": case.old.verdict, "action_type": then["type"], "amount": amount, "currency": currency,
    }  # fmt: skip
    if now is None:
        would_be: Outcome = {"action_type": None, "amount": None, "currency": None}
    else:
        new_amount, new_currency = money_of(now)
        would_be = {"action_type": named(now["type"]), "amount": new_amount, "currency": _currency(new_currency)}
    base = base_of(case, recorded, would_be, _direction(then, now, fields))
    return {**base, "fields": sorted({named(name) for name in fields})}


def named(name: str) -> str:
    """A name as the ledger may hold it."""
    return name if _NAME.fullmatch(name) else OTHER


def _currency(currency: str | None) -> str | None:
    return None if currency is None else named(currency)


def _direction(then: dict[str, Any], now: dict[str, Any] | None, fields: Sequence[str]) -> str:
    if now is None:
        return "nothing"
    if "type" in fields:
        return "another action"
    old, new = money_of(then), money_of(now)
    if "amount" in fields and old[0] is not None and new[0] is not None and old[1] == new[1]:
        return "more" if new[0] > old[0] else "less"
    return "other arguments"
