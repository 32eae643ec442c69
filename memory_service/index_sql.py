"""Conditions on the rows of the SQLite record index, put together without losing what they let through too much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas.ids import decision_bytes, is_decision_id
from schemas.query import Range

_LAST_ID = (1 << 128) - 1


@dataclass(frozen=True, slots=True)
class Sql:
    """A condition. `exact` False: it lets more through than it should, and the record has to be asked."""

    text: str
    values: tuple[Any, ...] = ()
    exact: bool = True


TRUE, FALSE, UNKNOWN = Sql("1"), Sql("0"), Sql("1", exact=False)


def all_of(parts: Sequence[Sql]) -> Sql:
    """All must hold. Constants are folded: SQLite refuses a named index where it sees that nothing can match."""
    if any(part.text == "0" for part in parts):
        return FALSE
    kept = [part for part in parts if part.text != "1"]
    exact = all(part.exact for part in parts)
    return _joined(" AND ", kept, exact) if kept else TRUE if exact else UNKNOWN


def any_of(parts: Sequence[Sql]) -> Sql:
    """One must hold."""
    certain = [part for part in parts if part.text == "1"]
    if certain:
        return max(certain, key=lambda part: part.exact)
    kept = [part for part in parts if part.text != "0"]
    return _joined(" OR ", kept, all(part.exact for part in kept)) if kept else FALSE


def _joined(word: str, parts: Sequence[Sql], exact: bool) -> Sql:
    """Joined as a balanced tree: SQLite bounds the depth of an expression."""
    if len(parts) == 1:
        return Sql(parts[0].text, parts[0].values, exact)
    half = len(parts) // 2
    left, right = _joined(word, parts[:half], exact), _joined(word, parts[half:], exact)
    return Sql(f"({left.text}{word}{right.text})", (*left.values, *right.values), exact)


def signed(sql: Sql, positive: bool) -> Sql:
    """Its negation where `positive` is False: NULL counts as false, so its negation is true."""
    if positive or not sql.exact:
        return sql
    if sql.text in ("0", "1"):
        return TRUE if sql.text == "0" else FALSE
    return Sql(f"({sql.text}) IS NOT TRUE", sql.values)


def is_in(column: str, values: Sequence[Any]) -> Sql:
    """One of some values, none of them None."""
    return Sql(f"{column} IN ({', '.join('?' * len(values))})", tuple(values)) if values else FALSE


def is_one_of(column: str, values: Sequence[Any]) -> Sql:
    """One of some values, or absent where None is among them."""
    listed = is_in(column, [value for value in values if value is not None])
    return any_of([listed, Sql(f"{column} IS NULL")]) if None in values else listed


def within(column: str, bounds: Range) -> Sql:
    """Between bounds."""
    parts = []
    if bounds.low is not None:
        parts.append(Sql(f"{column} {'>' if bounds.above else '>='} ?", (bounds.low,)))
    if bounds.high is not None:
        parts.append(Sql(f"{column} {'<' if bounds.below else '<='} ?", (bounds.high,)))
    return all_of(parts)


def at_times(key: str, bounds: Range) -> Sql:
    """A range of times is a range of ids, whose first 6 bytes are the time."""
    parts = []
    if isinstance(bounds.low, int):
        parts.append(Sql(f"{key} >= ?", (_id_from(bounds.low + bounds.above),)))
    if isinstance(bounds.high, int):
        end = bounds.high + (not bounds.below)
        parts.append(Sql(f"{key} < ?", (_id_from(end),)) if end < 1 << 48 else TRUE)
    return all_of(parts)


def _id_from(time_ms: int) -> bytes:
    return min(max(time_ms, 0) << 80, _LAST_ID).to_bytes(16, "big")


def ids_of(values: Sequence[Any]) -> list[bytes]:
    """The decision ids among these, as they are stored."""
    return [decision_bytes(value) for value in values if isinstance(value, str) and is_decision_id(value)]


def digests_of(values: Sequence[Any]) -> list[bytes]:
    """The digests among these; other text equals none."""
    found = []
    for value in values:
        head, _, digits = str(value).partition(":")
        if head == "sha256" and len(digits) == 64 and digits == digits.lower():
            try:
                found.append(bytes.fromhex(digits))
            except ValueError:
                continue
    return found
