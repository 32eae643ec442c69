"""Checking a memory profile's file, with every error of the file reported at once."""

from __future__ import annotations

import re

from memory_service.profile import MemoryProfile
from schemas.errors import PolicyInvalid
from streams.policy.findings import Findings
from streams.policy.fx import read_fx
from streams.policy.read import Unreadable, each, fields_of, items_of, word
from streams.policy.source import Node, read_source
from streams.policy.suggest import quoted

_LISTS = ("text", "categories", "leave_out", "keep")
_KEYS = ("profile", *_LISTS, "fx")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PATH = re.compile(r"(action|evidence|context)(\.[^.\s]+)+")
_MOST_PATHS = 256


def load_profile(source: bytes, *, name: str) -> MemoryProfile:
    """The memory profile of a file called `name`. Raises `PolicyInvalid` with every problem."""
    out = Findings(name)
    root = read_source(source, out)
    profile = _read(root, out) if root is not None else None
    if profile is None or out.failed:
        raise PolicyInvalid(out.errors())
    return profile


def _read(root: Node, out: Findings) -> MemoryProfile | None:
    try:
        fields = fields_of(root, "a memory profile", _KEYS, out)
    except Unreadable:
        return None
    if fields.get("profile") is None:
        out.error(fields.mark, "a memory profile has a name: `profile: NAME`")
    name = each(fields, "profile", lambda node: word(node, "`profile`", _NAME, "a name (letters, digits, `_.-`)", out))
    seen: dict[str, str] = {}
    lists = {key: each(fields, key, lambda node, key=key: _paths(node, key, seen, out)) or () for key in _LISTS}  # type: ignore[misc]
    fx = each(fields, "fx", lambda node: read_fx(node, out)) or {}
    return MemoryProfile(name or "", **lists, fx=tuple(sorted(fx.items())))


def _paths(node: Node, key: str, seen: dict[str, str], out: Findings) -> tuple[str, ...]:
    found = []
    for item in items_of(node, f"`{key}`", out):
        try:
            path = word(item, f"path of `{key}`", _PATH, "a path below `action`, `evidence` or `context`", out)
        except Unreadable:
            continue
        if path in seen:
            out.error(item.mark, f"{quoted(path)} stands under `{seen[path]}` already")
        seen[path] = key
        found.append(path)
    if len(found) > _MOST_PATHS:
        out.error(node.mark, f"`{key}` has more than {_MOST_PATHS} paths")
    return tuple(found)
