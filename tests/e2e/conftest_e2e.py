"""A shell like a user's: the real `lumyn` command in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from streams.local_log import wall_clock_ms

POLICY = """\
policy: refunds
version: 4.1.0
rules:
  - id: R_FRAUD_BLOCK
    stage: HARD_BLOCKS
    if: {chargeback_risk: {gte: 0.8}}
    then: {verdict: DENY, reason_codes: [CHARGEBACK_RISK_BLOCK]}
  - id: R_REFUND_LIMIT
    if: {all: [{action_type: refund}, {amount_usd: {gt: 250}}]}
    then: {verdict: ESCALATE, reason_codes: [REFUND_OVER_ESCALATION_LIMIT]}
  - id: R_SMALL
    if: {amount_usd: {lte: 500}}
    then: {verdict: ALLOW, reason_codes: [REFUND_SMALL_LOW_RISK]}
memory: {}
"""


class Shell:
    """Runs commands in `folder` with a home, and keeps what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LUMYN_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LUMYN_POLICY": "policy.yml",
            "LUMYN_ACTOR": "oncall",
        }

    def run(self, command: str, *, stdin: str | bytes = "", code: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a shell command; fails the test when the exit code is another than `code` (None: any)."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.env, input=data, capture_output=True, timeout=240
        )
        result = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "Traceback" not in result.stderr, result.stderr
        if code is not None:
            assert result.returncode == code, f"{command}: exit {result.returncode}\n{result.stdout}\n{result.stderr}"
        return result

    def json(self, command: str, *, stdin: str | bytes = "", code: int | None = 0) -> Any:
        """Run a command whose stdout is JSON."""
        return json.loads(self.run(command, stdin=stdin, code=code).stdout)

    def decide(self, request: dict[str, Any], options: str = "") -> dict[str, Any]:
        """Decide one request by the command."""
        return self.json(f"lumyn decide - {options}", stdin=json.dumps(request))  # type: ignore[no-any-return]

    def write(self, name: str, text: str | bytes) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    shell = Shell(tmp_path)
    shell.write("policy.yml", POLICY)
    return shell


def refund(amount: float = 500, risk: float | None = 0.1, user: str = "usr_abc123", **more: Any) -> dict[str, Any]:
    """A refund request."""
    evidence = {} if risk is None else {"chargeback_risk": risk}
    return {
        "subject": {"type": "user", "id": user},
        "action": {"type": "refund", "amount": {"value": amount, "currency": "USD"}},
        "evidence": evidence,
        "context": {"mode": "inline", "inline": {"channel": "chat"}},
        **more,
    }


def next_millisecond() -> None:
    """Wait for it: of two things in one millisecond of the log nobody can say which was first."""
    begun = wall_clock_ms()
    while wall_clock_ms() <= begun:
        time.sleep(0.0005)


def alone(decide: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """A decision of a millisecond of its own: neither what was before it nor what comes after is of the same."""
    next_millisecond()
    record = dict(decide())
    next_millisecond()
    return record
