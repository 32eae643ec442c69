"""Figures and times as people read them, on pages and in tables."""

from __future__ import annotations

from typing import Any

from schemas.canonical import encode
from schemas.ids import iso_time


def when(time_ms: int) -> str:
    """A time to the second, UTC."""
    return iso_time(time_ms)[:19] + "Z"


def number(value: float | int | None) -> str:
    """A count with thin groups, or a dash."""
    return "–" if value is None else f"{value:,}"


def amount(value: float | int | None) -> str:
    """An amount as it was recorded, nothing rounded away."""
    return "" if value is None else f"{value:,}"


def recorded(value: float | int | None) -> str:
    """An amount digit by digit as it stands in the record (RFC 8785), for tables of a terminal."""
    return "" if value is None else encode(value).decode()


def plain(value: Any) -> str:
    """A recorded value for a person: text as it is, what is absent as nothing, true, numbers and the rest as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else encode(value).decode()


def money(value: Any, currency: Any) -> str:
    """An amount with its currency, if it has one; without a value there is no amount."""
    return "" if value is None else f"{plain(value)} {plain(currency)}".rstrip()


def percent(value: float | None, digits: int = 1) -> str:
    """A share, or a dash."""
    return "–" if value is None else f"{value * 100:.{digits}f}%"


def age(ms: int | float) -> str:
    """How long: `3 d 4 h`, `12 min`, `40 s`."""
    seconds = int(abs(ms) // 1000)
    days, rest = divmod(seconds, 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h" if hours else f"{days} d"
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{minutes} min" if minutes else f"{seconds} s"
