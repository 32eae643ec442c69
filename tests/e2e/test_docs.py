"""Every command in the documents is run, in order, as a reader would."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest_e2e import Shell

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md"))


def blocks(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / page).read_text(), re.S | re.M)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    script = "set -euo pipefail\n" + "\n".join(blocks(page))
    done = shell.run(script)
    assert "internal error" not in done.stderr


def test_the_readmes_own_commands_run(tmp_path: Path) -> None:
    commands = [c for b in blocks("README.md") for c in b.splitlines() if c.startswith(".venv/bin/lumyn")]
    assert len(commands) == 2
    shutil.copytree(ROOT / "examples/refunds", tmp_path / "examples/refunds")
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    for command in commands:
        shell.run(command.replace(".venv/bin/", ""))


def test_links_between_documents_lead_somewhere() -> None:
    for page in ["README.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
            assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"
