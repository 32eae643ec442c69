"""The memory profile: which facts of a request go into which block of its vector, and its amount.

The default one goes by names and kinds. Another says what it does otherwise, by paths such as `evidence.note`, each of
which stands for all below it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any, Literal

from schemas.canonical import encode, tidy
from schemas.digests import digest
from schemas.limits import MAX_SAFE_INTEGER

_DEFAULT = "default"
_LAYOUT = "1"

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
_AMOUNT = "action.amount"


Placed = Literal["", "text", "category"]
"""Where a profile puts a fact; empty: by its name and kind."""


@dataclass(frozen=True)
class MemoryProfile:
    """What a profile does otherwise than the default one, which does nothing otherwise.

    `text` and `categories`: paths whose strings go there whatever they look like, in `categories` numbers too.
    `leave_out`: paths that memory never looks at. `keep`: those it looks at although named like an id or a time.
    `fx`: US dollars for one unit of a currency, so that its amounts can be compared.
    """

    name: str = _DEFAULT
    text: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    fx: tuple[tuple[str, float], ...] = ()

    @cached_property
    def id(self) -> str:
        """Stable name, with a digest of all that it says."""
        if self == DEFAULT_PROFILE:
            return f"{_DEFAULT}/{_LAYOUT}"
        return f"{self.name}/{_LAYOUT}@{digest(encode(self.as_dict()))[:19]}"

    @cached_property
    def rates(self) -> Mapping[str, float]:
        """`fx` by currency."""
        return MappingProxyType(dict(self.fx))

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, of what it says only."""
        said: dict[str, Any] = {"profile": self.name}
        for name in ("text", "categories", "leave_out", "keep"):
            if paths := getattr(self, name):
                said[name] = list(paths)
        if self.fx:
            said["fx"] = dict(self.fx)
        return said

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> MemoryProfile:
        """From the JSON form. Raises `ValueError` for anything that is no profile."""
        if not isinstance(value, Mapping) or not isinstance(value.get("profile"), str):
            raise ValueError("a memory profile has a name")
        paths = {name: value.get(name, []) for name in ("text", "categories", "leave_out", "keep")}
        fx = value.get("fx", {})
        if value.keys() - {"profile", "fx", *paths} or not isinstance(fx, Mapping):
            raise ValueError(f"not a memory profile: {dict(value)}")
        for listed in paths.values():
            if not isinstance(listed, list | tuple) or not all(isinstance(path, str) for path in listed):
                raise ValueError(f"not a list of paths: {listed}")
        for rate in fx.values():
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
                raise ValueError(f"not a rate: {rate}")
        return cls(value["profile"], **{name: tuple(p) for name, p in paths.items()}, fx=tuple(sorted(fx.items())))

    @property
    def places_nothing(self) -> bool:
        """Whether every fact goes where its name and kind say."""
        return not (self.text or self.categories or self.leave_out or self.keep)

    def place(self, path: str) -> Placed:
        """Where a path's value goes."""
        return "text" if _covers(self.text, path) else "category" if _covers(self.categories, path) else ""

    def leaves_out(self, path: str, name: str) -> bool:
        """Whether memory never looks at a path, whose last part is `name`."""
        if _covers(self.leave_out, path) or path == "action.type":
            return True
        return _is_left_out(name) and not _covers(self.keep, path)


DEFAULT_PROFILE = MemoryProfile()


def _covers(paths: tuple[str, ...], path: str) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in paths)


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


def facts_of(part: Mapping[str, Any], profile: MemoryProfile = DEFAULT_PROFILE) -> MemoryFacts:
    """Project a request's remembered part (`remembered_part`) onto the three blocks.

    By default, text: `intent`, message-like names, long strings; categories: other strings and booleans; numbers:
    numbers. Left out: ids, digests, timestamps, and `action.type` (recall filters by it).
    """
    taking = _Taking(profile)
    for root in sorted(part):
        taking.fields(root, part[root])
    text = _without_ids("\n".join(taking.text))
    return MemoryFacts(text, tuple(dict.fromkeys(taking.categories)), tuple(taking.numbers))


def kept_part(part: Mapping[str, Any], profile: MemoryProfile) -> Mapping[str, Any]:
    """A remembered part as a store keeps it: without what the profile names in `leave_out`, but with the amount."""
    if not profile.leave_out:
        return part
    return {root: _kept(root, value, profile.leave_out) for root, value in part.items()}


