"""Watches and their history, in a SQLite file of the home: nothing in it is ever changed, only added to.

A watch that is removed or defined anew keeps the rounds that were measured; each round names the definition it was
measured by.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumyn.watches.watch import Watch, checked, watch_of
from lumyn.wiring import Home
from memory_service.wal import use_wal
from schemas.canonical import decode_trusted, encode
from schemas.errors import NotFound, StorageUnavailable, UsageError
from streams.local_log import wall_clock_ms

WATCHES_FILE = "watches.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS definitions (
    seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL, watch BLOB
);
CREATE INDEX IF NOT EXISTS definitions_name ON definitions (tenant, name, seq);
CREATE TABLE IF NOT EXISTS rounds (
    seq INTEGER PRIMARY KEY, definition INTEGER NOT NULL REFERENCES definitions, tenant TEXT NOT NULL,
    name TEXT NOT NULL, at_ms INTEGER NOT NULL, state TEXT NOT NULL, result BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS rounds_name ON rounds (tenant, name, seq);
CREATE TRIGGER IF NOT EXISTS definitions_stay BEFORE UPDATE ON definitions BEGIN SELECT RAISE(ABORT, 'kept'); END;
CREATE TRIGGER IF NOT EXISTS definitions_remain BEFORE DELETE ON definitions BEGIN SELECT RAISE(ABORT, 'kept'); END;
CREATE TRIGGER IF NOT EXISTS rounds_stay BEFORE UPDATE ON rounds BEGIN SELECT RAISE(ABORT, 'kept'); END;
CREATE TRIGGER IF NOT EXISTS rounds_remain BEFORE DELETE ON rounds BEGIN SELECT RAISE(ABORT, 'kept'); END
"""


@dataclass(frozen=True, slots=True)
class Saved:
    """A watch as it is kept: `definition` names this definition of it."""

    definition: int
    added_ms: int
    watch: Watch


def save_watch(home: Home, watch: Watch) -> Watch:
    """Keep a watch. The same one again changes nothing.

    Raises `UsageError`, also where another one has the name; `BadQuery`, `StorageUnavailable`.
    """
    checked(watch, wall_clock_ms())
    tenant = home.settings.tenant
    with _open(home) as db, db:
        db.execute("BEGIN IMMEDIATE")
        known = _current(db, tenant, watch.name)
        if known is not None and known.watch == watch:
            return watch
        if known is not None:
            raise UsageError(
                f"there is a watch `{watch.name}` already, and it is another one",
                help=f"`lumyn watch remove {watch.name}` first; its history is kept",
            )
        db.execute(
            "INSERT INTO definitions (tenant, name, at_ms, watch) VALUES (?, ?, ?, ?)",
            (tenant, watch.name, wall_clock_ms(), encode(watch.as_dict())),
        )
    return watch


def remove_watch(home: Home, name: str) -> None:
    """Watch it no more; its history is kept. Raises `NotFound`, `StorageUnavailable`."""
    tenant = home.settings.tenant
    with _open(home) as db, db:
        db.execute("BEGIN IMMEDIATE")
        if _current(db, tenant, name) is None:
            raise _unknown(name)
        db.execute(
            "INSERT INTO definitions (tenant, name, at_ms, watch) VALUES (?, ?, ?, NULL)",
            (tenant, name, wall_clock_ms()),
        )


def list_watches(home: Home, *, incident: str | None = None) -> list[Watch]:
    """The tenant's watches by name; those of one incident only, where it is given. Raises `StorageUnavailable`."""
    return [one.watch for one in saved_watches(home) if incident in (None, one.watch.incident)]


def saved_watches(home: Home) -> list[Saved]:
    """The tenant's watches with where they are kept, by name."""
    if not _path(home).exists():
        return []
    with _open(home) as db:
        rows = db.execute(
            "SELECT max(seq), at_ms, watch FROM definitions WHERE tenant = ? GROUP BY name ORDER BY name",
            (home.settings.tenant,),
        ).fetchall()
    return [Saved(seq, at_ms, watch_of(decode_trusted(value))) for seq, at_ms, value in rows if value is not None]


def watch_named(home: Home, name: str) -> Saved:
    """One watch. Raises `NotFound`, `StorageUnavailable`."""
    found = None
    if _path(home).exists():
        with _open(home) as db:
            found = _current(db, home.settings.tenant, name)
    if found is None:
        raise _unknown(name)
    return found


def keep_round(home: Home, saved: Saved, result: Mapping[str, Any]) -> None:
    """Add what was measured to the watch's history. Raises `StorageUnavailable`."""
    with _open(home) as db, db:
        db.execute(
            "INSERT INTO rounds (definition, tenant, name, at_ms, state, result) VALUES (?, ?, ?, ?, ?, ?)",
            (
                saved.definition, home.settings.tenant, saved.watch.name, result["at_ms"], result["state"],
                encode(dict(result)),
            ),
        )  # fmt: skip


def history(home: Home, name: str, *, limit: int = 100) -> list[dict[str, Any]]:
    """The last rounds of a watch, oldest first: also of one that was removed, and of all its definitions.

    Raises `StorageUnavailable`.
    """
    if not _path(home).exists():
        return []
    with _open(home) as db:
        rows: Sequence[tuple[int, bytes]] = db.execute(
            "SELECT definition, result FROM rounds WHERE tenant = ? AND name = ? ORDER BY seq DESC LIMIT ?",
            (home.settings.tenant, name, limit),
        ).fetchall()
    return [{"definition": seq, **decode_trusted(result)} for seq, result in reversed(rows)]


def _current(db: sqlite3.Connection, tenant: str, name: str) -> Saved | None:
    row = db.execute(
        "SELECT seq, at_ms, watch FROM definitions WHERE tenant = ? AND name = ? ORDER BY seq DESC LIMIT 1",
        (tenant, name),
    ).fetchone()
    return None if row is None or row[2] is None else Saved(row[0], row[1], watch_of(decode_trusted(row[2])))


def _unknown(name: str) -> NotFound:
    return NotFound(f"there is no watch `{name[:80]}`", help="`lumyn watch list` shows them")


def _path(home: Home) -> Path:
    return home.path / WATCHES_FILE


@contextmanager
def _open(home: Home) -> Iterator[sqlite3.Connection]:
    path = _path(home)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
            use_wal(db)
            db.execute("PRAGMA foreign_keys=ON")
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            yield db
    except (sqlite3.Error, OSError) as error:
        raise StorageUnavailable(f"the watches can't be used: {error}", where=str(path)) from None
