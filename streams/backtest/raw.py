"""A record as it was read, before anything in it is believed."""

from __future__ import annotations

from typing import NamedTuple


class Raw(NamedTuple):
    """`where` and `number` name its place to people; `key` and `partition` are the log's (None and 0 for a file's)."""

    where: str
    number: int | None
    key: bytes | None
    partition: int
    value: bytes

    @property
    def place(self) -> str:
        """`records/3/1000`, `FILE.jsonl:12`; made only when it is told."""
        return self.where if self.number is None else f"{self.where}{self.number}"
