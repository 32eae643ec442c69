"""The audit: who changed what, newest first; labels, policies, switches and keys."""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from starlette.responses import Response

from lumyn.access.trail import MOST_READ, Entry, trail
from lumyn.console import render
from lumyn.console.page import Page
from lumyn.console.visit import Visit

_SHOWN: Final = 200
_LEFT_OUT: Final = ("at", "type", "actor", "decision", "event_id", "version", "undoes", "restored", "hash")


def show(visit: Visit) -> Response:
    """The newest changes that the visitor may see."""
    read = islice(trail(visit.home, visit.keys, visit.principal, {}), MOST_READ)
    found = list(islice((one for one in read if one.entry is not None), _SHOWN))
    rows = [(one, _rest(one)) for one in found]
    return render.html("audit", visit=visit, here="audit", rows=rows, most=_SHOWN)


def _rest(one: Entry) -> list[tuple[str, Any]]:
    """What else an entry says that is worth a look; the API has all of it."""
    told = (one.entry or {}).items()
    return [(name, value) for name, value in told if name not in _LEFT_OUT and value not in (None, "")]


PAGES: Final = (Page("/audit", "admin", show),)
