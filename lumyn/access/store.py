"""API keys and the audit of their changes, in a SQLite file (mode 0600) of the home.

A running server sees a change at its next request: SQLite tells when another connection has written
(`PRAGMA data_version`), and the file's identity, when another file was put in its place.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from lumyn.access.keys import ApiKey, new_key
from lumyn.access.rates import Rate
from memory_service.sqlite_file import SqliteFile
from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import IntegrityError, NotFound, UsageError
from schemas.ids import iso_time
from schemas.tenant import TENANT
from streams.local_log import wall_clock_ms

FILE: Final = "keys/api.db"
_NAME_CHARS: Final = 80
_LAYOUTS: Final = (
    (
        "CREATE TABLE IF NOT EXISTS keys (key_id TEXT PRIMARY KEY, digest BLOB NOT NULL, tenant TEXT NOT NULL, "
        "roles TEXT NOT NULL, name TEXT NOT NULL, rate TEXT, created_ms INTEGER NOT NULL, expires_ms INTEGER, "
        "revoked_ms INTEGER) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS audit (seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, entry BLOB NOT NULL, "
        "digest TEXT NOT NULL)",
        "CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE UPDATE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
        "CREATE TRIGGER IF NOT EXISTS audit_keeps BEFORE DELETE ON audit "
        "BEGIN SELECT RAISE(ABORT, 'the audit is only added to'); END",
    ),
)
_COLUMNS = "key_id, digest, tenant, roles, name, rate, created_ms, expires_ms, revoked_ms"


class KeyStore(SqliteFile):
    """The keys of a home. Opened at first use; safe for several threads and processes. Raises `StorageUnavailable`."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / FILE, "the API keys", _LAYOUTS)
        self._keys: Mapping[str, ApiKey] = {}
        self._seen: tuple[sqlite3.Connection | None, int] = (None, -1)
        self._turn: tuple[asyncio.AbstractEventLoop, Mapping[str, ApiKey]] | None = None

    # asking

    def find(self, key_id: str) -> ApiKey | None:
        """A key by its id, as it is at this moment.

        In an event loop the file is looked at once a turn: what asks in a turn came before it, so that no key is older
        than the request that it came with. Each look lets go of the interpreter, which threads that decide then keep.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self._current().get(key_id)
        turn = self._turn  # another thread that changes a key ends it
        if turn is None or turn[0] is not loop:
            turn = self._turn = (loop, self._current())
            loop.call_soon(self._end_turn)
        return turn[1].get(key_id)

    def _end_turn(self) -> None:
        self._turn = None

    def all_keys(self) -> list[ApiKey]:
        """Every key, oldest first; revoked ones stay in the list."""
        return sorted(self._current().values(), key=lambda key: (key.created_ms, key.key_id))

    def _current(self) -> Mapping[str, ApiKey]:
        with self.if_there() as db:
            if db is None:
                return {}
            seen = (db, db.execute("PRAGMA data_version").fetchone()[0])
            if seen != self._seen:
                rows = db.execute(f"SELECT {_COLUMNS} FROM keys").fetchall()
                self._keys, self._seen = {row[0]: _key(row) for row in rows}, seen
            return self._keys

    # changing

    def create(
        self,
        tenant: str,
        roles: frozenset[str],
        *,
        actor: str,
        name: str = "",
        rate: Rate | None = None,
        expires_ms: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key: what is kept of it, and the key itself, which nobody can tell again. Raises `UsageError`."""
        if not TENANT.match(tenant):
            raise UsageError(f"tenant `{tenant}` must be 1 to 64 letters, digits, `_`, `.` or `-`")
        if len(name) > _NAME_CHARS or not name.isprintable():
            raise UsageError(f"a key's name has at most {_NAME_CHARS} printable characters")
        now = wall_clock_ms()
        if expires_ms is not None and expires_ms <= now:
            raise UsageError("the key would have expired already", help="`--expires 90d`, or a day to come")
        key_id, key, key_digest = new_key()
        kept = ApiKey(key_id, key_digest, tenant, roles, name, rate, now, expires_ms, None)
        row = (key_id, key_digest, tenant, ",".join(sorted(roles)), name, str(rate) if rate else None, now, expires_ms)
        with self._changing() as db:
            db.execute(f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", row)
            _add(db, tenant, {"type": "key_created", "actor": actor, "at": iso_time(now), **described(kept, now)})
        return kept, key

    def revoke(self, key_id: str, *, actor: str, why: str = "") -> ApiKey:
        """Take a key's force away, for good. A unique start of its id will do. Raises `NotFound`, `UsageError`."""
        found = [key for key in self.all_keys() if key_id and key.key_id.startswith(key_id)]
        if not found:
            raise NotFound(f"no API key `{key_id}`", help="`lumyn keys list` shows them")
        if len(found) > 1:
            raise UsageError(f"`{key_id}` fits {len(found)} keys", help="give more of the id")
        now = wall_clock_ms()
        with self._changing() as db:
            done = db.execute(
                "UPDATE keys SET revoked_ms = ? WHERE key_id = ? AND revoked_ms IS NULL", (now, found[0].key_id)
            ).rowcount
            if done:
                entry = {"type": "key_revoked", "actor": actor, "at": iso_time(now), "key_id": found[0].key_id}
                _add(db, found[0].tenant, {**entry, "name": found[0].name, "why": why})
        return self._current()[found[0].key_id]

    # the audit

    def audit(self, *, before: int | None = None, limit: int = 100) -> list[tuple[int, str, dict[str, Any]]]:
        """(number, tenant, entry) of the newest entries, below a number. Raises `IntegrityError` for a changed one."""
        with self.if_there() as db:
            if db is None:
                return []
            rows = db.execute(
                "SELECT seq, tenant, entry, digest FROM audit WHERE seq < ? ORDER BY seq DESC LIMIT ?",
                (before if before is not None else 1 << 62, limit + 1),
            ).fetchall()
        shown = rows[:limit]
        for (number, tenant, entry, told), below in zip_longest(shown, rows[1 : len(shown) + 1]):
            prior_number, prior = (below[0], below[3]) if below else (0, "")
            if number != prior_number + 1 or told != _chained(prior, tenant, entry):
                raise IntegrityError(f"audit entry {number} was changed, or the one before it", where=str(self.path))
        return [(number, tenant, decode_trusted(entry)) for number, tenant, entry, _ in shown]

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self.changing() as db:
            try:
                yield db
            finally:
                self._turn = None
                self._seen = (None, -1)  # its own writes don't move a connection's data_version


def described(key: ApiKey, now_ms: int) -> dict[str, Any]:
    """A key as lists and the audit show it: nothing of its secret."""
    return {
        "key_id": key.key_id,
        "tenant": key.tenant,
        "roles": sorted(key.roles),
        "name": key.name,
        "rate": str(key.rate) if key.rate else None,
        "created_at": iso_time(key.created_ms),
        "expires_at": iso_time(key.expires_ms) if key.expires_ms is not None else None,
        "state": key.state(now_ms),
    }


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, key_digest, tenant, roles, name, rate, *times = row
    return ApiKey(
        key_id, key_digest, tenant, frozenset(roles.split(",")), name, Rate.parse(rate) if rate else None, *times
    )


def _add(db: sqlite3.Connection, tenant: str, entry: Mapping[str, Any]) -> None:
    """Each entry's digest covers the one before it, so that a changed or missing one shows."""
    last = db.execute("SELECT seq, digest FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, "")
    stored = encode(dict(entry))
    row = (last[0] + 1, tenant, stored, _chained(last[1], tenant, stored))
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", row)


def _chained(prior: str, tenant: str, entry: bytes) -> str:
    return digest(b"\n".join((prior.encode(), tenant.encode(), entry)))
