"""Recorded text within Markdown: it can't begin a tag, a link, another cell, line or marker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from lumyn.cli.output import one_line

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_BEGINS = re.compile(r"\A(\s*)([#>+=-]|\d+[.)])")
_SHOWN = 6
_LONGEST = 400


def plain(text: object) -> str:
    """Text on one line, with nothing in it that Markdown or HTML would act on."""
    told = one_line(str(text))
    told = told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…"
    told = _SPECIAL.sub(r"\\\1", told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
    told = told.replace("://", ":&#47;&#47;").replace("@", "&#64;")  # no link that nobody wrote as one
    return _BEGINS.sub(lambda found: f"{found[1]}&#{ord(found[2][0])};{found[2][1:]}", told)


def code(text: object) -> str:
    """A code span, within a table or not; whatever backticks it holds."""
    told = one_line(str(text))
    told = (told if len(told) <= 4 * _LONGEST else told[: 4 * _LONGEST - 1] + "…").strip() or " "
    longest = max(map(len, re.findall(r"`+", told)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if told.startswith("`") or told.endswith("`") else ""
    return f"{fence}{pad}{told}{pad}{fence}".replace("|", "\\|")


def counts(found: Mapping[str, int]) -> str:
    """`ALLOW 3, DENY 1`."""
    return ", ".join(f"{code(name)} {count}" for name, count in found.items()) or "none"


def listed(values: Sequence[str]) -> str:
    """Some values, and how many more."""
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(code(value) for value in values[:_SHOWN]) + more


def written(text: str) -> str:
    """What a person wrote as Markdown: kept as it is, but for HTML, which is shown as text."""
    lines = [one_line(line.replace("\t", "    ")) for line in text.split("\n")]
    return _TAG.sub("&lt;", "\n".join(lines))


def unwritten(text: str) -> str:
    """The inverse of `written`, for what is read back from a file."""
    return re.sub(r"&lt;(?=[A-Za-z/!?])", "<", text)
