"""What an agent's run leaves in the background: found by a mark in its environment, and killed.

A daemon leaves its process group and its session, and has process 1 for a parent; the environment that it was started
with stays. What clears that too is not found: for such agents a container is the answer.
"""

from __future__ import annotations

import os
import secrets
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

NAME: Final = "AGENT_RUN"
"""The variable that marks whatever descends from one run."""
_PROCESSES: Final = Path("/proc")
_ROUNDS: Final = 100


def new_mark() -> str:
    """A mark of one run, that nobody else has."""
    return secrets.token_hex(16)


def kill_marked(mark: str) -> None:
    """Kill all that carries a mark, and what that starts meanwhile; nothing is found where there is no `/proc`."""
    entry = f"{NAME}={mark}".encode()
    for _ in range(_ROUNDS):
        if not sum(_killed(pid, entry) for pid in _pids() if _carries(pid, entry)):
            return


def _pids() -> list[int]:
    try:
        return [int(path.name) for path in _PROCESSES.iterdir() if path.name.isdecimal()]
    except OSError:
        return []


def _carries(pid: int, entry: bytes) -> bool:
    """Whether a process of this user was started with an entry in its environment."""
    try:
        return entry in (_PROCESSES / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _killed(pid: int, entry: bytes) -> bool:
    """Kill the process that is held while it is looked at again: its number may be another's by now."""
    with suppress(OSError):
        held = os.pidfd_open(pid)
        try:
            if _carries(pid, entry):
                signal.pidfd_send_signal(held, signal.SIGKILL)
                return True
        finally:
            os.close(held)
    return False
