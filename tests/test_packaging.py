"""The distribution lists every package, and carries what the program reads at run time."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for floor in ("lumyn", "streams", "memory_service", "schemas")
        for path in (ROOT / floor).rglob("__init__.py")
    }
    assert set(listed) == found | {"lumyn.demo_data"}


def test_without_scipy_a_backtest_says_how_to_get_it(tmp_path: Path) -> None:
    """It comes with an extra: a gate that only decides needs none of it."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['scipy'] = None")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "lumyn", "backtest", "--policy", "examples/refunds/policy.yml"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and "lumyn-streams[stats]" in done.stderr and "Traceback" not in done.stderr


def test_scipy_is_loaded_by_nobody_who_does_not_ask_for_statistics() -> None:
    code = "import sys, lumyn.sdk, lumyn.cli.app, lumyn.wiring, streams.verify; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
