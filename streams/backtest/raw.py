"""A record as it was read, before anything in it is believed."""

from __future__ import annotations

from typing import NamedTuple


class Raw(NamedTuple):
    """`place` names it to people; `key` and `partition` are the log's (None and 0 for a file's)."""

    place: str
    key: bytes | None
    partition: int
    value: bytes
