"""`lumyn dev`: the API over the embedded home, on loopback, and a worker that decides what was submitted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.wiring import Home

_CHECKPOINT_S = 10.0


def dev(
    policy: Path | None = typer.Option(None, "--policy", help="The policy file; read again when the server restarts."),
    port: int = typer.Option(8700, "--port", min=0, max=65535, help="The port on 127.0.0.1; 0 picks a free one."),
) -> None:
    """Run everything embedded: HTTP API on 127.0.0.1, deciding in this process. For development: no keys.

    \b
    Example: lumyn dev --policy policy.yml --port 8700
    """
    import socket
    import threading

    import uvicorn

    from lumyn.api.app import make_app
    from lumyn.config import LumynConfig
    from lumyn.wiring import open_home
    from schemas.errors import StorageUnavailable

    config = LumynConfig(policy_path=policy)
    home = open_home(config)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        raise StorageUnavailable(
            f"port {port} can't be had: {(error.strerror or str(error)).lower()}", help="`--port 0` picks a free one"
        ) from None
    stop = threading.Event()
    worker = threading.Thread(target=_drain, args=(home, stop), daemon=True)
    worker.start()
    say(f"lumyn dev on http://127.0.0.1:{listener.getsockname()[1]} (docs at /docs), home {home.path}")
    server = uvicorn.Server(uvicorn.Config(make_app(config), log_level="warning", access_log=False))
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        worker.join(5)


def _drain(home: Home, stop: object) -> None:
    """Decide what `submit` and `--no-wait` appended, a few times a second; sign a checkpoint over what is new."""
    import threading
    import time

    from lumyn.checkpointing import home_checkpointer
    from schemas.errors import LumynError

    assert isinstance(stop, threading.Event)
    due = time.monotonic() + _CHECKPOINT_S
    while not stop.wait(0.2):
        try:
            while home.agent.drain():
                pass
            if time.monotonic() >= due:
                due = time.monotonic() + _CHECKPOINT_S
                home_checkpointer(home).run()
        except LumynError as error:
            say(f"lumyn: {error}")
            stop.wait(2)
