"""Incidents' events in a SQLite file of the home, each tenant's by themselves; none is ever changed or removed.

Each event's digest covers the one before it in its incident, so an event that was edited, put in or taken out of the
middle shows (`chain.py`). Only a redaction takes text out, and says so. The words beside the events are derived, for
searching alone.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lumyn.incidents.chain import REDACTED, Stored, left_of, made, read, redacted
from lumyn.incidents.model import Incident, fold
from memory_service.sqlite_file import SqliteFile
from schemas.canonical import encode

FILE = "incidents.db"
_AS_SAID = """CREATE TRIGGER IF NOT EXISTS events_are_as_said BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are never changed'); END"""
_LAYOUTS = (
    (
        "CREATE TABLE IF NOT EXISTS events (tenant TEXT NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, "
        "at_ms INTEGER NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, digest TEXT NOT NULL, "
        "PRIMARY KEY (tenant, number, seq)) WITHOUT ROWID",
        "CREATE TRIGGER IF NOT EXISTS events_stay BEFORE DELETE ON events "
        "BEGIN SELECT RAISE(ABORT, 'events are never removed'); END",
        _AS_SAID,
        "CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5("
        "tenant UNINDEXED, number UNINDEXED, title, text, tokenize='porter unicode61')",
    ),
    ("ALTER TABLE events ADD COLUMN salt BLOB", "ALTER TABLE events ADD COLUMN said TEXT"),
)
_TITLE_WEIGHT = 4.0


class IncidentStore(SqliteFile):
    """Opened at first use, safe for several threads and processes. All methods raise `StorageUnavailable`."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / FILE, "the incidents", _LAYOUTS, pragmas=("secure_delete=ON",))

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
        with self.changing() as db:
            events = [] if number is None else _read(db, tenant, number)
            if number is not None and not events:
                return None
            new = said(_folded(tenant, number, events) if number is not None else None)
            if number is None:
                last = db.execute("SELECT max(number) FROM events WHERE tenant = ?", (tenant,)).fetchone()[0]
                number = (last or 0) + 1
            for kind, data in new:
                one = made(tenant, number, events[-1].event if events else None, at_ms, actor, kind, data)
                _insert(db, tenant, number, one)
                events.append(one)
            after = _folded(tenant, number, events)
            if new:
                _index(db, after)
            return after

    def redact(
        self,
        tenant: str,
        number: int,
        chosen: Callable[[Incident], Mapping[int, Mapping[str, Any]]],
        *,
        why: str,
        actor: str,
        at_ms: int,
    ) -> Incident | None:
        """Put other data in the place of chosen events' (by number), and leave nothing of what stood there in the file.

        One event more tells of it. Where nothing is chosen, what an earlier redaction could not yet take out of the
        file goes all the same. Returns the incident as it is then; None where there is none of this number.
        """
        with self.changing() as db:
            before = _read(db, tenant, number)
            if not before:
                return None
            events, new = before, chosen(_folded(tenant, number, before))
            if new:
                events = redacted(tenant, number, before, new)
                told = _told(before, events, new, why)
                events.append(made(tenant, number, events[-1].event, at_ms, actor, REDACTED, told))
                db.execute("DROP TRIGGER events_are_as_said")
                for one in events[:-1]:
                    event = one.event
                    db.execute(
                        "UPDATE events SET data = ?, digest = ?, salt = ?, said = ? "
                        "WHERE tenant = ? AND number = ? AND seq = ?",
                        (encode(event.data), event.digest, one.salt, one.said, tenant, number, event.seq),
                    )
                db.execute(_AS_SAID)
                _insert(db, tenant, number, events[-1])
                _index(db, _folded(tenant, number, events))
            db.execute("INSERT INTO words (words) VALUES ('rebuild')")  # its pages hold words that were deleted
        self.scrub()
        return _folded(tenant, number, events)

    def read(self, tenant: str, number: int) -> Incident | None:
        """An incident of this tenant. Raises `IntegrityError` when its events are not as they were said."""
        with self.if_there() as db:
            events = [] if db is None else _read(db, tenant, number)
            return _folded(tenant, number, events) if events else None

    def numbers(self, tenant: str) -> list[int]:
        """The numbers of the tenant's incidents, newest first."""
        with self.if_there() as db:
            if db is None:
                return []
            rows = db.execute("SELECT DISTINCT number FROM events WHERE tenant = ? ORDER BY number DESC", (tenant,))
            return [number for (number,) in rows]

    def matching(self, tenant: str, expression: str, limit: int) -> list[tuple[int, float, str]]:
        """(number, score, the place that fits) of what an FTS5 expression finds, the best first."""
        with self.if_there() as db:
            if db is None:
                return []
            return list(
                db.execute(
                    "SELECT number, -bm25(words, 0, 0, ?, 1.0), snippet(words, -1, '', '', '…', 12) FROM words "
                    "WHERE words MATCH ? AND tenant = ? ORDER BY bm25(words, 0, 0, ?, 1.0), number DESC LIMIT ?",
                    (_TITLE_WEIGHT, expression, tenant, _TITLE_WEIGHT, limit),
                )
            )


def _folded(tenant: str, number: int, events: list[Stored]) -> Incident:
    return fold(tenant, number, [one.event for one in events])


def _told(
    before: Sequence[Stored], after: Sequence[Stored], new: Mapping[int, Mapping[str, Any]], why: str
) -> dict[str, Any]:
    """What the event of a redaction says; where digests were made anew, from which event on."""
    anew = [old.event.seq for old, one in zip(before, after, strict=True) if old.event.digest != one.event.digest]
    events = [{"seq": number, "left": left_of(data)} for number, data in sorted(new.items())]
    said: dict[str, Any] = {"why": why, "events": events}
    return said | ({"digests_anew_from": anew[0]} if anew else {})


def _insert(db: sqlite3.Connection, tenant: str, number: int, one: Stored) -> None:
    event = one.event
    db.execute(
        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            tenant, number, event.seq, event.at_ms, event.actor, event.kind, encode(event.data), event.digest,
            one.salt, one.said,
        ),
    )  # fmt: skip


def _index(db: sqlite3.Connection, incident: Incident) -> None:
    db.execute("DELETE FROM words WHERE tenant = ? AND number = ?", (incident.tenant, incident.number))
    text = (incident.tenant, incident.number, incident.title, incident.text())
    db.execute("INSERT INTO words VALUES (?, ?, ?, ?)", text)


def _read(db: sqlite3.Connection, tenant: str, number: int) -> list[Stored]:
    rows = db.execute(
        "SELECT seq, at_ms, actor, kind, data, digest, salt, said FROM events WHERE tenant = ? AND number = ? "
        "ORDER BY seq",
        (tenant, number),
    )
    return read(tenant, number, rows.fetchall())
