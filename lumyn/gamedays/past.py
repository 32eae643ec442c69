"""Game days of a home: a report each in its `gamedays/` folder, seen by their own tenant only."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import orjson

from lumyn.config import Settings
from lumyn.exporting import write_whole
from schemas.canonical import decode_trusted
from schemas.errors import NotFound, StorageUnavailable
from schemas.ids import iso_time
from streams.local_log import wall_clock_ms

FOLDER = "gamedays"
_NAME = re.compile(r"gameday-[0-9a-f]{12}")


def save(settings: Settings, report: Mapping[str, Any]) -> str:
    """Keep a report; returns its id. Raises `StorageUnavailable`."""
    name = f"gameday-{uuid.uuid4().hex[:12]}"
    path = settings.home / FOLDER / f"{name}.json"
    with suppress(OSError):  # writing tells
        path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"id": name, "tenant": settings.tenant, "at": iso_time(wall_clock_ms()), "report": dict(report)}
    write_whole(path, orjson.dumps(kept))
    return name


def load(settings: Settings, name: str) -> dict[str, Any]:
    """A kept run: `id`, `at`, `report`. Raises `NotFound`, `StorageUnavailable`."""
    none = NotFound(f"no game day `{name[:64]}`", help="`lumyn gameday list` shows them")
    if not _NAME.fullmatch(name):
        raise none
    path = settings.home / FOLDER / f"{name}.json"
    try:
        kept: dict[str, Any] = decode_trusted(path.read_bytes())
        if kept["tenant"] != settings.tenant:
            raise none
        report = kept["report"]
        _ = kept["at"], report["name"], [one["holds"] for one in (*report["expectations"], *report["invariants"])]
    except FileNotFoundError:
        raise none from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageUnavailable(f"the report can't be read: {error}", where=str(path)) from None
    return kept


def all_of(settings: Settings) -> list[dict[str, Any]]:
    """All kept runs, the newest first. Raises `StorageUnavailable`."""
    found = []
    for path in (settings.home / FOLDER).glob("gameday-*.json"):
        with suppress(NotFound):
            found.append(load(settings, path.stem))
    return sorted(found, key=lambda kept: (kept["at"], kept["id"]), reverse=True)
