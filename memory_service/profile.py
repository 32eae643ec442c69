"""The memory profile: which facts of a request go into which block of its vector, and its amount."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

PROFILE_ID = "default/1"

_MESSAGE_NAMES = frozenset(
    {
        "intent",
        "message",
        "messages",
        "text",
        "body",
        "summary",
        "description",
        "comment",
        "comments",
        "note",
        "notes",
        "prompt",
        "content",
        "user_said",
        "conversation",
        "transcript",
        "utterance",
        "question",
        "query",
        "title",
        "reason_text",
        "complaint",
    }
)
_ID_NAME = re.compile(r"(^|_)(id|ids|uuid|guid|digest|hash|token|key|signature|nonce|seed|cursor|url|uri)$")
_TIME_NAME = re.compile(r"(^|_)(at|date|time|timestamp|datetime|dob|ts)$")
_ID_VALUE = re.compile(
    r"^(sha\d+:|[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{16,}$|\d{4}-\d\d-\d\d([T ]|$)|[0-7][0-9A-HJKMNP-TV-Z]{25}$)", re.I
)
_ID_WORD = re.compile(r"\b(?=[\w-]*\d)[\w-]{6,}\b", re.ASCII)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONGEST_CATEGORY = 64
_MOST_WORDS_IN_CATEGORY = 5
_MOST_FACTS = 256
_LONGEST_KEPT = 2048


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """What the vector is made of: one text, `name=value` categories, and named numbers."""

    text: str
    categories: tuple[str, ...]
    numbers: tuple[tuple[str, float], ...]

    @property
    def count(self) -> int:
        """How many facts remain when the text is left out."""
        return len(self.categories) + len(self.numbers)


def remembered_part(request: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a request that memory may use: action, evidence, context.inline. Never who, never provenance."""
    part: dict[str, Any] = {"action": request["action"]}
    if request.get("evidence"):
        part["evidence"] = request["evidence"]
    inline = (request.get("context") or {}).get("inline")
    if inline:
        part["context"] = inline
    return part


def facts_of(part: Mapping[str, Any]) -> MemoryFacts:
    """Project a request's remembered part (`remembered_part`) onto the three blocks.

    Text: `intent`, message-like names, long strings. Categories: other strings and booleans. Numbers: numbers.
    Left out: ids, digests, timestamps, and `action.type` (recall filters by it).
    """
    taking = _Taking()
    for root in sorted(part):
        taking.fields(root, part[root])
    text = _without_ids("\n".join(taking.text))
    return MemoryFacts(text, tuple(dict.fromkeys(taking.categories)), tuple(taking.numbers))


class _Taking:
    """Facts on their way into the blocks. Not closures, which would hold each other until the collector comes by."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.categories: list[str] = []
        self.numbers: list[tuple[str, float]] = []

    def fields(self, path: str, values: Mapping[str, Any]) -> None:
        for key, whole, is_message in _names(path, tuple(values)):
            self.take(whole, is_message, values[key])

    def take(self, path: str, is_message: bool, value: Any) -> None:
        if value is None or len(self.categories) + len(self.numbers) >= _MOST_FACTS:
            return
        if isinstance(value, str):
            if is_message or _is_prose(value):
                self.text.append(value)
            elif not _ID_VALUE.match(value):
                self.categories.append(f"{path}={value}")
        elif isinstance(value, dict):
            self.fields(path, value)
        elif isinstance(value, list):
            if value and not isinstance(value[0], str):
                self.numbers.append((f"{path}.count", float(len(value))))
            for item in value[:32]:
                self.take(path, is_message, item)
        elif isinstance(value, bool):
            self.categories.append(f"{path}={'true' if value else 'false'}")
        else:
            self.numbers.append((path, float(value)))


_Names = tuple[tuple[str, str, bool], ...]


def _names(path: str, keys: tuple[str, ...]) -> _Names:
    """Of each key that memory may use, in order: the key, its whole path, whether it names a message."""
    if len(path) + sum(map(len, keys)) > _LONGEST_KEPT:  # what strangers send must not fill the memory
        return _names_of(path, keys)
    return _kept_names(path, keys)


def _names_of(path: str, keys: tuple[str, ...]) -> _Names:
    return tuple(
        (key, f"{path}.{key}", key.lower() in _MESSAGE_NAMES)
        for key in sorted(keys)
        if not _is_left_out(key) and (path, key) != ("action", "type")
    )


_kept_names = lru_cache(maxsize=4096)(_names_of)


def _is_left_out(name: str) -> bool:
    """Whether a name, snake_case or camelCase, is that of an id, a digest or a time."""
    snake = _CAMEL.sub("_", name).lower().replace("-", "_")
    return bool(_ID_NAME.search(snake) or _TIME_NAME.search(snake))


def _without_ids(text: str) -> str:
    """Text without order numbers, hashes and the like: they say nothing of what is meant, and are never the same."""
    return " ".join(_ID_WORD.sub(" ", text).split())


def _is_prose(value: str) -> bool:
    return len(value) > _LONGEST_CATEGORY or value.count(" ") >= _MOST_WORDS_IN_CATEGORY


def has_comparable_amount(part: Mapping[str, Any]) -> bool:
    """False where there is an amount that can't be compared (another currency, not a number); True also without one."""
    return part["action"].get("amount") is None or amount_of(part) is not None


def amount_of(part: Mapping[str, Any]) -> float | int | None:
    """The amount that the amount gate compares: US dollars, or a bare number; None when it can't be compared."""
    amount = part["action"].get("amount")
    if isinstance(amount, dict):
        if amount.get("currency") not in ("USD", None):
            return None
        amount = amount.get("value")
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    return amount
