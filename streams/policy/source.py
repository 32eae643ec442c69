"""A policy file as a tree of values that know their line and column.

The YAML is taken event by event, without PyYAML's constructors: no tags, no anchors or aliases, no merge
keys, one document, no duplicate keys, bounded depth and size. JSON is YAML, so a JSON policy loads too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from schemas.limits import MAX_POLICY_BYTES
from streams.policy.findings import Findings, Mark
from streams.policy.scalars import plain_value
from streams.policy.suggest import quoted

MAX_YAML_DEPTH = 100
MAX_VALUES = 500_000

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_ESCAPE = re.compile(_PAIR.pattern + r"|\\.")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One word or quoted text, as written; `value()` is what it means."""

    text: str
    plain: bool
    mark: Mark

    def value(self) -> Any:
        """None, bool, int, float or str. Raises `ValueError` for what is none of them."""
        return plain_value(self.text) if self.plain else self.text


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Node, ...]
    mark: Mark


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping, in file order, keys unique."""

    entries: tuple[tuple[Scalar, Node], ...]
    mark: Mark


Node: TypeAlias = Scalar | Items | Entries


class _Stop(Exception):
    """The rest of the file can't be read; the reason has been recorded."""


def read_source(source: bytes, findings: Findings, what: str = "policy") -> Node | None:
    """The file's tree, or None with the errors in `findings`; `what` the file holds, for messages."""
    text = _text_of(source, findings, what)
    if text is None:
        return None
    reader = _Reader(text, findings, what)
    try:
        return reader.document()
    except _Stop:
        return None
    except yaml.MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        mark = Mark(place.line + 1, place.column + 1) if place else Mark(1, 1)
        findings.error(mark, _yaml_message(error, text, mark))
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        findings.error(Mark(1, 1), f"malformed YAML: {str(error).splitlines()[0].lower()}")
    return None


def _text_of(source: bytes, findings: Findings, what: str) -> str | None:
    if len(source) > MAX_POLICY_BYTES:
        findings.error(Mark(1, 1), f"{len(source)} bytes, more than the {MAX_POLICY_BYTES} accepted")
        return None
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = source[: error.start].decode("utf-8", "replace")
        findings.error(_mark_at(before, len(before)), "not UTF-8 text")
        return None
    strange = _UNPRINTABLE.search(text)
    if strange:
        findings.error(_mark_at(text, strange.start()), f"character {strange.group()!a} can't stand in a {what}")
        return None
    return _joined_surrogates(text)


def _joined_surrogates(text: str) -> str:
    """JSON writes a character above U+FFFF as two escapes, which YAML refuses: make them YAML's one."""
    if not _PAIR.search(text):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _ESCAPE.sub(lambda found: found[0] if found[1] is None else _one_escape(found[1], found[2]), text)


def _one_escape(high: str, low: str) -> str:
    return f"\\U{0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF):08X}"


def _mark_at(text: str, index: int) -> Mark:
    return Mark(text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index))


def _yaml_message(error: yaml.MarkedYAMLError, text: str, mark: Mark) -> str:
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if line[mark.column - 1 : mark.column] == "\t":
        return "a tab can't be used for indentation; use spaces"
    problem = (error.problem or "not readable").strip()
    message = f"malformed YAML: {problem[:1].lower()}{problem[1:]}"
    return f"{message} ({error.context})" if error.context else message


class _Reader:
    def __init__(self, text: str, findings: Findings, what: str) -> None:
        self._what = what
        self._loader = _LOADER(text)
        self._findings = findings
        self._count = 0

    def document(self) -> Node | None:
        self._loader.get_event()
        event = self._loader.get_event()
        if isinstance(event, yaml.StreamEndEvent):
            self._findings.error(Mark(1, 1), f"the {self._what} is empty")
            return None
        root = self._node(self._loader.get_event(), 0)
        self._loader.get_event()
        event = self._loader.get_event()
        if not isinstance(event, yaml.StreamEndEvent):
            self._findings.error(_mark(event), f"a second document; a file holds one {self._what}")
        return root

    def _node(self, event: Any, depth: int) -> Node:
        mark = _mark(event)
        self._count += 1
        if self._count > MAX_VALUES:
            self._stop(mark, f"more than {MAX_VALUES} values")
        if isinstance(event, yaml.AliasEvent):
            self._findings.last_error(mark, f"alias {quoted(f'*{event.anchor}')} is not accepted; write the value out")
            return Scalar("", True, mark)
        self._refuse_extras(event, mark)
        if isinstance(event, yaml.ScalarEvent):
            if not event.value.isascii() and _SURROGATE.search(event.value):
                self._findings.error(mark, "a lone surrogate, which is not unicode text")
            return Scalar(event.value, event.style in (None, ""), mark)
        if depth >= MAX_YAML_DEPTH:
            self._stop(mark, f"nested deeper than {MAX_YAML_DEPTH} levels")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(mark, depth + 1)
        return self._entries(mark, depth + 1)

    def _refuse_extras(self, event: Any, mark: Mark) -> None:
        if event.anchor is not None:
            self._findings.error(mark, f"anchor {quoted(f'&{event.anchor}')} is not accepted; write the value out")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._findings.error(mark, f"tag {quoted(tag)} is not accepted")

    def _items(self, mark: Mark, depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := self._loader.get_event(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth))
        return Items(tuple(items), mark)

    def _entries(self, mark: Mark, depth: int) -> Entries:
        entries: list[tuple[Scalar, Node]] = []
        first: dict[str, Mark] = {}
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            key = self._node(event, depth)
            value = self._node(self._loader.get_event(), depth)
            if not isinstance(key, Scalar):
                self._findings.error(key.mark, "a key must be a single word or quoted text")
            elif key.plain and key.text == "<<":
                self._findings.error(key.mark, "merge key `<<` is not accepted; write the values out")
            elif key.text in first:
                line = first[key.text].line
                self._findings.error(key.mark, f"duplicate key {quoted(key.text)}, first on line {line}")
            else:
                first[key.text] = key.mark
                entries.append((key, value))
        return Entries(tuple(entries), mark)

    def _stop(self, mark: Mark, message: str) -> None:
        self._findings.error(mark, message)
        raise _Stop


def _mark(event: Any) -> Mark:
    return Mark(event.start_mark.line + 1, event.start_mark.column + 1)
