"""Spans of time as people write them: 30s, 15m, 6h, 1d."""

from __future__ import annotations

import re

from schemas.errors import UsageError

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_duration(text: str, option: str) -> float:
    """Seconds of `30s`, `15m`, `6h`, `1d` or `2w`; `option` is who asks. Raises `UsageError`."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])", text.strip(), re.ASCII)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if seconds <= 0:
        raise UsageError(f"`{option}`: `{text[:32]}` is no time", help="such as 30s, 15m, 6h or 1d")
    return seconds


def duration_text(seconds: float) -> str:
    """The same, back: in the largest unit that it is a whole number of."""
    for unit in ("w", "d", "h", "m"):
        if seconds >= _UNITS[unit] and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:g}{unit}"
    return f"{seconds:g}s"
