"""Running a command of lumyn from a runbook: in this process, without a shell, its output caught."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout

from schemas.errors import LumynError


def run_in_process(words: Sequence[str]) -> tuple[int, str]:
    """The exit code of a command, and all that it printed. Not for several threads: outputs are the process's.

    What the process keeps open (the home, the embedder) serves every step.
    """
    from lumyn.cli.app import run
    from lumyn.cli.output import error_text

    caught = io.BytesIO()
    text = io.TextIOWrapper(caught, encoding="utf-8", errors="replace", write_through=True)
    with redirect_stdout(text), redirect_stderr(text):
        try:
            code = run(words)
        except LumynError as error:
            text.write(f"lumyn: {error_text(error)}\n")
            code = error.exit_code
        except OSError as error:
            text.write(f"lumyn: {error.strerror or error}\n")
            code = 4
    text.flush()
    return code, caught.getvalue().decode("utf-8", "replace")
