"""What the checker has to say about a file, each with its place, collected to be said at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Mark(NamedTuple):
    """A place in the file; both count from 1, columns in characters."""

    line: int
    column: int


@dataclass(slots=True)
class Findings:
    """Errors and warnings of one file called `name`."""

    name: str
    _errors: list[tuple[Mark, str]] = field(default_factory=list)
    _warnings: list[tuple[Mark, str]] = field(default_factory=list)

    _settled: set[Mark] = field(default_factory=set)

    def error(self, mark: Mark, message: str) -> None:
        if mark not in self._settled:
            self._errors.append((mark, message))

    def last_error(self, mark: Mark, message: str) -> None:
        """An error after which nothing else that is found at this place tells more."""
        self.error(mark, message)
        self._settled.add(mark)

    def warn(self, mark: Mark, message: str) -> None:
        self._warnings.append((mark, message))

    @property
    def failed(self) -> bool:
        return bool(self._errors)

    def errors(self) -> list[str]:
        return self._written(self._errors)

    def warnings(self) -> list[str]:
        return self._written(self._warnings)

    def _written(self, found: list[tuple[Mark, str]]) -> list[str]:
        ordered = sorted(found, key=lambda item: item[0])
        lines = [f"{self.name}:{mark.line}:{mark.column}: {message}" for mark, message in ordered]
        return list(dict.fromkeys(lines))
