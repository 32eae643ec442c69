"""The `lumyn` command: runs the CLI and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 different, 2 usage or bad input, 3 integrity, 4 unreachable."""
    debug = os.environ.get("LUMYN_DEBUG") == "1"
    code = 0
    try:
        from lumyn.cli.app import run

        code = run()
        sys.stdout.flush()
    except KeyboardInterrupt:
        if debug:
            raise
        _say("lumyn: interrupted; what was committed before stays, nothing is half written")
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except Exception as error:
        if debug:
            raise
        code = _report(error)
    sys.exit(code)


def _report(error: Exception) -> int:
    from schemas.errors import LumynError

    if isinstance(error, LumynError):
        _say(_as_json(error) if "--json" in sys.argv else f"lumyn: {error}")
        return error.exit_code
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        _say(f"lumyn: {where}{(error.strerror or str(error)).lower()}")
        return 4
    _say(f"lumyn: internal error: {type(error).__name__}: {error}\n  help: LUMYN_DEBUG=1 shows where; please report it")
    return 70


def _as_json(error: object) -> str:
    import orjson

    return orjson.dumps({"error": error.as_dict()}).decode()  # type: ignore[attr-defined]


def _say(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    main()
