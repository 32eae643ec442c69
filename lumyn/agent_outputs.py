"""An agent's new outputs on recorded requests: from a file, of a command, or from a URL. None of them is trusted."""

from __future__ import annotations

import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from schemas.canonical import decode, encode
from schemas.digests import digest
from schemas.errors import BadInput, BadJson, LumynError, NotFound, StorageUnavailable, UsageError
from streams.backfill.actions import MOST_BYTES, action_in, action_of

_LOOK_S = 0.1
_CHUNK = 64 * 1024
_SECRETS = ("LUMYN_MASTER_KEY", "LUMYN_MASTER_KEY_FILE")


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


def _checked(output: bytes, what: str) -> Action:
    try:
        return action_in(output, what)
    except LumynError as error:
        raise NoOutput("not an action", error.message) from None


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


class Command:
    """A program: the request on its stdin, the action on its stdout. No shell reads the command line.

    It is run with its own process group, of which nothing is left when it has answered or its time is over.
    """

    def __init__(self, line: str, timeout_s: float) -> None:
        try:
            self._arguments = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"`--command` can't be read: {error}") from None
        if not self._arguments:
            raise UsageError("`--command` is empty")
        self._timeout_s = timeout_s
        self._stopped = threading.Event()
        self._environment = {name: value for name, value in os.environ.items() if name not in _SECRETS}

    def ask(self, decision_id: str, request: dict[str, Any]) -> Action:  # noqa: ARG002
        try:
            process = subprocess.Popen(
                self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True, env=self._environment,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise NoOutput("not started", f"the command can't be started: {error}") from None
        try:
            output = self._talk(process, encode(request) + b"\n")
        finally:
            _end(process)
        if process.returncode:
            raise NoOutput("failed", f"the command ended with {process.returncode}")
        return _checked(output, "output")

    def _talk(self, process: subprocess.Popen[bytes], data: bytes) -> bytes:
        """Write and read at once, until the output ends, grows too long, or time is over."""
        assert process.stdin is not None and process.stdout is not None
        until, output, left = time.monotonic() + self._timeout_s, bytearray(), memoryview(data)
        for pipe in (process.stdin, process.stdout):
            os.set_blocking(pipe.fileno(), False)
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdin, selectors.EVENT_WRITE)
            ready.register(process.stdout, selectors.EVENT_READ)
            while process.stdout in ready.get_map():
                self._check(until)
                for key, _ in ready.select(_LOOK_S):
                    if key.fileobj is process.stdin:
                        left = _written(process.stdin, left)
                        if not left:
                            ready.unregister(process.stdin)
                            with suppress(OSError):
                                process.stdin.close()
                        continue
                    chunk = os.read(process.stdout.fileno(), _CHUNK)
                    output += chunk
                    if not chunk:
                        ready.unregister(process.stdout)
                    if len(output) > MOST_BYTES:
                        raise NoOutput("too long", f"the output is longer than {MOST_BYTES} bytes")
        while process.poll() is None:
            self._check(until)
            time.sleep(0.005)
        return bytes(output)

    def _check(self, until: float) -> None:
        if self._stopped.is_set():
            raise NoOutput("stopped", "the backfill was stopped")
        if time.monotonic() > until:
            raise NoOutput("timed out", f"no output within {self._timeout_s:g} s")

    def stop(self) -> None:
        self._stopped.set()


def _written(pipe: IO[bytes], left: memoryview) -> memoryview:
    """What is left to write; nothing, when the program does not want it."""
    try:
        return left[os.write(pipe.fileno(), left[:_CHUNK]) :]
    except BlockingIOError:
        return left
    except OSError:
        return left[:0]


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


class Url:
    """A service: the request is posted as JSON, its answer is the action. Certificates are checked."""

    def __init__(self, url: str, timeout_s: float) -> None:
        import httpx

        parts = urlsplit(url)
        here = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme != "https" and not (parts.scheme == "http" and here):
            raise UsageError("`--url` must be https", help="http is for this machine only: requests hold personal data")
        if parts.username or parts.password:
            raise UsageError("`--url` must not hold a password: it is kept with the job")
        self._url, self._timeout_s = url, timeout_s
        self._client = httpx.Client(timeout=timeout_s, follow_redirects=False)
        self._stopped = threading.Event()

    def ask(self, decision_id: str, request: dict[str, Any]) -> Action:  # noqa: ARG002
        import httpx

        until, output = time.monotonic() + self._timeout_s, bytearray()
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        try:
            with self._client.stream("POST", self._url, content=encode(request), headers=headers) as answer:
                if answer.status_code != 200:
                    raise NoOutput("failed", f"the service answered {answer.status_code}")
                for chunk in answer.iter_raw():  # as it comes: what drips is timed, what is packed is not unpacked
                    output += chunk
                    if len(output) > MOST_BYTES:
                        raise NoOutput("too long", f"the output is longer than {MOST_BYTES} bytes")
                    if time.monotonic() > until:
                        raise httpx.ReadTimeout("")
                    if self._stopped.is_set():
                        raise NoOutput("stopped", "the backfill was stopped")
        except httpx.TimeoutException:
            raise NoOutput("timed out", f"no output within {self._timeout_s:g} s") from None
        except httpx.HTTPError as error:
            raise NoOutput("unreachable", f"the service can't be reached: {type(error).__name__}") from None
        return _checked(bytes(output), "output")

    def stop(self) -> None:
        self._stopped.set()


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
        "command": lambda: Command(how["name"], how["timeout_s"]),
        "url": lambda: Url(how["name"], how["timeout_s"]),
    }
    if how["kind"] == "outputs":
        file = OutputsFile(Path(how["name"]))
        return file, file.digest
    return makers[how["kind"]](), digest(how["name"].encode())
