"""Running an agent's command, or asking its URL, for rates and for backfills: bounded, and leaving nothing behind.

What an agent does is not to be trusted: it may hang, fail, flood or fork. A run has a time limit and an output limit;
what breaks them is killed with all that it started, and counted as what it was. No shell is involved.
"""

from __future__ import annotations

import http.client
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal
from urllib.parse import urlsplit

from lumyn.leftovers import NAME as MARK
from lumyn.leftovers import kill_marked, new_mark
from schemas.errors import UsageError

Status = Literal["ended", "timeout", "flooded", "unreachable"]
MAX_OUTPUT = 1024 * 1024
"""Bytes that a run may write to each of stdout and stderr, or answer by HTTP."""
TIMEOUT_S = 60.0
_TAIL = 400
_LOOK_S = 0.05
_READ = 65536


@dataclass(frozen=True, slots=True)
class AgentRun:
    """What became of one run. `ended`: by itself, with an exit code (HTTP: 0 for a 2xx answer, else its status)."""

    status: Status
    exit_code: int | None
    output: bytes
    said: str
    """The end of what it wrote to stderr, or why it could not be reached."""
    seconds: float


Agent = Callable[[bytes, threading.Event], AgentRun]
"""Runs the agent on an input. Once the event is set, it is stopped and its answer counts for nothing."""


def command_agent(command: str, *, timeout_s: float = TIMEOUT_S, most: int = MAX_OUTPUT) -> Agent:
    """An agent that is a command: the input on stdin, the answer on stdout. Raises `UsageError` for what is none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"`--command` can't be read: {str(error).lower()}", help="quote it as in a shell") from None
    if not words or shutil.which(words[0]) is None:
        named = words[0] if words else command
        raise UsageError(
            f"`--command`: there is no program `{named}` that can be run",
            help="a program and its arguments; there is no shell, so no pipes: put those into a script",
        )
    environment = clean_environment(os.environ)
    return lambda given, stop: _run(words, given, environment, timeout_s, most, stop)


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What an agent gets to see: all but Lumyn's own settings, which name its log and hold its secrets."""
    return {name: value for name, value in environment.items() if not name.startswith("LUMYN_")}


