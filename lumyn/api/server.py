"""`lumyn serve`: the app behind a socket; deciding of what others submitted, and upkeep, meanwhile."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn

from lumyn.access.http import is_loopback_name
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for
from lumyn.api.patience import protocol
from lumyn.api.upkeep import keep_checkpoints, keep_index
from lumyn.config import LumynConfig
from lumyn.home import Home
from lumyn.policy_file import load_policy_file
from lumyn.wiring import existing_home, open_home
from schemas.errors import BadConfig, LumynError, StorageUnavailable, UsageError

_MOST_CONNECTIONS: Final = 2000
_BACKLOG: Final = 1024
Says = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and with which certificate."""

    host: str = "127.0.0.1"
    port: int = 8700
    certificate: Path | None = None
    key: Path | None = None

    @property
    def url(self) -> str:
        """The address for a client."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


def serve(config: LumynConfig, address: Address, say: Says, *, dev: bool = False) -> None:
    """Serve until SIGTERM or Ctrl-C. With `dev` no key is needed, and only loopback is bound.

    Raises `UsageError` for `dev` on another address, `StorageUnavailable` when the port can't be had.
    """
    if dev and not is_loopback_name(address.host):
        raise UsageError(
            f"--dev serves without keys, so it binds to loopback only, not to `{address.host}`",
            help="leave `--dev` out and make keys: `lumyn keys create --tenant T --role R`",
        )
    _check_certificate(address)
    home = open_home(config)
    guard = guard_for(config, dev=dev)
    listener = _bound(address, dev=dev)
    at = Address(address.host, listener.getsockname()[1], address.certificate, address.key)
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for name in (signal.SIGTERM, signal.SIGINT):  # before it is said that it serves: from then on it may be stopped
            signal.signal(name, _ended)
    beside = [
        threading.Thread(target=work, args=(of, stop, say), daemon=True)
        for work, of in ((_drain, home), (keep_checkpoints, home), (keep_index, existing_home(config)))
    ]
    for thread in beside:
        thread.start()
    who = "for whoever is on this machine, without keys" if dev else "for API keys"
    say(f"lumyn on {at.url} {who} (docs at /console/api), home {home.path}")
    if not dev and not guard.store.all_keys():
        say("there are no API keys yet, so nobody can come in: `lumyn keys create --tenant T --role decide,read`")
    tell_what_decides(home, say)
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(config, guard),
            log_level="warning",
            access_log=False,
            server_header=False,
            http=protocol(),
            ws="none",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=10,
            ssl_certfile=address.certificate,
            ssl_keyfile=address.key,
        )
    )
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        for thread in beside:
            thread.join(5)


def _ended(_number: int, _frame: FrameType | None) -> None:
    """A stop as it was asked for. uvicorn stops in good order, and then sends the signal once more."""
    raise SystemExit(0)


def tell_what_decides(home: Home, say: Says) -> None:
    """A file that does not decide, since another policy was activated, is no surprise later."""
    file, active = home.settings.policy_path, home.agent.control().active_policy(None)
    if file is None or active is None or home.settings.policy_given:
        return
    if load_policy_file(file).policy_hash != active.hash:
        say(
            f"`{active.name}@{active.version}` is active and decides, not the file `{file}`: "
            f"`lumyn policy publish {file}` and `lumyn policy activate` change that"
        )


def _check_certificate(address: Address) -> None:
    if (address.certificate is None) != (address.key is None):
        raise UsageError("--tls-cert and --tls-key belong together")
    for path in (address.certificate, address.key):
        if path is not None and not path.is_file():
            raise BadConfig("no such file", where=str(path))
    if address.certificate is not None and address.key is not None:
        try:  # with a password of its own, so that nobody is asked for one
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(address.certificate, address.key, "")
        except (OSError, ValueError):
            raise BadConfig(
                f"no certificate with the key `{address.key}`",
                where=str(address.certificate),
                help="both in PEM, of one pair, the key without a password",
            ) from None


def _bound(address: Address, *, dev: bool) -> socket.socket:
    """A listening socket. Where a name stands for several addresses, the first; in `dev` it must be loopback's."""
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, place = found[0]
        if dev and not is_loopback_name(str(place[0])):
            raise UsageError(f"`{address.host}` is {place[0]} here, which is not loopback", help="use 127.0.0.1")
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise StorageUnavailable(
            f"{address.host} port {address.port} can't be had: {(error.strerror or str(error)).lower()}",
            help="`--port 0` picks a free one",
        ) from None
    return listener


def _drain(home: Home, stop: threading.Event, say: Says) -> None:
    """Decide what `submit` and `--no-wait` appended, a few times a second. Over Kafka that is the workers' business."""
    while not stop.wait(0.2):
        try:
            while home.agent.drain():
                pass
        except LumynError as error:
            say(f"lumyn: {error}")
            stop.wait(2)
