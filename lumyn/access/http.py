"""Access of HTTP routes: each declares the role that it needs, and an app with a route that doesn't is not made."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount

from lumyn.access.guard import Guard
from lumyn.access.principal import Principal
from schemas.errors import Forbidden

OPEN = "open"
"""What is served without a key."""
ANY = "any"
"""What every valid key may see."""


class Needs:
    """A dependency that lets in whose key has a role, and leaves its holder in `request.state.principal`."""

    def __init__(self, role: str) -> None:
        self.role = role

    async def __call__(self, request: Request) -> Principal | None:
        return None if self.role == OPEN else principal_of(request, self.role)


def needs(role: str) -> Any:
    """`dependencies=[needs("read")]` of a route."""
    return Depends(Needs(role))


def guard_of(request: Request) -> Guard:
    """The guard of the app that serves a request."""
    guard: Guard = request.app.state.guard
    return guard


def principal_of(request: Request, role: str, key: str | None = None) -> Principal:
    """Whom a request comes from; asked once a request. Raises `Unauthorized`, `Forbidden`, `RateLimited`.

    `key`: where it does not come as a header (the console's session); the app's own endpoints never take it from there.
    """
    known: Principal | None = getattr(request.state, "principal", None)
    if known is None:
        guard = guard_of(request)
        if guard.dev:
            _from_here(request)
        known = guard.let_in(key if key is not None else key_in(request))
        request.state.principal = known
    return known.require(role)


def key_in(request: Request) -> str | None:
    """The key of a request: `X-API-Key`, or `Authorization: Bearer`. Never from its address: addresses are logged."""
    key = request.headers.get("x-api-key")
    if key is not None:
        return key
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def _from_here(request: Request) -> None:
    """Without keys a page of the web must not reach the server through its reader's browser, by whatever name."""
    host = request.url.hostname or ""
    if not is_loopback_name(host):
        raise Forbidden(f"`{host}` is no name of this machine's loopback", help="use http://127.0.0.1 or http://localhost")
    headers = request.headers
    origin = urlsplit(headers.get("origin", "")).hostname
    site = headers.get("sec-fetch-site", "none")
    link = request.method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
    foreign = site not in ("none", "same-origin") and not link
    if foreign or ("origin" in headers and not is_loopback_name(origin or "")):
        raise Forbidden("another site's page may not use a server without keys")


def is_loopback_name(host: str) -> bool:
    """Whether a host is loopback by its name or number; what a name server says is not asked."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def declared(route: BaseRoute) -> str | None:
    """The role that a route declares; None: it declares nothing."""
    if isinstance(route, APIRoute):
        for dependency in route.dependant.dependencies:
            if isinstance(dependency.call, Needs):
                return dependency.call.role
    inner = route.app if isinstance(route, Mount) else getattr(route, "endpoint", None)
    found = getattr(inner, "needs", None)
    return found if isinstance(found, str) else None


def routes_of(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """Every route, those of included routers too; a mounted app counts as one."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner.routes)
        else:
            yield route


def check_declared(app: FastAPI) -> None:
    """Refuse an app with a route that would be served to anyone by oversight. Raises `RuntimeError`."""
    for route in routes_of(app.routes):
        if declared(route) is None:
            path = getattr(route, "path", type(route).__name__)
            raise RuntimeError(f"the route {path} declares no access: `dependencies=[needs(ROLE)]`")
