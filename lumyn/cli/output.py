"""What commands print: data on stdout, talk on stderr, progress bars on a terminal only."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import orjson

from schemas.errors import FileInvalid, LumynError

_ACTED_ON = (
    *(code for code in range(0x20) if code not in (0x0A, 0x09)),
    *range(0x7F, 0xA0),
    0x061C,
    *range(0x200B, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2060, 0x2070),
    0xFEFF,
    *range(0xD800, 0xE000),
)
"""What a terminal acts on, hides or can't show: controls, text direction, zero width, line separators, surrogates."""
CONTROL = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in _ACTED_ON}
_IN_JSON = {code: f"\\u{code:04x}" for code in _ACTED_ON if code > 0x20}
_ONE_LINE = {**CONTROL, 0x0A: "\\n", 0x09: "\\t"}


def say(text: str) -> None:
    """Talk: to stderr."""
    sys.stderr.write(clean(text) + "\n")


def out(text: str) -> None:
    """Data: to stdout. Control characters are shown, not sent to the terminal."""
    sys.stdout.write(clean(text) + "\n")


def out_bytes(data: bytes) -> None:
    """A line of canonical JSON to stdout, byte for byte; on a terminal controls are written as JSON escapes."""
    if sys.stdout.isatty():
        data = data.decode().translate(_IN_JSON).encode()
    sys.stdout.flush()
    sys.stdout.buffer.write(data + b"\n")
    sys.stdout.buffer.flush()


def out_json(value: Any) -> None:
    """A value as indented JSON, controls escaped."""
    out_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode().translate(_IN_JSON).encode())


def clean(text: str) -> str:
    """Recorded text may be hostile: escape sequences and other controls become visible."""
    return text.translate(CONTROL)


def one_line(text: str) -> str:
    """The same for text that stands within a line: it can't begin another."""
    return text.translate(_ONE_LINE)


def escaped(text: str) -> str:
    """Recorded text within Markdown: no other cell, line or tag can come out of it."""
    return html.escape(one_line(text), quote=False).replace("|", "\\|")


def error_text(error: LumynError) -> str:
    """An error as it is told: a line (a line a problem for files), then its help."""
    problems = error.problems if isinstance(error, FileInvalid) else [error.message]
    text = "\n".join(map(one_line, problems))
    if error.where:
        text = f"{one_line(error.where)}: {text}"
    return clean(f"{text}\n  help: {error.help}" if error.help else text)


def error_json(error: LumynError) -> str:
    """An error as one line of JSON."""
    return orjson.dumps({"error": error.as_dict()}).decode().translate(_IN_JSON)


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

    def __call__(self, count: int = 1, said: str = "") -> None:
        """`said` stands at the end of the bar: a figure so far."""
        if self._advance is not None:
            self._advance(count, said)


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Ticks]:
    """A progress bar with rate and remaining time on stderr, if that is a terminal."""
    if not sys.stderr.isatty() or (total is not None and total < 50):
        yield Ticks(None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        """Done things a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s")

    bar = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total, said="")
        yield Ticks(lambda count, said: bar.update(task, advance=count, **({"said": said} if said else {})))
