"""The `lumyn` command: runs the CLI and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM. What Ctrl-C would clean up is cleaned up: processes of an agent, temporary folders."""


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 different, 2 usage or bad input, 3 integrity, 4 unreachable.

    What is broken off by Ctrl-C ends with 130, and by SIGTERM with 143; what runs until it is stopped, with 0.
    """
    # Products are small, and the other cores have processes: threads of the linear algebra would only spin beside them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    debug = os.environ.get("LUMYN_DEBUG") == "1"
    code = 0
    stopping = sys.argv[1:3] == ["kill-switch", "on"]
    if stopping:
        _go_first()
    try:
        with _terminable():
            if not (stopping and _stopped()):
                from lumyn.cli.app import run

                code = run()
        sys.stdout.flush()  # what can't be written is an error, not silence
    except KeyboardInterrupt as error:
        if debug:
            raise
        _say("lumyn: interrupted; what was committed before stays, nothing is half written")
        code = 143 if isinstance(error, Terminated) else 130
    except BrokenPipeError:
        code = 141
    except Exception as error:
        if debug:
            raise
        code = _report(error)
    _give_up_output()
    sys.exit(code)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated`, unless it was to be ignored. Processes that are forked off die of it, as ever."""
    here = os.getpid()

    def end(number: int, _frame: FrameType | None) -> None:
        if os.getpid() == here:
            raise Terminated
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:  # a command that ends may have seen to it that it is left alone
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stopped() -> bool:
    from lumyn.cli.stop_now import stop_now

    return stop_now(sys.argv[3:])


def _go_first() -> None:
    """Stopping actions goes before what else the machine does, where the system lets us say so."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)


def _give_up_output() -> None:
    """What is still buffered for a reader that is gone is dropped, so that Python's own exit has nothing to say."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report(error: Exception) -> int:
    from lumyn.cli.output import error_json, error_text, one_line
    from schemas.errors import LumynError

    if isinstance(error, LumynError):
        _say(error_json(error) if "--json" in sys.argv else f"lumyn: {error_text(error)}")
        return error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        _say(f"lumyn: {one_line(where + (error.strerror or str(error)).lower())}")
        return 4
    _say(
        f"lumyn: internal error: {one_line(f'{type(error).__name__}: {error}')}\n"
        "  help: LUMYN_DEBUG=1 shows where; please report it"
    )
    return 70


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    main()
