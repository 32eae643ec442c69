"""A rule's condition as people read it, from its canonical form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lumyn.console.render import as_json

_WORDS: Final[Mapping[str, str]] = {
    "eq": "=", "ne": "≠", "gt": ">", "gte": "≥", "lt": "<", "lte": "≤", "in": "is one of", "not_in": "is none of",
    "contains": "contains", "starts_with": "starts with", "ends_with": "ends with", "matches": "matches",
}  # fmt: skip


def condition_lines(condition: Sequence[Any]) -> list[str]:
    """A condition (`[fact, op, want]`, `["all", ...]`, `["any", ...]`, `["not", ...]`): all of the lines must hold.

    None: it holds for every request.
    """
    if _joins(condition, "all"):
        return [condition_text(one) for one in condition[1:]]
    text = condition_text(condition)
    return [text[1:-1] if _joins(condition, "any") and len(condition) > 2 else text]


def condition_text(condition: Sequence[Any]) -> str:
    """A condition in a line."""
    for kind, word in (("all", " and "), ("any", " or ")):
        if _joins(condition, kind):
            parts = [condition_text(one) for one in condition[1:]]
            return parts[0] if len(parts) == 1 else f"({word.join(parts)})"
    if condition[0] == "not" and len(condition) == 2:
        return f"not {condition_text(condition[1])}"
    fact, op, want = condition
    return f"{fact} {held_against(op, want)}"


def held_against(op: str, want: Any) -> str:
    """What a fact is held against: `> 250`, `is one of "a", "b"`."""
    if op == "exists":
        return f"is {'present' if want else 'missing'}"
    if op == "between" and isinstance(want, list) and len(want) == 2:
        return f"is between {as_json(want[0])} and {as_json(want[1])}"
    shown = ", ".join(map(as_json, want)) if op in ("in", "not_in") and isinstance(want, list) else as_json(want)
    return f"{_WORDS.get(op, op)} {shown}"


def _joins(condition: Sequence[Any], kind: str) -> bool:
    """A fact may have this name, too: what joins has conditions after it."""
    return condition[0] == kind and all(isinstance(one, list) for one in condition[1:])
