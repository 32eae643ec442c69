"""Incidents' events in a SQLite file of the home, each tenant's by themselves; nothing is ever changed or removed.

Each event's digest covers the one before it in its incident, so an event that was edited, put in or taken out of the
middle shows. The words beside them are derived, for searching alone.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lumyn.incidents.model import Event, Incident, fold
from memory_service.wal import use_wal
from schemas.canonical import decode_trusted, encode
from schemas.digests import digest
from schemas.errors import BadInput, IntegrityError, LumynError, StorageUnavailable

FILE = "incidents.db"
_LAYOUT = 1
_SCHEMA = """
CREATE TABLE events (
    tenant TEXT NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER NOT NULL, actor TEXT NOT NULL,
    kind TEXT NOT NULL, data BLOB NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (tenant, number, seq)
) WITHOUT ROWID;
CREATE TRIGGER events_stay BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never removed'); END;
CREATE TRIGGER events_are_as_said BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE VIRTUAL TABLE words USING fts5(tenant UNINDEXED, number UNINDEXED, title, text, tokenize='porter unicode61')
"""
_TITLE_WEIGHT = 4.0


class IncidentStore:
    """Opened at first use, safe for several threads and processes. All methods raise `StorageUnavailable`."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._pid = 0

    @property
    def is_there(self) -> bool:
        """Whether any incident was ever opened in this home."""
        return self.path.exists()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connected()
            except LumynError:
                raise
            except (sqlite3.Error, OSError) as error:
                self._let_go()
                raise StorageUnavailable(f"the incidents can't be used: {error}", where=str(self.path)) from None

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None and self._pid == os.getpid() and self.path.exists():
            return self._db
        self._db = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=10)
        use_wal(db)
        db.execute("PRAGMA synchronous=FULL")
        with _transaction(db):
            layout = db.execute("PRAGMA user_version").fetchone()[0]
            if layout == 0:
                for statement in _SCHEMA.split(";\nCREATE"):
                    db.execute(statement if statement.lstrip().startswith("CREATE") else f"CREATE{statement}")
                db.execute(f"PRAGMA user_version={_LAYOUT}")
        if layout > _LAYOUT:
            db.close()
            raise StorageUnavailable(
                f"the incidents are of layout {layout}, and this version knows {_LAYOUT}", where=str(self.path),
                help="use the version of lumyn-streams that wrote them",
            )  # fmt: skip
        self._db, self._pid = db, os.getpid()
        return db

    def append(
        self,
        tenant: str,
        number: int | None,
        said: Callable[[Incident | None], list[tuple[str, Mapping[str, Any]]]],
        *,
        actor: str,
        at_ms: int,
    ) -> Incident | None:
        """Append what `said` answers to the incident as it stands, all or nothing; `number` None begins a new one.

        Returns the incident as it is then; None where there is none of this number. What `said` raises changes nothing.
        """
        with self._open() as db, _transaction(db):
            before = None if number is None else _read(db, tenant, number)
            if number is not None and before is None:
                return None
            new = said(before)
            if number is None:
                last = db.execute("SELECT max(number) FROM events WHERE tenant = ?", (tenant,)).fetchone()[0]
                number = (last or 0) + 1
            events = [] if before is None else list(before.events)
            for kind, data in new:
                event = _made(tenant, number, events[-1] if events else None, at_ms, actor, kind, data)
                db.execute(
                    "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (tenant, number, event.seq, at_ms, actor, kind, encode(event.data), event.digest),
                )
                events.append(event)
            after = fold(tenant, number, events)
            if new:
                db.execute("DELETE FROM words WHERE tenant = ? AND number = ?", (tenant, number))
                db.execute("INSERT INTO words VALUES (?, ?, ?, ?)", (tenant, number, after.title, after.text()))
            return after

    def read(self, tenant: str, number: int) -> Incident | None:
        """An incident of this tenant. Raises `IntegrityError` when its events are not as they were said."""
        if not self.is_there:
            return None
        with self._open() as db:
            return _read(db, tenant, number)

    def numbers(self, tenant: str) -> list[int]:
        """The numbers of the tenant's incidents, newest first."""
        if not self.is_there:
            return []
        with self._open() as db:
            rows = db.execute("SELECT DISTINCT number FROM events WHERE tenant = ? ORDER BY number DESC", (tenant,))
            return [number for (number,) in rows]

    def matching(self, tenant: str, expression: str, limit: int) -> list[tuple[int, float, str]]:
        """(number, score, the place that fits) of what an FTS5 expression finds, the best first."""
        if not self.is_there:
            return []
        with self._open() as db:
            return list(
                db.execute(
                    "SELECT number, -bm25(words, 0, 0, ?, 1.0), snippet(words, -1, '', '', '…', 12) FROM words "
                    "WHERE words MATCH ? AND tenant = ? ORDER BY bm25(words, 0, 0, ?, 1.0), number DESC LIMIT ?",
                    (_TITLE_WEIGHT, expression, tenant, _TITLE_WEIGHT, limit),
                )
            )

    def _let_go(self) -> None:
        if self._db is not None and self._pid == os.getpid():
            self._db.close()
        self._db = None

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._let_go()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _made(
    tenant: str, number: int, before: Event | None, at_ms: int, actor: str, kind: str, data: Mapping[str, Any]
) -> Event:
    seq = 1 if before is None else before.seq + 1
    return Event(seq, at_ms, actor, kind, data, _digest(tenant, number, before, (seq, at_ms, actor, kind, data)))


def _digest(tenant: str, number: int, before: Event | None, said: tuple[Any, ...]) -> str:
    seq, at_ms, actor, kind, data = said
    try:
        return digest(
            encode(
                {
                    "tenant": tenant, "number": number, "seq": seq, "at_ms": at_ms, "actor": actor, "kind": kind,
                    "data": data, "before": None if before is None else before.digest,
                }
            )
        )  # fmt: skip
    except (ValueError, UnicodeEncodeError):
        raise BadInput("this text is not Unicode that can be kept", help="write it in UTF-8") from None


def _read(db: sqlite3.Connection, tenant: str, number: int) -> Incident | None:
    rows = db.execute(
        "SELECT seq, at_ms, actor, kind, data, digest FROM events WHERE tenant = ? AND number = ? ORDER BY seq",
        (tenant, number),
    )
    events: list[Event] = []
    for seq, at_ms, actor, kind, data, told in rows:
        before = events[-1] if events else None
        said = (seq, at_ms, actor, kind, decode_trusted(data))
        if seq != len(events) + 1 or _digest(tenant, number, before, said) != told:
            raise IntegrityError(
                f"event {seq} is not as it was said, or one before it is gone", where=f"incident INC-{number}",
                help="the incidents' file was changed by something else than lumyn: restore it from a backup",
            )  # fmt: skip
        events.append(Event(*said, told))
    return fold(tenant, number, events) if events else None
