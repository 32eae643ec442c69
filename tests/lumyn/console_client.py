"""A browser at the console without a browser: it logs in, and sends forms with the session's token."""

from __future__ import annotations

import re
from typing import Any

from console_world import PAYLOADS, World
from starlette.testclient import TestClient

from lumyn.access.guard import Guard
from lumyn.access.principal import roles_of
from lumyn.api.app import make_app
from lumyn.api.homes import guard_for

AT = "http://127.0.0.1:8700"


def key_of(guard: Guard, role: str, tenant: str = "default") -> str:
    return guard.store.create(tenant, roles_of([role]), actor="test", name=f"{role} {PAYLOADS[0]}")[1]


def client(world: World, guard: Guard | None = None, key: str | None = None) -> TestClient:
    """A browser at the console; with a key it has logged in."""
    app = make_app(world.config, guard or guard_for(world.config, dev=True))
    found = TestClient(app, base_url=AT, follow_redirects=False, raise_server_exceptions=False)
    if key is not None:
        answer = found.post("/console/login", data={"key": key})
        assert answer.status_code == 303, answer.text
    return found


def csrf(browser: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/console/live").text)
    return found[1] if found else ""


def post(browser: TestClient, path: str, **data: str) -> Any:
    return browser.post(f"/console{path}", data={"csrf": csrf_any(browser), **data})


def csrf_any(browser: TestClient) -> str:
    """The session's token, from whatever page has a form."""
    for path in ("/inbox?of=all", "/incidents", "/policies", "/switches", "/memory", "/live"):
        found = re.search(r'name="csrf" value="([^"]+)"', browser.get(f"/console{path}").text)
        if found:
            return found[1]
    return ""
