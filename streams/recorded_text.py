"""Recorded text as part of a sentence: plain words stand as they are, everything else in quotes.

What agents and labellers wrote may hold line breaks, terminal controls, or whole sentences ("... was allowed by the
board."). Nothing but a plain word stands outside quotes, and nothing can end its quotes.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

MAX_SHOWN = 240
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@/+*-]*\Z")
_STARTS_LIKE_A_WORD = re.compile(r"[A-Za-z_]")
_OWN_WORDS = frozenset({"absent", "missing", "true", "false", "null", "none", "nothing"})


def one_line(text: str) -> str:
    """Line breaks and controls are shown, not obeyed."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def name_text(text: Any) -> str:
    """An id, a code, the name of a rule or a fact."""
    said = text if isinstance(text, str) else str(text)
    return said if len(said) <= MAX_SHOWN and _NAME.match(said) else quoted_text(said)


def value_text(value: Any) -> str:
    """A value of a fact. Text that looks like a number, or like a word of our own sentences, is in quotes, too."""
    if isinstance(value, list | tuple):
        parts = [value_text(one) for one in value]
        return (" and " if len(parts) == 2 else ", ").join(parts) or "nothing"
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str) and _STARTS_LIKE_A_WORD.match(value) and value.lower() not in _OWN_WORDS:
        return name_text(value)
    return quoted_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def quoted_text(text: str) -> str:
    """Any text, in double quotes with JSON's escapes."""
    cut = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"
    return one_line(json.dumps(cut, ensure_ascii=False))


def exact_difference(a: float, b: float) -> int | float:
    """a - b as it is in decimal: 0.91 - 0.8 is 0.11."""
    difference = Decimal(repr(a)) - Decimal(repr(b))
    whole = difference.to_integral_value()
    return int(whole) if whole == difference and abs(whole) < 2**53 else float(difference)
