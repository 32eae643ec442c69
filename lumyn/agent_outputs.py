"""An agent's new outputs on recorded requests: from a file, of a command, or from a URL. None of them is trusted."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from lumyn import agent_runs
from schemas.canonical import decode, encode
from schemas.digests import digest
from schemas.errors import BadInput, BadJson, LumynError, NotFound, StorageUnavailable, UsageError
from streams.backfill.actions import MOST_BYTES, action_in, action_of


class NoOutput(BadInput):
    """There is no output that could be compared; `kind` is what it is counted as."""

    code = "no_output"

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


Action = dict[str, Any] | None


class Agent(Protocol):
    """What says what the agent would do now. `ask` may be called from several threads."""

    def ask(self, decision_id: str, request: dict[str, Any]) -> Action:
        """The action. Raises `NoOutput`."""
        ...

    def stop(self) -> None:
        """End what runs: nothing more is wanted."""
        ...


class OutputsFile:
    """`{"decision_id": ..., "output": ...}` a line. Raises `NotFound`, `BadInput` with the line."""

    def __init__(self, path: Path) -> None:
        self._found: dict[str, bytes] = {}
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound("no such file of outputs", where=str(path)) from None
        except OSError as error:
            raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None
        self.digest = digest(data)
        for number, line in enumerate(data.split(b"\n"), start=1):
            if line.strip():
                self._take(line, f"{path}:{number}")

    def _take(self, line: bytes, where: str) -> None:
        one = decode(line, where=where, limit=2 * MOST_BYTES)
        if not isinstance(one, dict) or not isinstance(one.get("decision_id"), str) or "output" not in one:
            raise BadJson("a line is an object with `decision_id` and `output`", where=where)
        if one["decision_id"] in self._found:
            raise BadInput(f"decision {one['decision_id']} has two outputs", where=where)
        self._found[one["decision_id"]] = encode(one["output"])

    def __contains__(self, decision_id: str) -> bool:
        return decision_id in self._found

    def __len__(self) -> int:
        return len(self._found)

    def ask(self, decision_id: str, request: dict[str, Any]) -> Action:  # noqa: ARG002
        output = self._found.get(decision_id)
        if output is None:
            raise NoOutput("no output", "the file has no output for it")
        try:
            return action_of(decode(output, limit=2 * MOST_BYTES), "output")
        except LumynError as error:
            raise NoOutput("not an action", error.message) from None

    def stop(self) -> None: ...


class Run:
    """A program or a service that is run once a request (`lumyn/agent_runs.py`); its answer is the action."""

    def __init__(self, agent: agent_runs.Agent, what: str, timeout_s: float) -> None:
        self._agent, self._what, self._timeout_s = agent, what, timeout_s
        self._stopped = threading.Event()

    def ask(self, decision_id: str, request: dict[str, Any]) -> Action:  # noqa: ARG002
        run = self._agent(encode(request) + b"\n", self._stopped)
        match run.status:
            case "timeout" if self._stopped.is_set():
                raise NoOutput("stopped", "the backfill was stopped")
            case "timeout":
                raise NoOutput("timed out", f"no output within {self._timeout_s:g} s")
            case "flooded":
                raise NoOutput("too long", f"the output is longer than {MOST_BYTES} bytes")
            case "unreachable":
                raise NoOutput("unreachable", f"{self._what} can't be reached: {run.said}")
        if run.exit_code:
            raise NoOutput("failed", f"{self._what} ended with {run.exit_code}")
        try:
            return action_in(run.output, "output")
        except LumynError as error:
            raise NoOutput("not an action", error.message) from None

    def stop(self) -> None:
        self._stopped.set()


def command(line: str, timeout_s: float) -> Run:
    """A program: the request on its stdin, the action on its stdout. No shell reads the line. Raises `UsageError`."""
    return Run(agent_runs.command_agent(line, timeout_s=timeout_s, most=MOST_BYTES), "the command", timeout_s)


def service(url: str, timeout_s: float) -> Run:
    """A service: the request is posted as JSON, its answer is the action. Certificates are checked.

    Raises `UsageError`.
    """
    parts = urlsplit(url)
    here = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and here):
        raise UsageError("`--url` must be https", help="http is for this machine only: requests hold personal data")
    if parts.username or parts.password:
        raise UsageError("`--url` must not hold a password: it is kept with the job")
    return Run(agent_runs.url_agent(url, timeout_s=timeout_s, most=MOST_BYTES), "the service", timeout_s)


def shown_name(how: dict[str, Any]) -> str:
    """What the ledger calls an agent: a command line's arguments and a URL's query may hold secrets."""
    if how["kind"] == "command":
        return Path((shlex.split(how["name"]) or [""])[0]).name
    if how["kind"] == "url":
        parts = urlsplit(how["name"])
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
    return str(how["name"])


def agent_of(how: dict[str, Any]) -> tuple[Agent, str]:
    """The agent that a backfill asks, and the digest of what it is."""
    makers: dict[str, Callable[[], Agent]] = {
        "command": lambda: command(how["name"], how["timeout_s"]),
        "url": lambda: service(how["name"], how["timeout_s"]),
    }
    if how["kind"] == "outputs":
        file = OutputsFile(Path(how["name"]))
        return file, file.digest
    return makers[how["kind"]](), digest(how["name"].encode())
