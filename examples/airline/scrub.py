"""What a user said, without what identifies a person: names, birthdays, card digits, addresses, ids."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_PATTERNS = (
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+"), "[e-mail]"),
    (re.compile(r"\b[a-z]+_[a-z]+_\d{4}\b"), "[user id]"),
    (re.compile(r"\b(gift_card|credit_card|certificate)_\d+\b"), r"\1"),
    (re.compile(rf"\b{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?,? (?:19\d\d|20[01]\d)\b"), "[date of birth]"),
    (re.compile(r"\b(?:19\d\d|20[01]\d)-\d\d-\d\d\b|\b\d\d?/\d\d?/(?:19\d\d|20[01]\d)\b"), "[date of birth]"),
    (re.compile(r"(?<![$,.\d])\b(?!2024\b)\d{4,}\b"), "[digits]"),
)


def known_names(rows: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Every first and last name of a user or passenger in the recordings."""
    names: set[str] = set()
    for row in rows:
        people = list(row["arguments"].get("passengers", ()))
        if row["reservation"]:
            people += row["reservation"]["passengers"]
        if row["user"]:
            people += [row["user"]["name"], *row["user"]["saved_passengers"]]
        for person in people:
            names.update((person["first_name"], person["last_name"]))
    return frozenset(names)


def scrub(text: str, names: frozenset[str]) -> str:
    """The text with every identifying part replaced by what it was."""
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    anyone = "|".join(sorted(map(re.escape, names), key=lambda name: (-len(name), name)))
    text = re.sub(rf"\b(?:{anyone})(?: (?:{anyone}))*\b", "[name]", text)
    return " ".join(text.split())


def last_words(messages: Sequence[str], limit: int) -> str:
    """The last messages, oldest first, one a line, as many as fit into `limit` characters."""
    kept: list[str] = []
    room = limit
    for message in reversed(messages):
        if len(message) > room and kept:
            break
        kept.append(message[:room])
        room -= len(kept[-1]) + 1
        if room <= 0:
            break
    return "\n".join(reversed(kept))
