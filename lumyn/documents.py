"""YAML files that people write (scenarios, runbooks): all that is wrong is said at once, each with its place."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from schemas.errors import FileInvalid, NotFound, StorageUnavailable
from streams.policy.findings import Findings
from streams.policy.read import Unreadable, items_of, number, word
from streams.policy.source import Node, read_source

ANY: Final = re.compile(r"(?s).+")
_T = TypeVar("_T")


def read_document(
    path: Path,
    what: str,
    read: Callable[[Node, Findings, bytes], _T],
    *,
    invalid: type[FileInvalid],
    help: str | None = None,
) -> _T:
    """What `read` makes of a file's root and its bytes; `read` says what is wrong, and goes on or raises `Unreadable`.

    Raises `invalid` with every problem, `NotFound` (with `help`), `StorageUnavailable`.
    """
    try:
        source = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no such {what}", where=str(path), help=help) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
    out = Findings(str(path))
    root = read_source(source, out, what)
    with suppress(Unreadable):
        if root is not None:
            found = read(root, out, source)
            if not out.failed:
                return found
    raise invalid(out.errors())


class Reader:
    """Reads values and says what is wrong with one; then it raises `Unreadable`."""

    def __init__(self, out: Findings) -> None:
        self._out = out

    def text(self, node: Node, what: str, pattern: re.Pattern[str] = ANY, rule: str = "text") -> str:
        return word(node, what, pattern, rule, self._out)

    def whole(self, node: Node, what: str) -> int:
        value = number(node, what, self._out)
        if not isinstance(value, int) or abs(value) > 10**9:
            self._out.error(node.mark, f"{what} takes a whole number")
            raise Unreadable
        return value

    def listed(self, node: Node, what: str, read: Callable[[Node], _T]) -> tuple[_T, ...]:
        """The items of a list that can be read; what is wrong with the others is said."""
        found = []
        for item in items_of(node, what, self._out):
            with suppress(Unreadable):
                found.append(read(item))
        return tuple(found)
