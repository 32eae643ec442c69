"""A worker's small HTTP server: `/metrics`, and `/healthz` and `/readyz` for whoever supervises it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from schemas.errors import StorageUnavailable
from streams.observe import Observer

_PLAIN = "text/plain; charset=utf-8"


class Readiness(Observer):
    """Ready: every part that the worker has named stands, and there is at least one."""

    def __init__(self) -> None:
        self._parts: dict[str, bool] = {}
        self._changing = threading.Lock()

    def ready(self, part: str, stands: bool) -> None:
        with self._changing:
            self._parts[part] = stands

    @property
    def parts(self) -> Mapping[str, bool]:
        """Each part that was named, and whether it stands."""
        with self._changing:
            return dict(self._parts)


class MetricsServer:
    """Serves from a thread of its own, which does not keep the process alive."""

    def __init__(
        self, host: str, port: int, exposition: Callable[[str], tuple[bytes, str]], readiness: Readiness
    ) -> None:
        """`exposition` gives the metrics for an `Accept` header, with their content type; port 0: any free one.

        Raises `StorageUnavailable` when the port can't be had.
        """
        try:
            self._server = _Server((host, port), exposition, readiness)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise StorageUnavailable(
                f"metrics can't be served: {why.lower()}",
                where=f"{host}:{port}",
                help="another `--metrics-port`; each worker of a machine needs its own",
            ) from None
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Stop serving and let go of the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], exposition: Callable[[str], tuple[bytes, str]], readiness: Readiness
    ) -> None:
        super().__init__(address, _Handler)
        self.exposition = exposition
        self.readiness = readiness

    def server_bind(self) -> None:
        """Without the name look-up of the HTTP server's own, which waits where there is no name service."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Someone who went away while he was answered is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 10
    """Seconds for a caller who says nothing."""
    server_version = "lumyn"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            body, content_type = self.server.exposition(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, body, content_type)
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, b"ok\n", _PLAIN)
        elif path == "/readyz":
            self._ready()
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"/metrics, /healthz, /readyz\n", _PLAIN)

    do_HEAD = do_GET

    def _ready(self) -> None:
        parts = self.server.readiness.parts
        stands = bool(parts) and all(parts.values())
        text = "".join(f"{name}: {'ok' if ok else 'not yet'}\n" for name, ok in sorted(parts.items()))
        self._answer(HTTPStatus.OK if stands else HTTPStatus.SERVICE_UNAVAILABLE, text.encode(), _PLAIN)

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes are not worth lines."""
