"""An incident by the name that people have for it."""

from __future__ import annotations

import re

from lumyn.incidents.model import Incident
from lumyn.incidents.store import IncidentStore
from lumyn.lookup import shown
from schemas.errors import NotFound

_ID = re.compile(r"(?:INC-)?([1-9][0-9]{0,8})", re.IGNORECASE | re.ASCII)


def number_of(name: str) -> int:
    """The number in `INC-7` or `7`. Raises `NotFound`."""
    found = _ID.fullmatch(name.strip())
    if not found:
        raise NotFound(f"`{shown(name)}` is no incident", help="an incident is named like INC-7")
    return int(found[1])


def not_there(name: str) -> NotFound:
    """There is none of this name."""
    return NotFound(f"no incident `{shown(name)}`", help="`lumyn incident list` shows them")


def incident_named(store: IncidentStore, tenant: str, name: str) -> Incident:
    """One incident of a tenant. Raises `NotFound`, `IntegrityError`, `StorageUnavailable`."""
    found = store.read(tenant, number_of(name))
    if found is None:
        raise not_there(name)
    return found
