"""Whether what a kill switch names was ever decided: a misspelt one stops nothing, and looks as if it did."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from lumyn.home import Home
from memory_service.record_index import RecordIndex
from schemas.errors import LumynError
from schemas.query import And, Field, OneOf, Query

_LOOKED_AT: Final = 2000
"""Among the names of how many of the newest decisions a near one is looked for."""


def never_decided(home: Home, scope: Mapping[str, str]) -> dict[str, str | None]:
    """The fields of a scope whose value no decision ever had, each with the nearest name that one had, or None.

    Empty where there is no decision to compare with, and where the index can't be asked: the switch is on all the same.
    """
    try:
        index = home.index()
        if not scope or not index.count(tenant=None):
            return {}
        return {name: _near(index, name, value) for name, value in scope.items() if not _ever(index, name, value)}
    except (LumynError, OSError):
        return {}


def _ever(index: RecordIndex, name: str, value: str) -> bool:
    if name == "tenant":
        return index.count(tenant=value) > 0
    asked = Query("", And((OneOf(Field(name, "text"), (value,)),)))
    return bool(index.find(asked, tenant=None, limit=1))


def _near(index: RecordIndex, name: str, value: str) -> str | None:
    known = {str(getattr(row, name)) for row in index.find(None, tenant=None, limit=_LOOKED_AT)}
    near = get_close_matches(value[:64], sorted(known), n=1)
    return near[0] if near else None
