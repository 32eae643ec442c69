"""What the writer probably meant by a word the policy language doesn't have."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})


def closest(word: str, options: Iterable[str], meanings: Mapping[str, str] = _NONE) -> str | None:
    """The option nearest to `word`: by known meaning, then but for case, then by spelling; else None."""
    lowered = word.lower()
    if lowered in meanings:
        return meanings[lowered]
    by_case = {option.lower(): option for option in options}
    if lowered in by_case:
        return by_case[lowered]
    near = difflib.get_close_matches(lowered, by_case, n=1, cutoff=0.7)
    return by_case[near[0]] if near else None


def did_you_mean(word: str, options: Iterable[str], meanings: Mapping[str, str] = _NONE) -> str:
    """`; did you mean ...?`, or nothing, to be put after an error message."""
    option = closest(word, options, meanings)
    return f"; did you mean `{option}`?" if option is not None else ""


def listed(options: Iterable[str]) -> str:
    """`a`, `b` or `c`."""
    quoted = [f"`{option}`" for option in options]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]


def quoted(text: str) -> str:
    """User text for a message: on one line, short, in backticks."""
    flat = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return f"`{flat if len(flat) <= 80 else flat[:79] + '…'}`"