def url_agent(
    url: str, *, timeout_s: float = TIMEOUT_S, most: int = MAX_OUTPUT, headers: Mapping[str, str] | None = None
) -> Agent:
    """An agent behind HTTP: the input is POSTed as JSON, the answer is the body. Redirects are not followed.

    Raises `UsageError`.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise UsageError(f"`--url`: the port of `{url}` is no port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"`{url}` is not a URL to ask", help="such as http://127.0.0.1:8000/agent")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname
    return lambda given, stop: _ask(
        kind(host, port, timeout=timeout_s), path, given, headers or {}, timeout_s, most, stop
    )


def runs(agent: Agent, inputs: Iterable[bytes], *, parallel: int) -> Iterator[AgentRun]:
    """A run for each input, `parallel` at once, in the order of the inputs.

    In the order of the inputs, not of their ends: a sample that is stopped early must not prefer quick answers. When
    the caller stops asking, whatever still runs is killed.
    """
    stop = threading.Event()
    waiting: deque[Future[AgentRun]] = deque()
    pool = ThreadPoolExecutor(parallel, thread_name_prefix="agent")
    try:
        for given in inputs:
            waiting.append(pool.submit(agent, given, stop))
            if len(waiting) == parallel:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _run(
    words: Sequence[str],
    given: bytes,
    environment: Mapping[str, str],
    timeout_s: float,
    most: int,
    stop: threading.Event,
) -> AgentRun:
    start, mark = time.monotonic(), new_mark()
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**environment, MARK: mark}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return AgentRun("unreachable", None, b"", (error.strerror or str(error)).lower(), time.monotonic() - start)
    try:
        status, out, err = _talk(process, given, start + timeout_s, most, stop)
    finally:
        _kill_group(process)
        kill_marked(mark)
    return AgentRun(status, process.returncode, bytes(out), _tail(bytes(err)), time.monotonic() - start)


def _talk(
    process: subprocess.Popen[bytes], given: bytes, deadline: float, most: int, stop: threading.Event
) -> tuple[Status, bytearray, bytearray]:
    """Write the input and read both outputs, until the process itself ends or breaks a limit.

    A child that the process leaves behind may hold the pipes open: what counts is the end of the process.
    """
    assert process.stdin and process.stdout and process.stderr
    out, err = bytearray(), bytearray()
    rest = memoryview(given)
    with selectors.DefaultSelector() as selector:
        for stream, buffer in ((process.stdout, out), (process.stderr, err)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, selectors.EVENT_READ, buffer)
        os.set_blocking(process.stdin.fileno(), False)
        selector.register(process.stdin, selectors.EVENT_WRITE)
        while True:
            ended = _has_ended(process)
            for key, _ in selector.select(0 if ended else _LOOK_S):
                if key.fileobj is process.stdin:
                    rest = _written(process.stdin, rest)
                    if not rest:
                        selector.unregister(process.stdin)
                        with suppress(OSError):
                            process.stdin.close()
                elif _read(key.fd, key.data) == 0:
                    selector.unregister(key.fileobj)
            if len(out) > most or len(err) > most:
                return "flooded", out[:most], err
            if ended:
                for stream, buffer in ((process.stdout, out), (process.stderr, err)):
                    while len(buffer) <= most and _read(stream.fileno(), buffer):
                        pass
                return ("flooded", out[:most], err) if max(len(out), len(err)) > most else ("ended", out, err)
            if stop.is_set() or time.monotonic() >= deadline:
                return "timeout", out, err
            if not selector.get_map():
                time.sleep(_LOOK_S)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended, without taking its exit: until that is taken, its group's number is nobody else's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the run's process group, whether it ended or not, and take its exit code."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def _written(stream: IO[bytes], rest: memoryview) -> memoryview:
    """What is left after writing some; an agent that does not read its input is not at fault."""
    try:
        return rest[os.write(stream.fileno(), rest[:_READ]) :]
    except BlockingIOError:
        return rest
    except OSError:
        return rest[len(rest) :]


def _read(descriptor: int, buffer: bytearray) -> int | None:
    """How much was read: 0 at the end, None when there is nothing now."""
    try:
        data = os.read(descriptor, _READ)
    except BlockingIOError:
        return None
    buffer += data
    return len(data)


def _ask(
    connection: http.client.HTTPConnection,
    path: str,
    given: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    most: int,
    stop: threading.Event,
) -> AgentRun:
    """One POST. A watch shuts the connection at the limit: a server that drips bytes can't outlast it."""
    start = time.monotonic()
    late = threading.Event()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if stop.is_set() or time.monotonic() - start >= timeout_s:
                late.set()
                sock = connection.sock
                if sock is not None:
                    with suppress(OSError):
                        sock.shutdown(socket.SHUT_RDWR)
                    return

    threading.Thread(target=watch, daemon=True).start()
    try:
        accepts = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", path, given, {**accepts, **headers})
        response = connection.getresponse()
        data = response.read(most + 1)
    except (OSError, http.client.HTTPException) as error:
        status: Status = "timeout" if late.is_set() or isinstance(error, TimeoutError) else "unreachable"
        said = str(getattr(error, "strerror", None) or error or type(error).__name__).lower()
        return AgentRun(status, None, b"", said[:_TAIL], time.monotonic() - start)
    finally:
        done.set()
        connection.close()
    seconds = time.monotonic() - start
    if late.is_set():
        return AgentRun("timeout", None, data[:most], "", seconds)
    if len(data) > most:
        return AgentRun("flooded", None, data[:most], "", seconds)
    return AgentRun("ended", 0 if 200 <= response.status < 300 else response.status, data, "", seconds)


def _tail(data: bytes) -> str:
    return data[-_TAIL:].decode("utf-8", "replace").strip()