def _kept(path: str, value: Any, left_out: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return [_kept(path, item, left_out) for item in value]
    if not isinstance(value, Mapping) or path == _AMOUNT:
        return value
    return {
        key: _kept(f"{path}.{key}", inner, left_out)
        for key, inner in value.items()
        if f"{path}.{key}" == _AMOUNT or not _covers(left_out, f"{path}.{key}")
    }


class _Taking:
    """Facts on their way into the blocks. Not closures, which would hold each other until the collector comes by."""

    def __init__(self, profile: MemoryProfile) -> None:
        self.profile = profile
        self.text: list[str] = []
        self.categories: list[str] = []
        self.numbers: list[tuple[str, float]] = []

    def fields(self, path: str, values: Mapping[str, Any]) -> None:
        for key, whole, place in _names(path, tuple(values), self.profile):
            self.take(whole, place, values[key])

    def take(self, path: str, place: Placed, value: Any) -> None:
        if value is None or len(self.categories) + len(self.numbers) >= _MOST_FACTS:
            return
        if isinstance(value, str):
            if place == "text" or (not place and _is_prose(value)):
                self.text.append(value)
            elif place == "category" or not _ID_VALUE.match(value):
                self.categories.append(f"{path}={value}")
        elif isinstance(value, dict):
            self.fields(path, value)
        elif isinstance(value, list):
            if value and not isinstance(value[0], str):
                self.numbers.append((f"{path}.count", float(len(value))))
            for item in value[:32]:
                self.take(path, place, item)
        elif isinstance(value, bool):
            self.categories.append(f"{path}={'true' if value else 'false'}")
        elif place == "category":
            self.categories.append(f"{path}={value:g}")
        else:
            self.numbers.append((path, float(value)))


_Names = tuple[tuple[str, str, Placed], ...]


def _names(path: str, keys: tuple[str, ...], profile: MemoryProfile) -> _Names:
    """Of each key that memory may use, in order: the key, its whole path, where its value goes."""
    if len(path) + sum(map(len, keys)) > _LONGEST_KEPT:  # what strangers send must not fill the memory
        return _names_of(path, keys, profile)
    # comparing with a profile costs more than all the rest, and most are the default one
    return _default_names(path, keys) if profile.places_nothing else _kept_names(path, keys, profile)


def _names_of(path: str, keys: tuple[str, ...], profile: MemoryProfile) -> _Names:
    out: list[tuple[str, str, Placed]] = []
    for key in sorted(keys):
        whole = f"{path}.{key}"
        if not profile.leaves_out(whole, key):
            out.append((key, whole, profile.place(whole) or ("text" if key.lower() in _MESSAGE_NAMES else "")))
    return tuple(out)


_kept_names = lru_cache(maxsize=4096)(_names_of)


@lru_cache(maxsize=4096)
def _default_names(path: str, keys: tuple[str, ...]) -> _Names:
    return _names_of(path, keys, DEFAULT_PROFILE)


def _is_left_out(name: str) -> bool:
    """Whether a name, snake_case or camelCase, is that of an id, a digest or a time."""
    snake = _CAMEL.sub("_", name).lower().replace("-", "_")
    return bool(_ID_NAME.search(snake) or _TIME_NAME.search(snake))


def _without_ids(text: str) -> str:
    """Text without order numbers, hashes and the like: they say nothing of what is meant, and are never the same."""
    return " ".join(_ID_WORD.sub(" ", text).split())


def _is_prose(value: str) -> bool:
    return len(value) > _LONGEST_CATEGORY or value.count(" ") >= _MOST_WORDS_IN_CATEGORY


def has_comparable_amount(part: Mapping[str, Any], profile: MemoryProfile = DEFAULT_PROFILE) -> bool:
    """False where there is an amount that can't be compared (another currency, not a number); True also without one."""
    return part["action"].get("amount") is None or amount_of(part, profile) is not None


def amount_of(part: Mapping[str, Any], profile: MemoryProfile = DEFAULT_PROFILE) -> float | int | None:
    """The amount that the amount gate compares: US dollars, or a bare number; None when it can't be compared."""
    amount, rate = part["action"].get("amount"), 1.0
    if isinstance(amount, dict):
        currency = amount.get("currency")
        if currency not in ("USD", None):
            known = profile.rates.get(currency) if isinstance(currency, str) else None
            if known is None:
                return None
            rate = known
        amount = amount.get("value")
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        return None
    if rate == 1.0:
        return amount
    converted = amount * rate
    return tidy(converted) if abs(converted) <= MAX_SAFE_INTEGER else None
