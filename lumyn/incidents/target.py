"""Targets of action items: a rate and where it is to go, as people write it."""

from __future__ import annotations

import re
from typing import Any

from lumyn.lookup import shown
from schemas.errors import UsageError

_NUMBER = r"(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})\s*(%?)"
_TARGET = re.compile(
    rf"(?:from\s+{_NUMBER}\s+)?(?:to\s+)?(under|below|less\s+than|at\s+most|over|above|more\s+than|at\s+least)\s+{_NUMBER}",
    re.IGNORECASE | re.ASCII,
)
_BELOW = ("under", "below", "less", "at most")


def parse_target(text: str) -> dict[str, Any]:
    """`from 0.4% to under 0.1%` as `{text, was, bound, below}`, rates between 0 and 1. Raises `UsageError`."""
    found = _TARGET.fullmatch(text.strip())
    if not found:
        raise UsageError(
            f"`{shown(text)}` is no target for a rate", help="such as 'from 0.4% to under 0.1%', or 'under 0.001'"
        )
    word = " ".join(found[3].lower().split())
    was, bound = _rate(found[1], found[2]), _rate(found[4], found[5])
    if bound is None or not 0 <= bound <= 1 or (was is not None and not 0 <= was <= 1):
        raise UsageError(f"`{shown(text)}`: a rate lies between 0 and 1, or 0% and 100%")
    below = word.startswith(_BELOW)
    if was is not None and (was < bound if below else was > bound):
        raise UsageError(f"`{shown(text)}`: the rate is there already", help="a target is what is to be reached")
    return {"text": " ".join(text.split()), "was": was, "bound": bound, "below": below}


def _rate(number: str | None, percent: str | None) -> float | None:
    if number is None:
        return None
    return float(number) / 100 if percent else float(number)
