"""The console's app: one table of pages, each with the role it needs, and one way in for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lumyn.access.guard import Guard
from lumyn.access.http import OPEN
from lumyn.config import LumynConfig
from lumyn.console import (
    api,
    audit,
    decisions,
    gamedays,
    inbox,
    incident_forms,
    incidents,
    live,
    memory,
    policies,
    publishing,
    render,
    reports,
    runbooks,
    switches,
    watches,
)
from lumyn.console.page import MAX_FORM_BYTES, Page
from lumyn.console.visit import COOKIE, SESSION_S, Visit, Visits
from lumyn.inbox.escalations import Taken
from lumyn.incidents.incidents import Changed
from schemas.errors import (
    BadInput,
    Erased,
    Forbidden,
    IntegrityError,
    KeyMissing,
    LumynError,
    NotFound,
    PolicyConflict,
    RateLimited,
    StorageUnavailable,
    TooLarge,
)

_MAX_FIELDS: Final = 100
_STATUS: Final[tuple[tuple[type[LumynError], int], ...]] = (
    (Forbidden, 403),
    (NotFound, 404),
    (Taken, 409),
    (Changed, 409),
    (PolicyConflict, 409),
    (Erased, 410),
    (TooLarge, 413),
    (BadInput, 422),
    (RateLimited, 429),
    (IntegrityError, 500),
    (StorageUnavailable, 503),
    (KeyMissing, 503),
)


def pages() -> Sequence[Page]:
    """All addresses of the console."""
    modules = (
        decisions, live, inbox, incident_forms, incidents, runbooks, gamedays, publishing, policies, switches, memory,
        reports, watches, audit, api,
    )  # fmt: skip
    return tuple(page for module in modules for page in module.PAGES)


def console_app(config: LumynConfig, guard: Guard) -> Starlette:
    """The console as an app to be mounted at `/console`. It asks who comes in itself: by its own login."""
    visits = Visits(config, guard)
    entry = _Entry(visits)
    routes = [
        Route("/static/{name}", _static, methods=["GET"]),
        Route("/login", entry.login, methods=["GET", "POST"]),
        Route("/logout", entry.logout, methods=["POST"]),
        *(Route(page.path, entry.of(page), methods=[page.method]) for page in pages()),
        Route("/{rest:path}", entry.of(Page("", "read", _nowhere)), methods=["GET"]),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error, Exception: _internal_error}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.needs = OPEN  # type: ignore[attr-defined]
    return app


def add_console(app: FastAPI, config: LumynConfig) -> None:
    """Mount the console into an app, and lead there from `/`."""
    console = console_app(config, app.state.guard)
    console.state.api = app
    app.mount(render.ROOT, console)
    app.add_route("/", _lead, methods=["GET"], include_in_schema=False)


async def _lead(_request: Request) -> Response:
    return RedirectResponse(render.url("decisions"))


_lead.needs = OPEN  # type: ignore[attr-defined]


class _Entry:
    """The way in: who it is, from where, with which role; errors as pages."""

    def __init__(self, visits: Visits) -> None:
        self._visits = visits

    def of(self, page: Page) -> Callable[[Request], Any]:
        async def enter(request: Request) -> Response:
            try:
                form = await _form(request, page.most) if page.method == "POST" else None
            except LumynError as error:
                return error_page(error)
            return await run_in_threadpool(self._enter, page, request, form)

        return enter

    def _enter(self, page: Page, request: Request, form: Mapping[str, str] | None) -> Response:
        visit: Visit | None = None
        try:
            visit = self._visits.visit(request, form)
            if visit is None:
                return RedirectResponse(render.url("login"), 303, headers=dict(render.HEADERS))
            visit.principal.require(page.role)
            return page.handler(visit)
        except LumynError as error:
            return error_page(error, visit)

    async def login(self, request: Request) -> Response:
        try:
            return await self._login(request)
        except LumynError as error:
            return error_page(error)

    async def _login(self, request: Request) -> Response:
        self._visits.check_origin(request)
        if not self._visits.has_login:
            return RedirectResponse(render.url("decisions"), 303, headers=dict(render.HEADERS))
        if request.method == "GET":
            return render.html("login", visit=None, here="", wrong=False)
        form = await _form(request)
        token = await run_in_threadpool(self._visits.log_in, form.get("key", "").strip())
        if token is None:
            return render.html("login", 401, visit=None, here="", wrong=True)
        answer = RedirectResponse(render.url("decisions"), 303, headers=dict(render.HEADERS))
        answer.set_cookie(
            COOKIE, token, max_age=SESSION_S, path=render.ROOT, httponly=True, samesite="strict",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    async def logout(self, request: Request) -> Response:
        try:
            visit = self._visits.visit(request, await _form(request))
        except LumynError as error:
            return error_page(error)
        if visit is not None and visit.has_login:
            self._visits.log_out(request)
        answer = RedirectResponse(render.url("login"), 303, headers=dict(render.HEADERS))
        answer.delete_cookie(COOKIE, path=render.ROOT)
        return answer


def error_page(error: LumynError, visit: Visit | None = None) -> Response:
    """An error as a page: what, where, what to do."""
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 400)
    return _error_html(status, error, visit)


def _nowhere(_visit: Visit) -> Response:
    raise NotFound("there is no such page")


def _error_html(status: int, error: LumynError, visit: Visit | None = None) -> Response:
    named = HTTPStatus(status).phrase
    return render.html("error", status, visit=visit, here="", error=error, status=status, named=named)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = NotFound("there is no such page") if error.status_code == 404 else BadInput(str(error.detail).lower())
    return _error_html(error.status_code, told)


async def _internal_error(_request: Request, error: Exception) -> Response:
    told = LumynError(f"internal error: {type(error).__name__}", help="the server's log has more")
    return _error_html(500, told)


async def _form(request: Request, most: int = MAX_FORM_BYTES) -> dict[str, str]:
    """A POST's fields. Raises `TooLarge`, `BadInput`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise BadInput("this is no form", where="body")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLarge(f"the form has more than {most} bytes", where="body")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise BadInput("the form can't be read", where="body") from None
    return {name: value.replace("\r\n", "\n") for name, value in pairs}


async def _static(request: Request) -> Response:
    found = render.static_file(request.path_params["name"])
    if found is None:
        return await _http_error(request, HTTPException(404))
    headers = {**render.HEADERS, "cache-control": "public, max-age=31536000, immutable"}
    return Response(found[0], headers={**headers, "content-type": found[1]})
