"""What an unquoted word of the policy file means: null, true, false, a number, or text.

Numbers are JSON's plus `.5`, `5.` and a leading `+`. Differences from YAML 1.1 on purpose: `yes no on off`
and dates are text; and what one YAML version reads as a number and another as text (`1_000`, `0x1F`, `017`,
`1:30`) is an error instead of a guess, as are `.inf` and `.nan`. Anything in quotes is text.
"""

from __future__ import annotations

import re
from typing import Any

from schemas.canonical import encode
from schemas.errors import BadJson
from streams.policy.suggest import quoted

SWITCH_WORDS = frozenset({"yes", "no", "on", "off", "y", "n"})
"""Text here, booleans in YAML 1.1: worth a warning."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.inf|\.nan", re.IGNORECASE)
_DISPUTED = re.compile(
    r"[-+]?(?:0[0-9_]+|0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+"
    r"|[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|[0-9]+\.[0-9_]*_[0-9_]*"
    r"|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)"
)
_LONGEST_NUMBER = 400


def plain_value(text: str) -> Any:
    """The value of an unquoted scalar. Raises `ValueError` saying why there is none."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a number a decision can be compared with")
    if _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
        return _number(text)
    if _DISPUTED.fullmatch(text):
        raise ValueError(
            f"{quoted(text)} is a number to some YAML readers and text to others; "
            "write plain digits, or put it in quotes"
        )
    return text


def _number(text: str) -> int | float:
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"number {quoted(text[:24] + '…')} has too many digits")
    value: int | float = int(text) if _INTEGER.fullmatch(text) else float(text)
    try:
        encode(value)
    except BadJson as error:
        raise ValueError(error.message) from None
    return value
