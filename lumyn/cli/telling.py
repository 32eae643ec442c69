"""Telling a story with real commands: each is run in this process, shown as it was typed, and what it printed."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping, Sequence

from lumyn.cli.output import clean


def command(
    *arguments: str,
    expect: Sequence[int] = (0,),
    head: int | None = None,
    tail: int = 0,
    show: bool = True,
    only: Sequence[str] = (),
    shown: Mapping[str, str] | None = None,
    talk: bool = True,
) -> str:
    """Run a `lumyn` command and print what it prints, shortened if asked; returns all of it.

    `shown` says how a long argument is written. With `talk=False` what goes to stderr is left out. Raises
    `IntegrityError` when it ends with another exit code than expected: then the story is not true.
    """
    from lumyn.cli.app import run
    from schemas.errors import IntegrityError

    if show:
        words = [(shown or {}).get(word, word) for word in arguments]
        tell("\n$ lumyn " + " ".join(f"'{w}'" if any(c in w for c in " <>=$") else w for w in words))
    buffer = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    hushed = contextlib.nullcontext() if show and talk else contextlib.redirect_stderr(io.StringIO())
    with contextlib.redirect_stdout(buffer), hushed:
        code = run(arguments)
    buffer.seek(0)
    whole = buffer.read()
    text = [line for line in whole.splitlines() if not only or line.startswith(tuple(only))]
    if head is not None and len(text) > head + tail:
        text = [*text[:head], f"... {len(text) - head - tail} more lines ...", *text[len(text) - tail :]]
    if show:
        tell("\n".join(text))
    if code not in expect:
        raise IntegrityError(f"the demo's `lumyn {arguments[0]}` ended with exit code {code}")
    return whole


def title(text: str) -> None:
    """A chapter's first line."""
    tell(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}")


def tell(text: str) -> None:
    """A line of the story, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def recorded(text: str) -> None:
    """A line that holds recorded text."""
    tell(clean(text))
