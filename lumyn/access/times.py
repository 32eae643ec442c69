"""When a key ends: a while from now, or a day or moment (UTC)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from schemas.errors import UsageError

_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}
_WHILE = re.compile(r"([1-9][0-9]{0,5})([mhd])\Z", re.ASCII)


def ends_at(text: str, now_ms: int) -> int:
    """Milliseconds since 1970. A day without a time ends when the day does. Raises `UsageError`."""
    found = _WHILE.match(text.strip())
    if found:
        return now_ms + int(found[1]) * _UNITS_MS[found[2]]
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"`{text}` is no time", help="`90d`, `12h`, `30m`, or a day: `2027-01-31`") from None
    if re.fullmatch(r"[\d-]+", text.strip(), re.ASCII):
        return int(moment.replace(tzinfo=UTC).timestamp() * 1000) + _UNITS_MS["d"]
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
