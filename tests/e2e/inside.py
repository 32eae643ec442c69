"""The `lumyn` command without a process of its own: the same `main`, with its own folder, stdin and outputs."""

from __future__ import annotations

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest_e2e import alone

from lumyn import __main__ as command
from lumyn import sdk, wiring


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str


class Inside:
    """A user's folder, with the command run in this process: exit codes and outputs are the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".lumyn"

    def run(self, *arguments: object, stdin: str | bytes = b"", code: int | None = 0) -> Done:
        """Run `lumyn ARGUMENTS`; no command may ever end in an internal error."""
        given = io.TextIOWrapper(io.BytesIO(stdin.encode() if isinstance(stdin, str) else stdin))
        out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
        argv, stdin_before = sys.argv, sys.stdin
        sys.argv, sys.stdin = ["lumyn", *map(str, arguments)], given
        ended = 0
        try:
            with redirect_stdout(out), redirect_stderr(err):
                try:
                    command.main()
                except SystemExit as stop:
                    ended = int(stop.code or 0)
        finally:
            sys.argv, sys.stdin = argv, stdin_before
        out.flush()
        done = Done(ended, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]
        assert "Traceback" not in done.stderr, done.stderr
        assert "internal error" not in done.stderr, f"{arguments}: {done.stderr}"
        if code is not None:
            assert done.code == code, f"{arguments}: exit {done.code}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: object, stdin: str | bytes = b"", code: int | None = 0) -> Any:
        """Run a command whose stdout is JSON."""
        return json.loads(self.run(*arguments, stdin=stdin, code=code).stdout)

    def refused(self, *arguments: object, code: int, stdin: str | bytes = b"") -> str:
        """Run a command that must fail: nothing on stdout, one line and its help on stderr. Returns that line."""
        done = self.run(*arguments, code=code, stdin=stdin)
        assert done.stdout == "", done.stdout
        return one_line(done.stderr)

    def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        """Decide one request with the folder's policy, in a millisecond of its own."""
        return alone(lambda: sdk.decide(request))

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def files(self) -> set[str]:
        """The folder's files, without the home's."""
        return {path.name for path in self.folder.iterdir() if path != self.home}

    def records(self) -> int:
        """How many decisions the home holds."""
        if not (self.home / "lumyn.db").exists():
            return 0
        log = wiring.operator_home().log
        return sum(log.end("records", partition) for partition in range(log.partitions("records")))


def one_line(stderr: str) -> str:
    """The error line; whatever follows it is indented help."""
    lines = stderr.splitlines()
    assert lines, "no error was told"
    assert lines[0].startswith("lumyn"), stderr
    assert all(line.startswith("  ") for line in lines[1:]), stderr
    return lines[0]
