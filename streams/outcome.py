"""What an agent's answer, or a recorded decision, counts as: one word a run, by which a histogram is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import re2

from schemas.canonical import decode
from schemas.errors import LumynError, UsageError
from schemas.limits import MAX_RECORD_BYTES
from schemas.query import value_at

DEFAULT: Final = "action.type"
EXIT_CODE: Final = "exit"
LONGEST: Final = 120
NO_MATCH: Final = "(no match)"
ABSENT: Final = "(absent)"
_METADATA: Final = ("model", "model_version", "system_fingerprint", "finish_reason", "service_tier")
_MOST_METADATA: Final = 32


class NoOutcome(Exception):
    """An answer that says nothing that could be counted; the text says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an answer is read: a path into its JSON, a regular expression over its text, or the exit code."""

    text: str
    path: tuple[str, ...] = ()
    pattern: Any = None

    @property
    def is_exit_code(self) -> bool:
        """Whether a failing run is an answer, too."""
        return self.text == EXIT_CODE

    @property
    def is_in_clear(self) -> bool:
        """Whether it names nothing that is sealed where subjects are encrypted (docs/forgetting.md)."""
        return self.text in (DEFAULT, EXIT_CODE)

    @property
    def is_of_the_action(self) -> bool:
        """Whether it is a part of what the agent wanted to do."""
        return self.path[:1] in (("action",), ("action_type",))

    def of_answer(self, output: bytes, exit_code: int) -> str:
        """The outcome of an answer. Raises `NoOutcome`."""
        if self.is_exit_code:
            return f"exit {exit_code}"
        if self.pattern is not None:
            found = self.pattern.search(output.decode("utf-8", "replace"))
            if found is None:
                return NO_MATCH
            return _cut(found.group(1 if found.re.groups and found.group(1) is not None else 0))
        return self.of_value(answer_in(output))

    def of_value(self, value: Mapping[str, Any]) -> str:
        """The outcome of a JSON object. Raises `NoOutcome`."""
        found = value_at(value, self.path)
        if found is None:
            raise NoOutcome(f"no `{self.text}` in the answer")
        if isinstance(found, bool):
            return "true" if found else "false"
        if isinstance(found, str | int | float):
            return _cut(str(found))
        raise NoOutcome(f"`{self.text}` is not text, a number or a boolean")


def parse_outcome(text: str) -> Outcome:
    """`action.type` (a path), `/regular expression/` (RE2; its first group if it has one) or `exit`.

    Raises `UsageError`.
    """
    if text == EXIT_CODE:
        return Outcome(text)
    if len(text) > 2 and text.startswith("/") and text.endswith("/"):
        try:
            options = re2.Options()
            options.log_errors = False
            return Outcome(text, pattern=re2.compile(text[1:-1], options))
        except re2.error as error:
            raise UsageError(f"`--outcome`: not a regular expression: {_reason(error)}", help="RE2's syntax") from None
    path = tuple(text.split("."))
    if not all(path) or text.startswith("/"):
        raise UsageError(
            f"`--outcome`: `{text}` is not a path", help="such as action.type, /in (\\w+) days/, or `exit`"
        )
    return Outcome(text, path)


def answer_in(output: bytes) -> Mapping[str, Any]:
    """The JSON object that an agent answered. Raises `NoOutcome`."""
    try:
        value = decode(output, where="answer", limit=MAX_RECORD_BYTES)
    except LumynError as error:
        raise NoOutcome(f"the answer is not JSON: {error.message}") from None
    if not isinstance(value, dict):
        raise NoOutcome("the answer is not a JSON object")
    return value


def metadata_of(output: bytes) -> dict[str, str]:
    """What an answer says of where it came from: its `provenance`, and what providers call these things."""
    try:
        value = answer_in(output)
    except NoOutcome:
        return {}
    given = value.get("provenance")
    found = {name: value[name] for name in _METADATA if name in value}
    found |= given if isinstance(given, dict) else {}
    return plain_values(found)


def plain_values(
    found: Mapping[str, Any], *, most: int = _MOST_METADATA, cut: Callable[[str], str] | None = None
) -> dict[str, str]:
    """The values that are text, a number or a boolean, by name, at most `most`; nested ones by their dotted path.

    `cut` shortens a text; without it, its beginning is told.
    """
    shorten = cut or _cut
    out: dict[str, str] = {}
    waiting = [(str(name), value, 0) for name, value in sorted(found.items(), reverse=True)]
    while waiting and len(out) < most:
        name, value, depth = waiting.pop()
        if isinstance(value, Mapping) and depth < 3:
            waiting += [(f"{name}.{key}", inner, depth + 1) for key, inner in sorted(value.items(), reverse=True)]
        elif isinstance(value, bool):
            out[_cut(name)] = "true" if value else "false"
        elif isinstance(value, str | int | float):
            out[_cut(name)] = shorten(str(value))
    return out


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said))[:200].lower()
