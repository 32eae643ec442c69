"""Every benchmark can at least be started: what it imports from the tests and the code is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["api", "console", "containment", "live", "replay", "run"])
def test_it_says_what_it_does(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / f"benchmarks/{name}.py"), "--help"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{name}.py" in done.stdout and not list(tmp_path.iterdir())
