"""Ctrl-C and SIGTERM: what runs until it is stopped ends with 0; what was to end by itself, with 130 or 143 and one line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest_e2e import Shell, refund
from inside import Inside

from lumyn.__main__ import Terminated
from lumyn.cli import telling

pytest_plugins = ("inside_plugin",)

BOTH = [signal.SIGINT, signal.SIGTERM]
CUT_SHORT = {signal.SIGINT: 130, signal.SIGTERM: 143}


def as_in_a_terminal() -> None:
    """Whatever started the tests: a shell lets its background jobs ignore Ctrl-C."""
    for name in BOTH:
        signal.signal(name, signal.SIG_DFL)


@contextmanager
def started(shell: Shell, command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        shlex.split(command), cwd=shell.folder, env=shell.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def stopped(process: subprocess.Popen[str], by: signal.Signals) -> tuple[int, str, str]:
    process.send_signal(by)
    stdout, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr, stderr
    return process.returncode, stdout, stderr


def until(there: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not there():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def read_until(process: subprocess.Popen[str], said: str) -> None:
    """Read stderr up to a line that has this in it."""
    assert process.stderr is not None
    for line in process.stderr:
        if said in line:
            return
    raise AssertionError(f"`{said}` was never said")


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("command", ["lumyn serve --port 0", "lumyn dev --port 0"])
def test_a_server_that_is_stopped_ends_with_0(shell: Shell, command: str, by: signal.Signals) -> None:
    with started(shell, command) as process:
        read_until(process, "lumyn on http")
        code, _, rest = stopped(process, by)
    assert code == 0, rest
    assert "interrupted" not in rest


@pytest.mark.parametrize("by", BOTH)
def test_watches_that_are_stopped_end_with_0(shell: Shell, by: signal.Signals) -> None:
    shell.decide(refund())
    shell.run("lumyn watch add refunds --query action_type=refund")
    with started(shell, "lumyn watch run --every 1h --json") as process:
        assert process.stdout is not None and "refunds" in process.stdout.readline()
        assert stopped(process, by)[0] == 0


def agent(shell: Shell, sleep_s: float) -> str:
    """An agent that notes its process and takes its time."""
    shell.write("agent.py", f"import os, time\nopen(f'run-{{os.getpid()}}', 'w')\ntime.sleep({sleep_s})\n"
                            "print('{\"action\": {\"type\": \"wait\"}}')\n")  # fmt: skip
    return shlex.quote(f"{sys.executable} agent.py")


def agents(shell: Shell) -> list[int]:
    return [int(path.name.removeprefix("run-")) for path in shell.folder.glob("run-*")]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("by", BOTH)
def test_a_canary_that_waits_for_its_next_round_ends_with_0(shell: Shell, by: signal.Signals) -> None:
    shell.decide(refund())
    with started(shell, f"lumyn watch canary --command {agent(shell, 0)} --every 1h") as process:
        read_until(process, "round 0")
        code, stdout, _ = stopped(process, by)
    assert code == 0
    assert "1 of 1" in stdout, "the rounds so far are shown"


@pytest.mark.parametrize("by", BOTH)
def test_a_canary_that_is_stopped_in_a_round_says_that_it_is_not_kept(shell: Shell, by: signal.Signals) -> None:
    shell.decide(refund())
    with started(shell, f"lumyn watch canary --command {agent(shell, 50)} --every 1h") as process:
        until(lambda: bool(agents(shell)), process)
        code, _, stderr = stopped(process, by)
    assert code == 0, stderr
    assert "the round that was under way is not kept" in stderr
    assert not any(map(runs, agents(shell))), "nothing of the agent runs any more"
    assert shell.json("lumyn watch canary --history --json") == []


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("command", ["backfill", "watch canary", "rate --decision LAST"])
def test_a_command_that_asks_an_agent_leaves_none_behind(shell: Shell, command: str, by: signal.Signals) -> None:
    last = shell.decide(refund())["decision_id"]
    with started(shell, f"lumyn {command.replace('LAST', last)} --command {agent(shell, 50)}") as process:
        until(lambda: bool(agents(shell)), process)
        code, stdout, stderr = stopped(process, by)
    assert code == CUT_SHORT[by], stderr
    assert stdout == ""
    assert [line for line in stderr.splitlines() if line.startswith("lumyn: ")] == stderr.splitlines()[-1:], stderr
    assert not any(map(runs, agents(shell)))


@pytest.mark.parametrize("by", [KeyboardInterrupt, Terminated])
def test_a_story_that_is_cut_short_is_no_fault_of_the_story(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, by: type[KeyboardInterrupt]
) -> None:
    def cut(*_: object) -> None:
        raise by

    monkeypatch.setattr("lumyn.wiring.existing_home", cut)
    with pytest.raises(by):
        telling.command("list")


@pytest.mark.parametrize("by", BOTH)
def test_a_demo_that_is_cut_short_is_one_line(shell: Shell, by: signal.Signals) -> None:
    with started(shell, "lumyn demo") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("$ lumyn"):
                break
        code, _, stderr = stopped(process, by)
    assert code == CUT_SHORT[by], stderr
    assert stderr.splitlines()[-1].startswith("lumyn: "), stderr


def test_a_signal_that_was_to_be_ignored_still_is(shell: Shell) -> None:
    """`nohup` and its like."""
    shell.decide(refund())
    shell.write("ignoring.sh", f"trap '' TERM\nexec lumyn backfill --command {agent(shell, 1)}\n")
    with started(shell, "bash ignoring.sh") as process:
        until(lambda: bool(agents(shell)), process)
        os.kill(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode == 0
