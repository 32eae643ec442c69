"""Which packs are meant: files, folders and patterns, in the order given."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

from schemas.errors import NotFound


def find_packs(given: Sequence[Path]) -> list[Path]:
    """Files as they are; of a folder all `.zip` in it and below; of a pattern (`*`, `?`, `[...]`, `**`) what it fits.

    A file that is found more than once through folders and patterns is taken once. Raises `NotFound` for a folder or
    pattern without packs.
    """
    found: dict[Path, None] = {}
    named: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*.zip") if file.is_file())
            if not inside:
                raise NotFound("there are no packs in this folder", where=str(path), help="packs end in .zip")
        elif not path.exists() and glob.has_magic(str(path)):
            fitting = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - patterns may be absolute
            inside = [file for file in fitting if file.is_file()]
            if not inside:
                raise NotFound("no file fits this pattern", where=str(path))
        else:
            named.append(path)
            continue
        for file in inside:
            if file not in found:
                found[file] = None
                named.append(file)
    return named
