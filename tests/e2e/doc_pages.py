"""The documents' commands, and running a page of them. Pages are shared among files: each file's tests run in turn."""

from __future__ import annotations

import re
from pathlib import Path

from conftest_e2e import Shell
from servers.kafka import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))
_OF = 4
_TOLD_APART = "docs/clean-the-memory.md"
"""What this page's commands print is looked at by a test of its own."""


def blocks(page: str, *marks: str) -> list[str]:
    """A page's shell blocks of these marks, in order; without any, the unmarked ones."""
    found = re.findall(r"^```sh(?: ([\w-]+))?\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)
    return [text for mark, text in found if mark in (marks or ("",))]


def share(number: int) -> list[str]:
    """The pages of one of the files, that have a block which needs nothing."""
    return [page for page in PAGES if blocks(page) and page != _TOLD_APART][number::_OF]


def run(page: str, folder: Path) -> None:
    """Run a page from top to bottom in a folder."""
    shell = Shell(folder)
    del shell.env["LUMYN_POLICY"]
    script = "set -euo pipefail\n" + "\n".join(blocks(page))
    for port in sorted(set(re.findall(r"--port (\d{4,5})", script))):  # others of this machine may have these
        script = script.replace(port, str(free_port()))
    done = shell.run(script)
    assert "internal error" not in done.stderr
