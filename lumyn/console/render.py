"""Pages from templates: everything recorded is escaped, what a screen would act on or hide is shown, nothing is inline.

The content security policy lets nothing run that is not a file of the console's own, and nothing load from elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from lumyn.cli.output import clean, one_line
from lumyn.figures import age, amount, number, percent, when
from lumyn.pages import page_environment
from schemas.canonical import encode
from schemas.verdict import VERDICTS

ROOT: Final = "/console"
_STATIC = Path(__file__).with_name("static")
_TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cache-control": "no-store",
}
_MARKS: Final = {"ALLOW": "✓", "ESCALATE": "▲", "ABSTAIN": "○", "DENY": "✕"}


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates' environment, made once."""
    return page_environment(
        PackageLoader("lumyn.console", "templates"),
        url=url, asset=asset, when=when, json=as_json, pretty=pretty, marks=_MARKS, verdicts=VERDICTS, number=number,
        amount=amount, age=age, percent=percent, lines=lines, wrapped=breakable,
        area=area,
    )  # fmt: skip


def html(template: str, status: int = 200, /, **context: Any) -> Response:
    """A page of a template."""
    text = environment().get_template(f"{template}.html.j2").render(**context)
    # a lone surrogate can't be sent: it is shown, as the other things are that a screen can't show
    return HTMLResponse(text.encode("utf-8", "backslashreplace"), status, headers=dict(HEADERS))


def url(*parts: str, **query: object) -> str:
    """A path of the console, each part quoted whole."""
    path = "/".join([ROOT, *(quote(_sendable(part), safe="") for part in parts)])
    given = {name: _sendable(str(value)) for name, value in query.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def _sendable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@lru_cache(maxsize=32)
def asset(name: str) -> str:
    """The address of a static file, with its content's hash: a new version is never the cached old one."""
    found = static_file(name)
    assert found is not None, name
    return f"{ROOT}/static/{name}?v={hashlib.sha256(found[0]).hexdigest()[:12]}"


@lru_cache(maxsize=32)
def static_file(name: str) -> tuple[bytes, str] | None:
    """A file of the console's own and its type; None for any other name."""
    known = {path.name: path for path in _STATIC.iterdir() if path.suffix in _TYPES}
    path = known.get(name)
    return None if path is None else (path.read_bytes(), _TYPES[path.suffix])


def as_json(value: Any) -> str:
    """A recorded value on one line."""
    return encode(value).decode("utf-8", "replace")


def breakable(value: str) -> Markup:
    """A recorded name, escaped, that may go on in the next line after each `_`."""
    return Markup(escape(one_line(value)).replace("_", Markup("_<wbr>")))  # noqa: S704 - escaped just here


def area(text: str) -> Markup:
    """A text for a `textarea`, escaped: its lines stay lines. A browser drops the first line's end."""
    return Markup("\n{}").format(clean(text))


def pretty(value: Any) -> str:
    """A recorded value over lines."""
    import json

    return clean(json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True, default=str))


def lines(text: str) -> list[str]:
    """A text's lines: each is shown on its own."""
    return text.split("\n")
