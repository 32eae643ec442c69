"""Backtest reports that are kept in a home, for the console: a folder a tenant, a file a report."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.errors import NotFound, UsageError

FOLDER: Final = "reports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Report:
    """A kept report. `bytes` is its size."""

    name: str
    written_ms: int
    bytes: int


def place(home: Path, tenant: str, name: str) -> Path:
    """Where a report of a name is kept. Raises `UsageError` for what is no name."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"`{name}` is no report's name", help="letters, digits, `.`, `_` and `-`, at most 80")
    return home / FOLDER / tenant / f"{name}.html"


def kept(home: Path, tenant: str) -> list[Report]:
    """The tenant's reports, the newest first."""
    found = []
    for path in (home / FOLDER / tenant).glob("*.html"):
        if _NAME.fullmatch(path.stem) and path.is_file() and not path.is_symlink():
            status = path.stat()
            found.append(Report(path.stem, status.st_mtime_ns // 1_000_000, status.st_size))
    return sorted(found, key=lambda one: (-one.written_ms, one.name))


def name_of(home: Path, tenant: str, path: Path) -> str | None:
    """The name of the tenant's kept report that a path leads to; None where it leads elsewhere."""
    folder = (home / FOLDER / tenant).resolve()
    is_kept = path.suffix == ".html" and _NAME.fullmatch(path.stem) and path.parent.resolve() == folder
    return path.stem if is_kept else None


def read(home: Path, tenant: str, name: str) -> bytes:
    """A report. Raises `NotFound`."""
    if not any(one.name == name for one in kept(home, tenant)):
        raise NotFound(f"no report `{name}` is kept here", help="`lumyn backtest --keep NAME` keeps one")
    return place(home, tenant, name).read_bytes()
