"""What two runs of one history may differ in: names of the log, times, ids and digests. Nothing else is smoothed."""

from __future__ import annotations

import json
import re
from typing import Any

_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TIMES = ("created_at", "at")
_DIGESTS = ("record_digest",)


class Names:
    """Decision ids in the order in which they were met: two runs meet them in the same order."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, name: str) -> str:
        return self._known.setdefault(name, f"decision {len(self._known) + 1}")


def normalised(value: bytes | None, prefix: str, names: Names | None = None) -> Any:
    """A record, receipt, event or dead letter with those four told apart no more."""
    return _plain(json.loads(value or b"null"), prefix, names)


def _plain(value: Any, prefix: str, names: Names | None) -> Any:
    if isinstance(value, dict):
        return {key: _field(key, item, prefix, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, prefix, names) for item in value]
    return value


def _field(key: str, value: Any, prefix: str, names: Names | None) -> Any:
    if key in _TIMES and isinstance(value, str):
        return "a time"
    if key in _DIGESTS and isinstance(value, str):
        return "a digest"
    if key == "epoch" and isinstance(value, str):
        return "a log"
    if key == "topic" and isinstance(value, str):
        return value.removeprefix(f"{prefix}.")
    if key in ("decision_id", "memory_id") and isinstance(value, str) and _ULID.fullmatch(value):
        return names.of(value) if names else "an id"
    return _plain(value, prefix, names)
