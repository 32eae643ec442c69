"""The GitHub Actions workflow for game days: its own commands, in a repository like it."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from conftest_e2e import Shell

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_workflow_is_green_with_the_fix_and_red_without_it(tmp_path: Path) -> None:
    (job,) = yaml.safe_load((EXAMPLES / "gamedays/gameday.yml").read_text())["jobs"].values()
    commands = {step["name"]: step["run"] for step in job["steps"] if "name" in step}
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    shell.env["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    (tmp_path / "gamedays").mkdir()
    shutil.copytree(EXAMPLES / "airline", tmp_path / "airline")
    scenario = shutil.copy(EXAMPLES / "gamedays/flown-flights.yml", tmp_path / "gamedays")
    shell.run(commands["Check"])
    shell.run(commands["Play"])
    Path(scenario).write_text(Path(scenario).read_text().replace("candidate_policy.yml", "policy.yml"))
    shell.run(commands["Play"], code=1)
    shell.run(commands["Tell"])
    assert "| **FAILED** | request airline-28-1-4" in (tmp_path / "summary.md").read_text()
    assert not (tmp_path / ".lumyn").exists()
