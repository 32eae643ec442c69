"""Who is at the console: sessions after a login with an API key, or nobody but the owner of a loopback `--dev`.

Every page and every button goes through `Visits.visitor`: who it is, from where, and whether a change was asked for by
a page of this console (a token in the form, and the browser's own `Origin`).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from lumyn.access.guard import Guard
from lumyn.access.http import is_loopback_name
from lumyn.access.principal import Principal
from lumyn.access.store import KeyStore
from lumyn.api.homes import home_for
from lumyn.config import LumynConfig
from lumyn.home import Home
from schemas.errors import Forbidden, LumynError, Unauthorized

COOKIE: Final = "lumyn_console"
SESSION_S: Final = 8 * 3600
IDLE_S: Final = 3600
MAX_SESSIONS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Session:
    """One login. `csrf` stands in every form of its pages."""

    principal: Principal
    csrf: str
    since: float
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of a visitor; `form` are the fields of a POST, the last of each name."""

    request: Request
    principal: Principal
    csrf: str
    config: LumynConfig
    has_login: bool
    keys: KeyStore
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        """The home as the visitor's: of his tenant, with his name. Raises `NotFound` before the first decision."""
        return home_for(self.config, self.principal)

    @property
    def query(self) -> Mapping[str, str]:
        """The address's parameters."""
        return self.request.query_params

    def has(self, role: str) -> bool:
        """Whether the visitor has a role."""
        return self.principal.may(role)

    def must_see(self, error: LumynError | None) -> None:
        """A form that could not be taken is shown again on its page, unless the visitor may not look at that page:
        then the error is all that he is shown. Raises it."""
        if error is not None and not self.has("read"):
            raise error


class Visits:
    """The sessions of this process. They live in memory: a restart logs everybody out."""

    def __init__(self, config: LumynConfig, guard: Guard, clock: Callable[[], float] = time.monotonic) -> None:
        """A guard that lets anyone in (`dev`) asks for no login."""
        self._config = config
        self._guard = guard
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, tuple[Session, float]] = OrderedDict()
        self._owner = Session(guard.check(None), secrets.token_urlsafe(24), clock()) if guard.dev else None

    @property
    def has_login(self) -> bool:
        """Whether one has to log in here."""
        return self._owner is None

    def visit(self, request: Request, form: Mapping[str, str] | None = None) -> Visit | None:
        """The visitor of a request; None: he has to log in. Raises `Forbidden` where something is not right about it,
        `RateLimited` when his key is spent."""
        self.check_origin(request)
        session = self._owner or self._session(request)
        if session is None:
            return None
        if form is not None and not hmac.compare_digest(form.get("csrf", "").encode(), session.csrf.encode()):
            raise Forbidden("this form is not of this session", help="go back, reload the page, and try again")
        principal, store = session.principal, self._guard.store
        return Visit(request, principal, session.csrf, self._config, self.has_login, store, form or {})

    def check_origin(self, request: Request) -> None:
        """Refuse what another site has the browser do. Raises `Forbidden`.

        Without a login everybody who reaches the port is the owner: so the name that the browser asked for must be
        loopback's (a name of somebody else's that resolves to it is DNS rebinding).
        """
        host = request.headers.get("host", "")
        if self._owner is not None and not is_loopback_name(urlsplit(f"//{host}").hostname or ""):
            raise Forbidden(
                f"the console is served without keys, and on loopback only: not as `{host}`",
                help="open it as http://127.0.0.1:PORT/console",
            )
        if request.method in ("GET", "HEAD"):
            return
        origin = request.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Forbidden("this was asked for by a page of another site")
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Forbidden("this was asked for by a page of another site")

    def _session(self, request: Request) -> Session | None:
        token = request.cookies.get(COOKIE)
        if not token:
            return None
        now, name = self._clock(), _named(token)
        with self._lock:
            found = self._sessions.get(name)
            if found is None:
                return None
            session, seen = found
            if now - session.since > SESSION_S or now - seen > IDLE_S:
                del self._sessions[name]
                return None
            self._sessions[name] = (session, now)
            self._sessions.move_to_end(name)
        try:
            return replace(session, principal=self._guard.let_in(session.key))
        except Unauthorized:  # revoked or expired since
            self.log_out(request)
            return None

    def log_in(self, key: str) -> str | None:
        """A new session's token for a key; None for a key that is none. Raises `RateLimited`."""
        try:
            principal = self._guard.let_in(key)
        except Unauthorized:
            return None
        token, now = secrets.token_urlsafe(32), self._clock()
        with self._lock:
            self._sessions[_named(token)] = (Session(principal, secrets.token_urlsafe(24), now, key), now)
            while len(self._sessions) > MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return token

    def log_out(self, request: Request) -> None:
        """End the request's session."""
        with self._lock:
            self._sessions.pop(_named(request.cookies.get(COOKIE, "")), None)


def _named(token: str) -> str:
    """What a session is kept under: not what opens it."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
