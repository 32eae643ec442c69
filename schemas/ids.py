"""Decision ids: deterministic ULIDs, so that deciding an offset twice gives the same id."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from functools import lru_cache

_BASE32 = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TO_BASE_32 = str.maketrans(_BASE32, "0123456789abcdefghijklmnopqrstuv")
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_ULID = re.compile(r"^[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")
_ISO_LENGTH = len("2024-12-19T14:30:00.123Z")
_PREFIX = re.compile(r"^[0-7][0-9A-HJKMNP-TV-Z]{0,25}\Z")


def decision_id(topic: str, partition: int, offset: int, time_ms: int) -> str:
    """ULID: time = the log's append time, randomness = first 80 bits of sha256(topic, partition, offset)."""
    random = hashlib.sha256(f"{topic}\n{partition}\n{offset}".encode()).digest()
    return _ulid_time(time_ms) + _ulid_half(random[:5]) + _ulid_half(random[5:10])


def decision_bytes(text: str) -> bytes:
    """The 16 bytes of a whole decision id."""
    return int(text.translate(_TO_BASE_32), 32).to_bytes(16, "big")


def decision_text(raw: bytes) -> str:
    """The text of a decision id's 16 bytes."""
    return _ulid_time(int.from_bytes(raw[:6], "big")) + _ulid_half(raw[6:11]) + _ulid_half(raw[11:])


def _ulid_time(n: int) -> str:
    """Milliseconds since 1970 as ten characters."""
    return _PAIRS[n >> 40] + _PAIRS[n >> 30 & 1023] + _PAIRS[n >> 20 & 1023] + _PAIRS[n >> 10 & 1023] + _PAIRS[n & 1023]


def _ulid_half(five: bytes) -> str:
    """Five bytes as eight characters of Crockford's base 32, two at a time."""
    n = int.from_bytes(five, "big")
    return _PAIRS[n >> 30] + _PAIRS[n >> 20 & 1023] + _PAIRS[n >> 10 & 1023] + _PAIRS[n & 1023]


def is_decision_id(text: str) -> bool:
    """Whether `text` is a whole, well-formed ULID."""
    return bool(_ULID.match(text))


def decision_time_ms(text: str) -> int:
    """The time in a decision id, in milliseconds since 1970. Raises `ValueError` for what is none."""
    if not is_decision_id(text):
        raise ValueError(f"{text!r:.64} is no decision id")
    return int.from_bytes(decision_bytes(text)[:6], "big")


def id_prefix(text: str) -> str | None:
    """The prefix a user means (`01jbq...` -> `01JBQ`), or None when it can't be part of an id."""
    cleaned = text.strip().rstrip(".…").upper()
    return cleaned if _PREFIX.match(cleaned) else None


def iso_time(time_ms: int) -> str:
    """Milliseconds since 1970 (UTC) as `2024-12-19T14:30:00.123Z`."""
    return f"{_iso_second(time_ms // 1000)}.{time_ms % 1000:03d}Z"


@lru_cache(maxsize=256)
def _iso_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def time_ms_of(text: str) -> int:
    """Inverse of `iso_time`. Raises `ValueError` for another form."""
    if len(text) == _ISO_LENGTH and text[19] == "." and text[23] == "Z" and text.isascii() and text[20:23].isdigit():
        return _second_ms(text[:19]) + int(text[20:23])
    moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


@lru_cache(maxsize=256)
def _second_ms(text: str) -> int:
    return round(datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp()) * 1000
