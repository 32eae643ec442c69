"""What commands print: data on stdout, talk on stderr, progress bars on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x0A, 0x09)}


def say(text: str) -> None:
    """Talk: to stderr."""
    sys.stderr.write(text + "\n")


def out(text: str) -> None:
    """Data: to stdout. Control characters are shown, not sent to the terminal."""
    sys.stdout.write(clean(text) + "\n")


def out_bytes(data: bytes) -> None:
    """A line of bytes to stdout, as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def out_json(value: Any) -> None:
    """A value as indented JSON."""
    out_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2))


def clean(text: str) -> str:
    """Recorded text may be hostile: escape sequences and other controls become visible."""
    return text.translate(CONTROL)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns aligned by their widest cell, ` | ` between."""
    cells = [[clean(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(head)]
    lines = [
        " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [list(head), *cells]
    ]
    return "\n".join(lines)


class Ticks:
    """Counts done things; shows a bar on a terminal."""

    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def __call__(self, count: int = 1) -> None:
        if self._advance is not None:
            self._advance(count)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Ticks]:
    """A progress bar with rate and remaining time on stderr, if that is a terminal."""
    if not sys.stderr.isatty() or (total is not None and total < 50):
        yield Ticks(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield Ticks(lambda count: bar.advance(task, count))
