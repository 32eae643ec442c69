"""A real server: slow clients are sent away, large bodies are not read, and others are served meanwhile."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import uvicorn
from conftest_e2e import refund
from inside import Inside
from uvicorn.protocols.http.h11_impl import H11Protocol

from lumyn import LumynConfig, sdk
from lumyn.api import patience
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for

pytest_plugins = ("inside_plugin",)
CONFIG = LumynConfig(policy_path="policy.yml")
POST = b"POST /v1/decisions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(params=["as installed", "h11"])
def port(inside: Inside, request: pytest.FixtureRequest) -> Iterator[int]:
    kind = patience.protocol(request_s=0.6, answer_s=0.6)
    if request.param == "h11":
        kind = type("Plain", (patience._Patience, H11Protocol), {"request_s": 0.6, "answer_s": 0.6})
    app = make_app(CONFIG, guard_for(CONFIG, dev=True))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", http=kind, ws="none", server_header=False))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def rest(connection: socket.socket) -> bytes:
    """All that the server says until it closes."""
    said = b""
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            said += part
    return said


def ask(connection: socket.socket, body: bytes) -> bytes:
    connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return connection.recv(65536)


def test_who_does_not_send_his_request_is_sent_away(port: int) -> None:
    body = json.dumps(refund(1)).encode()
    silent, slow_head, slow_body, second, good = (connect(port) for _ in range(5))
    slow_head.sendall(POST)
    slow_body.sendall(POST + b"Content-Length: 50\r\n\r\n{")
    assert b"200 OK" in ask(second, body)
    second.sendall(b"GET /heal")  # a later request on a kept connection
    assert b"200 OK" in ask(good, body)
    for connection in (silent, slow_head, slow_body, second):
        said = rest(connection)
        assert said == b"" or said.startswith((b"HTTP/1.1 408", b"HTTP/1.1 400")), said
    assert b"200 OK" in ask(good, body), "who is at rest between two requests stays"
    for connection in (silent, slow_head, slow_body, second, good):
        connection.close()


def test_a_large_body_is_refused_before_it_is_sent(port: int) -> None:
    for head in (b"Content-Length: 104857600\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with connect(port) as connection:
            connection.sendall(POST + head)
            sent = 0
            with suppress(ConnectionError, TimeoutError):
                while sent < 100 << 20:
                    chunk = b"x" * 65536
                    connection.sendall(b"10000\r\n" + chunk + b"\r\n" if b"chunked" in head else chunk)
                    sent += len(chunk)
            assert sent < 20 << 20
            said = rest(connection)
            assert said == b"" or said.startswith(b"HTTP/1.1 413"), said[:200]
    with connect(port) as connection:  # asked before anything is sent, it says so
        connection.sendall(POST + b"Content-Length: 104857600\r\nExpect: 100-continue\r\n\r\n")
        said = rest(connection)
        assert said.startswith(b"HTTP/1.1 413") and b'"code":"too_large"' in said


def test_who_does_not_read_his_answer_is_sent_away(port: int) -> None:
    many = [refund(1, evidence={"text": "x" * 100_000, "n": number}) for number in range(140)]
    sdk.decide_many(many, CONFIG)
    with socket.socket() as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", port))
        lazy.sendall(b"GET /v1/decisions?expand=record&limit=200 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        said = lazy.recv(4096)
        length = int(said.partition(b"content-length: ")[2].partition(b"\r")[0])
        time.sleep(1.5)
        lazy.settimeout(10)
        assert length > 14_000_000 and len(rest(lazy)) < length - 1_000_000
