"""What to try for a field that is no number: the values that the policy names, and one that it does not name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import Any

from streams.policy.operators import OPERATORS
from streams.policy.rules import Leaf

UNNAMED = "another value"
_MARKS = re.compile(r"\(\?[A-Za-z-]*[:)]|\\b")
"""What in a pattern is no text that it asks for: flags such as `(?i)`, groups that are not kept, ends of words."""
_ORDER = ("gt", "gte", "lt", "lte", "between")


def named_values(leaves: Sequence[Leaf], current: Any) -> tuple[list[Any], str | None]:
    """Texts, flags and lists to try, each once, in the order of the policy; without the current value.

    The second is the one of them that stands for every text that the policy does not name.
    """
    found: list[Any] = []
    for leaf in leaves:
        found += _for(leaf, current)
    texts = {one for one in (*found, current) if isinstance(one, str)}
    unnamed = _unnamed(leaves, texts) if texts else None
    out: list[Any] = []
    for value in found if unnamed is None else (*found, unnamed):
        if not _same(value, current) and not any(_same(value, one) for one in out):
            out.append(value)
    return out, unnamed


def _unnamed(leaves: Sequence[Leaf], texts: Iterable[str]) -> str:
    taken = {*texts, *(one for leaf in leaves for one in _scalars(leaf.want) if isinstance(one, str))}
    name, number = UNNAMED, 1
    while name in taken:
        number += 1
        name = f"{UNNAMED} {number}"
    return name


def _for(leaf: Leaf, current: Any) -> list[Any]:
    wants = _scalars(leaf.want)
    texts = [want for want in wants if isinstance(want, str)]
    if leaf.op == "exists":
        return [True] if current is None else []
    if leaf.op == "contains":
        return _containing(current, leaf.want)
    if leaf.op in ("starts_with", "ends_with"):
        rest = current if isinstance(current, str) else ""
        return [leaf.want + rest if leaf.op == "starts_with" else rest + leaf.want]
    if leaf.op == "matches":
        return _matching(leaf, current)
    if leaf.op in _ORDER:
        return [one for text in texts for one in _beside(text)]
    flags = [True, False] if any(isinstance(want, bool) for want in wants) else []
    return [*texts, *flags]


def _containing(current: Any, want: Any) -> list[Any]:
    if isinstance(current, list):
        return [[*current, want], [one for one in current if not _same(one, want)]]
    if isinstance(current, str) and isinstance(want, str) and want:
        return [f"{current} {want}".strip(), current.replace(want, "")]
    return [[want], []]


def _matching(leaf: Leaf, current: Any) -> list[str]:
    """Texts that a pattern plainly asks for; of others none is made up."""
    rest = current if isinstance(current, str) else ""
    plain = [part.strip("()^$") for part in _MARKS.sub("", leaf.want).split("|")]
    tried = [text for part in plain for text in (part, f"{part}{rest}", f"{rest}{part}")]
    return [text for text in tried if text and OPERATORS["matches"].test(leaf.want, text)][:4]


def _beside(text: str) -> list[str]:
    """A text, one just before it and one just after it; of a day, the days."""
    try:
        day = date.fromisoformat(text)
        if day.isoformat() == text:
            return [(day - timedelta(days=1)).isoformat(), text, (day + timedelta(days=1)).isoformat()]
    except (ValueError, OverflowError):
        pass
    return [text[:-1], text, text + "!"]


def _scalars(want: Any) -> tuple[Any, ...]:
    return want if isinstance(want, tuple) else (want,)


def _same(a: Any, b: Any) -> bool:
    return type(a) is type(b) and bool(a == b)
