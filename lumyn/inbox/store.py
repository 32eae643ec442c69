"""Who has which escalation, and who resolved it when: events, only added to, in a SQLite file of the home.

What somebody said about a case is not here: it is the summary of the label that the resolution becomes, which is sealed
and forgotten with its subject where subjects are encrypted. Nor is what is open: that is said by the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from memory_service.sqlite_file import SqliteFile
from streams.local_log import wall_clock_ms

FILE: Final = "inbox.db"
EventType = Literal["assigned", "resolved", "reopened"]
_LAYOUTS: Final = (
    (
        "CREATE TABLE IF NOT EXISTS events (seq INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, "
        "decision_id TEXT NOT NULL, type TEXT NOT NULL, actor TEXT NOT NULL, at_ms INTEGER NOT NULL, assignee TEXT, "
        "verdict TEXT, again INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX IF NOT EXISTS events_of ON events (tenant, decision_id, seq)",
        "CREATE INDEX IF NOT EXISTS events_newest ON events (tenant, type, seq)",
        "CREATE TRIGGER IF NOT EXISTS events_stay BEFORE UPDATE ON events "
        "BEGIN SELECT RAISE(ABORT, 'the inbox is only added to'); END",
        "CREATE TRIGGER IF NOT EXISTS events_kept BEFORE DELETE ON events "
        "BEGIN SELECT RAISE(ABORT, 'the inbox is only added to'); END",
    ),
)
_COLUMNS: Final = "seq, decision_id, type, actor, at_ms, assignee, verdict, again"
_MOST: Final = 4000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that somebody did with an escalation. `assignee` of `assigned`: empty is nobody.

    `verdict` of `resolved`: what he decided; `again` (0 or 1): a person is to be asked the next time, too.
    """

    seq: int
    decision_id: str
    type: EventType
    actor: str
    at_ms: int
    assignee: str | None
    verdict: str | None
    again: int


class InboxStore(SqliteFile):
    """The events of a home. Safe for several threads and processes. All raise `StorageUnavailable`."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / FILE, "the escalations", _LAYOUTS)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else, of any process, changes the inbox within; an exception takes back what was added."""
        with self.changing():
            yield

    def add(
        self,
        tenant: str,
        decision_id: str,
        type: EventType,
        actor: str,
        *,
        assignee: str | None = None,
        verdict: str | None = None,
        again: bool = False,
    ) -> int:
        """Add an event (within `alone`); returns its number."""
        row = (tenant, decision_id, type, actor, wall_clock_ms(), assignee, verdict, int(again))
        with self.opened() as db:
            done = db.execute(
                "INSERT INTO events (tenant, decision_id, type, actor, at_ms, assignee, verdict, again) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(done.lastrowid or 0)

    def of(self, tenant: str, decision_id: str) -> list[Event]:
        """All events of an escalation, in order."""
        return self._events("tenant = ? AND decision_id = ? ORDER BY seq", (tenant, decision_id))

    def last(self, tenant: str, decision_ids: Sequence[str]) -> dict[str, Event]:
        """The last event of each escalation that has one."""
        found: dict[str, Event] = {}
        for start in range(0, len(decision_ids), 500):
            some = decision_ids[start : start + 500]
            places = ", ".join("?" * len(some))
            for event in self._events(f"tenant = ? AND decision_id IN ({places}) ORDER BY seq", (tenant, *some)):
                found[event.decision_id] = event
        return found

    def assigned(self, tenant: str, assignee: str | None = None) -> list[str]:
        """Escalations whose last event gives them to somebody, or to `assignee`; the newest few thousand."""
        newest = "seq IN (SELECT MAX(seq) FROM events WHERE tenant = ? GROUP BY decision_id)"
        whom = "assignee = ?" if assignee is not None else "assignee <> ''"
        values = (tenant, assignee) if assignee is not None else (tenant,)
        rows = self._events(f"{newest} AND type = 'assigned' AND {whom} ORDER BY seq DESC LIMIT {_MOST}", values)
        return [event.decision_id for event in rows]

    def resolved(self, tenant: str, limit: int) -> list[Event]:
        """The last resolutions, newest first."""
        return self._events("tenant = ? AND type = 'resolved' ORDER BY seq DESC LIMIT ?", (tenant, limit))

    def all_of(self, tenant: str) -> list[Event]:
        """All events of a tenant, in order."""
        return self._events("tenant = ? ORDER BY seq", (tenant,))

    def _events(self, condition: str, values: tuple[object, ...]) -> list[Event]:
        with self.if_there() as db:
            if db is None:
                return []
            rows = db.execute(f"SELECT {_COLUMNS} FROM events WHERE {condition}", values).fetchall()
        return [Event(*row) for row in rows]
