"""Watches and their history, in a SQLite file of the home: only added to, but for what is redacted.

A watch that is removed or defined anew keeps the rounds that were measured; each round names the definition it was
measured by.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lumyn.home import Home
from lumyn.watches.watch import Watch, checked, watch_of
from memory_service.sqlite_file import SqliteFile
from schemas.canonical import decode_trusted, encode
from schemas.errors import NotFound, UsageError
from streams.local_log import wall_clock_ms

WATCHES_FILE = "watches.db"
_GONE = "[redacted]"
_STAY = (
    "CREATE TRIGGER IF NOT EXISTS definitions_stay BEFORE UPDATE ON definitions BEGIN SELECT RAISE(ABORT, 'kept'); END",
    "CREATE TRIGGER IF NOT EXISTS rounds_stay BEFORE UPDATE ON rounds BEGIN SELECT RAISE(ABORT, 'kept'); END",
)
_LAYOUTS = (
    (
        "CREATE TABLE IF NOT EXISTS definitions (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, name TEXT NOT NULL, "
        "at_ms INTEGER NOT NULL, watch BLOB)",
        "CREATE INDEX IF NOT EXISTS definitions_name ON definitions (tenant, name, seq)",
        "CREATE TABLE IF NOT EXISTS rounds (seq INTEGER PRIMARY KEY, definition INTEGER NOT NULL "
        "REFERENCES definitions, tenant TEXT NOT NULL, name TEXT NOT NULL, at_ms INTEGER NOT NULL, "
        "state TEXT NOT NULL, result BLOB NOT NULL)",
        "CREATE INDEX IF NOT EXISTS rounds_name ON rounds (tenant, name, seq)",
        *_STAY,
        "CREATE TRIGGER IF NOT EXISTS definitions_remain BEFORE DELETE ON definitions "
        "BEGIN SELECT RAISE(ABORT, 'kept'); END",
        "CREATE TRIGGER IF NOT EXISTS rounds_remain BEFORE DELETE ON rounds BEGIN SELECT RAISE(ABORT, 'kept'); END",
    ),
)


@dataclass(frozen=True, slots=True)
class Saved:
    """A watch as it is kept: `definition` names this definition of it."""

    definition: int
    added_ms: int
    watch: Watch


def save_watch(home: Home, watch: Watch, *, instead: Watch | None = None) -> Watch:
    """Keep a watch. The same one again changes nothing. `instead`: the one of its name that it may take the place of.

    Raises `UsageError`, also where another one has the name; `BadQuery`, `StorageUnavailable`.
    """
    checked(watch, wall_clock_ms())
    tenant = home.settings.tenant
    with _file(home) as file, file.changing() as db:
        known = _current(db, tenant, watch.name)
        if known is not None and known.watch == watch:
            return watch
        if known is not None and known.watch != instead:
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
    with _file(home) as file, file.changing() as db:
        if _current(db, tenant, name) is None:
            raise _unknown(name)
        db.execute(
            "INSERT INTO definitions (tenant, name, at_ms, watch) VALUES (?, ?, ?, NULL)",
            (tenant, name, wall_clock_ms()),
        )


def redact_watch(home: Home, name: str) -> str:
    """Remove a watch, also one that was removed before, with all that its query, its reason and its name say.

    What was measured is kept under another name, which is returned. Raises `NotFound`, `StorageUnavailable`; while
    another process reads the file, the same call goes on.
    """
    tenant = home.settings.tenant
    with _file(home) as file:
        with file.changing() as db:
            known = db.execute(
                "SELECT min(seq) FROM definitions WHERE tenant = ? AND name = ?", (tenant, name)
            ).fetchone()[0]
            if known is None:
                raise _unknown(name)
            other = name if name == f"redacted-{known}" else f"redacted-{known}"
            for table in ("definitions", "rounds"):
                db.execute(f"DROP TRIGGER {table}_stay")
            db.execute(
                "UPDATE definitions SET name = ?, watch = NULL WHERE tenant = ? AND name = ?", (other, tenant, name)
            )
            rounds = db.execute("SELECT seq, result FROM rounds WHERE tenant = ? AND name = ?", (tenant, name))
            for seq, result in rounds.fetchall():
                said = {**decode_trusted(result), "name": other, "query": _GONE, "of": _GONE}
                db.execute("UPDATE rounds SET name = ?, result = ? WHERE seq = ?", (other, encode(said), seq))
            for statement in _STAY:
                db.execute(statement)
        file.scrub()
    return other


def naming(home: Home, holds: Callable[[Any], bool]) -> dict[str, int]:
    """The watches of the tenant whose definitions or rounds say something, also removed ones, and in how many."""
    found: Counter[str] = Counter()
    with _file(home) as file, file.if_there() as db:
        for table, column in (("definitions", "watch"), ("rounds", "result")) if db is not None else ():
            assert db is not None
            rows = db.execute(f"SELECT name, {column} FROM {table} WHERE tenant = ?", (home.settings.tenant,))
            for name, value in rows:
                found[name] += holds(name) or (value is not None and holds(decode_trusted(value)))
    return {name: count for name, count in found.items() if count}


def list_watches(home: Home, *, incident: str | None = None) -> list[Watch]:
    """The tenant's watches by name; those of one incident only, where it is given. Raises `StorageUnavailable`."""
    return [one.watch for one in saved_watches(home) if incident in (None, one.watch.incident)]


def saved_watches(home: Home) -> list[Saved]:
    """The tenant's watches with where they are kept, by name."""
    with _file(home) as file, file.if_there() as db:
        if db is None:
            return []
        rows = db.execute(
            "SELECT max(seq), at_ms, watch FROM definitions WHERE tenant = ? GROUP BY name ORDER BY name",
            (home.settings.tenant,),
        ).fetchall()
    return [Saved(seq, at_ms, watch_of(decode_trusted(value))) for seq, at_ms, value in rows if value is not None]


def watch_named(home: Home, name: str) -> Saved:
    """One watch. Raises `NotFound`, `StorageUnavailable`."""
    with _file(home) as file, file.if_there() as db:
        found = None if db is None else _current(db, home.settings.tenant, name)
    if found is None:
        raise _unknown(name)
    return found


def keep_round(home: Home, saved: Saved, result: Mapping[str, Any]) -> None:
    """Add what was measured to the watch's history. Raises `StorageUnavailable`."""
    with _file(home) as file, file.changing() as db:
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
    with _file(home) as file, file.if_there() as db:
        if db is None:
            return []
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


@contextmanager
def _file(home: Home) -> Iterator[SqliteFile]:
    pragmas = ("foreign_keys=ON", "secure_delete=ON")
    file = SqliteFile(home.path / WATCHES_FILE, "the watches", _LAYOUTS, pragmas=pragmas)
    try:
        yield file
    finally:
        file.close()
