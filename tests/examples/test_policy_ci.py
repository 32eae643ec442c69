"""The GitHub Actions workflow for a policy repository: its own commands, run on a repository like it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest_e2e import POLICY, Shell, refund

WORKFLOW = Path(__file__).resolve().parents[2] / "examples" / "policy-ci" / "policy-check.yml"
PLAIN = POLICY.replace("memory: {}\n", "")


def steps() -> list[dict[str, str]]:
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    (job,) = jobs.values()
    return list(job["steps"])


def commands(name: str) -> str:
    return next(step["run"] for step in steps() if step.get("name") == name)


@pytest.fixture
def repository(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    del shell.env["LUMYN_POLICY"]
    for folder in ("policies", "regression"):
        (tmp_path / folder).mkdir()
    shell.write("policies/refunds.yml", PLAIN)
    asked = "\n".join(json.dumps(refund(20 + n, n / 30, f"u{n}")) for n in range(30))
    records = [json.loads(line) for line in shell.run("lumyn decide - --policy policies/refunds.yml", stdin=asked).stdout.splitlines()]
    for record in (*records[:5], *records[-3:]):
        shell.run(f"lumyn label {record['decision_id']} --label success --summary seen")
    shell.run("lumyn export --limit 1000 --out regression/decisions.jsonl")
    shell.run('lumyn list --query "label IN (failure, success)" --limit 1000 --json > regression/outcomes.json')
    shutil.rmtree(tmp_path / ".lumyn")  # the runner has no log
    shell.env["GITHUB_STEP_SUMMARY"] = str(tmp_path / "summary.md")
    return shell


def test_a_harmless_change_is_green_and_told(repository: Shell) -> None:
    repository.write("policies/refunds.yml", PLAIN.replace("lte: 500", "lte: 600"))
    for name in ("Check", "Backtest", "Tell"):
        repository.run(f"set -e\n{commands(name)}")
    assert "flips.ALLOW\\_to\\_DENY" in (repository.folder / "summary.md").read_text()
    assert (repository.folder / "backtest.html").stat().st_size > 5000


def test_a_change_that_lets_known_fraud_through_is_red_and_told(repository: Shell) -> None:
    repository.write("policies/refunds.yml", PLAIN.replace("gte: 0.8", "gte: 1.1"))
    repository.run(commands("Check"))
    repository.run(f"set -e\n{commands('Backtest')}", code=1)
    repository.run(commands("Tell"))
    assert "NO |" in (repository.folder / "summary.md").read_text()
    assert (repository.folder / "backtest.html").exists()


def test_a_record_that_was_edited_is_red(repository: Shell) -> None:
    path = repository.folder / "regression/decisions.jsonl"
    path.write_text(path.read_text().replace('"verdict":"DENY"}', '"verdict":"ALLOW"}', 1))
    done = repository.run(f"set -e\n{commands('Backtest')}", code=3)
    assert "record_digest failed" in done.stderr


def test_a_broken_policy_is_red_before_the_backtest(repository: Shell) -> None:
    repository.write("policies/refunds.yml", "rules: [")
    repository.run(commands("Check"), code=2)


def test_what_a_failed_step_leaves_is_still_told_and_kept() -> None:
    after = steps()[[step.get("name") for step in steps()].index("Backtest") + 1 :]
    assert after and all(step["if"] == "always()" for step in after)
