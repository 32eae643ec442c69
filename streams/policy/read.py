"""Reading typed values out of the file's tree, saying what is wrong where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

from schemas.canonical import encode
from schemas.errors import BadJson
from streams.policy.findings import Findings, Mark
from streams.policy.scalars import SWITCH_WORDS
from streams.policy.source import Entries, Items, Node, Scalar
from streams.policy.suggest import did_you_mean, listed, quoted

MAX_JSON_DEPTH = 16
T = TypeVar("T")

_NO_MEANINGS: Mapping[str, str] = MappingProxyType({})


class Unreadable(Exception):
    """The value was reported as wrong; nothing can be made of it."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The known keys of one mapping."""

    found: Mapping[str, tuple[Scalar, Node]]
    mark: Mark

    def get(self, key: str) -> Node | None:
        entry = self.found.get(key)
        return entry[1] if entry else None

    def mark_of(self, key: str) -> Mark:
        entry = self.found.get(key)
        return entry[0].mark if entry else self.mark


def each(fields: Fields, key: str, read: Callable[[Node], T]) -> T | None:
    """What `read` makes of a key's value; None without the key, or when the value was reported as wrong."""
    node = fields.get(key)
    if node is None:
        return None
    try:
        return read(node)
    except Unreadable:
        return None


def kind_name(node: Node) -> str:
    if isinstance(node, Scalar):
        return "nothing" if node.plain and node.text in ("", "~", "null", "Null", "NULL") else quoted(node.text)
    return "a list" if isinstance(node, Items) else "a mapping"


def fields_of(
    node: Node, what: str, known: Iterable[str], out: Findings, meanings: Mapping[str, str] = _NO_MEANINGS
) -> Fields:
    """A mapping's known keys; unknown ones are errors. Raises `Unreadable` when it is no mapping."""
    options = tuple(known)
    if not isinstance(node, Entries):
        out.error(node.mark, f"{what} takes a mapping, not {kind_name(node)}")
        raise Unreadable
    found = {}
    for key, value in node.entries:
        if key.text in options:
            found[key.text] = (key, value)
        else:
            hint = did_you_mean(key.text, options, meanings) or f"; {what} has {listed(options)}"
            out.error(key.mark, f"unknown key {quoted(key.text)}{hint}")
    return Fields(MappingProxyType(found), node.mark)


def scalar_value(node: Node, what: str, out: Findings) -> Any:
    """None, bool, int, float or str."""
    if not isinstance(node, Scalar):
        out.error(node.mark, f"{what} takes a single value, not {kind_name(node)}")
        raise Unreadable
    try:
        value = node.value()
    except ValueError as error:
        out.error(node.mark, str(error))
        raise Unreadable from None
    if node.plain and value.__class__ is str and value.lower() in SWITCH_WORDS:
        out.warn(node.mark, f"`{value}` is text here, not a boolean; write `true` or `false`, or put it in quotes")
    return value


def word(node: Node, what: str, pattern: re.Pattern[str], rule: str, out: Findings) -> str:
    """Text as written (a version `4.1` stays `4.1`) that fits `pattern`; `rule` says in words what fits."""
    if not isinstance(node, Scalar):
        out.error(node.mark, f"{what} takes a single value, not {kind_name(node)}")
        raise Unreadable
    if not pattern.fullmatch(node.text):
        out.error(node.mark, f"{what} {quoted(node.text)} is not {rule}")
        raise Unreadable
    return node.text


def choice(node: Node, what: str, options: Iterable[str], out: Findings) -> str:
    """One of a few words."""
    allowed = tuple(options)
    if not isinstance(node, Scalar) or node.text not in allowed:
        near = did_you_mean(node.text, allowed) if isinstance(node, Scalar) else ""
        out.error(node.mark, f"{what} takes {listed(allowed)}, not {kind_name(node)}{near}")
        raise Unreadable
    return node.text


def flag(node: Node, what: str, out: Findings) -> bool:
    value = scalar_value(node, what, out)
    if value is not True and value is not False:
        out.error(node.mark, f"{what} takes `true` or `false`, not {kind_name(node)}")
        raise Unreadable
    return bool(value)


def number(node: Node, what: str, out: Findings) -> int | float:
    """A finite number."""
    value = scalar_value(node, what, out)
    if value.__class__ is not int and value.__class__ is not float:
        out.error(node.mark, f"{what} takes a number, not {kind_name(node)}")
        raise Unreadable
    return value


def items_of(node: Node, what: str, out: Findings) -> tuple[Node, ...]:
    if not isinstance(node, Items):
        out.error(node.mark, f"{what} takes a list, not {kind_name(node)}")
        raise Unreadable
    return node.items


def json_value(node: Node, what: str, out: Findings, depth: int = 0) -> Any:
    """Any JSON value, of at most 16 levels."""
    if depth > MAX_JSON_DEPTH:
        out.error(node.mark, f"{what} is nested deeper than {MAX_JSON_DEPTH} levels")
        raise Unreadable
    if isinstance(node, Items):
        return [json_value(item, what, out, depth + 1) for item in node.items]
    if isinstance(node, Entries):
        return {key.text: json_value(value, what, out, depth + 1) for key, value in node.entries}
    value = scalar_value(node, what, out)
    try:
        encode(value)
    except BadJson as error:
        out.error(node.mark, error.message)
        raise Unreadable from None
    return value
