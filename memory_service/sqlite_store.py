"""The exact memory store: points in a SQLite file of their own, recalled by the exact in-process index.

The file is derived: everything in it can be made again from the `labels` topic. It is apart from the log so that a
broken memory is an outage of the memory, which decisions survive, not of the log.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from memory_service.blocks import Array
from memory_service.exact_index import ExactIndex
from memory_service.fold import DecisionLabels, Standing, apply_event, set_trust, standing
from memory_service.point import OPEN, Point
from memory_service.profile import amount_of, has_comparable_amount
from memory_service.redaction import kept_event
from memory_service.store import Found, Search, Watermark
from memory_service.vectoriser import Vectoriser
from memory_service.wal import use_wal
from schemas.canonical import decode_trusted, encode
from schemas.errors import MemoryUnavailable
from schemas.ids import time_ms_of
from schemas.label import FULL_TRUST, LabelEvent, labellers_of, speaks_of_labeller, trust_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS labelled (decision_id TEXT PRIMARY KEY, state BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spoken (
    tenant TEXT NOT NULL, labeller TEXT NOT NULL, decision_id TEXT NOT NULL,
    PRIMARY KEY (tenant, labeller, decision_id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trust (
    tenant TEXT NOT NULL, labeller TEXT NOT NULL, trust INTEGER NOT NULL, PRIMARY KEY (tenant, labeller)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS points (
    memory_id TEXT NOT NULL, from_version INTEGER NOT NULL, to_version INTEGER NOT NULL,
    tenant TEXT NOT NULL, action_type TEXT NOT NULL, payload BLOB NOT NULL, vector BLOB NOT NULL,
    PRIMARY KEY (memory_id, from_version)
);
CREATE INDEX IF NOT EXISTS points_from ON points (from_version);
CREATE INDEX IF NOT EXISTS points_to ON points (to_version) WHERE to_version < 4611686018427387904;
"""
_NEWER = """
SELECT * FROM points WHERE from_version > ?
UNION SELECT * FROM points WHERE to_version > ? AND to_version < ? ORDER BY 2, 1
"""
_LAYOUT = "2"
_BATCH = 512
_EMPTIED_WITHIN_S = 5.0
_HELP = "run `lumyn memory rebuild` to make it again from the labels"


class SqliteMemoryStore:
    """MemoryStore on one SQLite file; safe for several threads and processes."""

    def __init__(self, path: Path, vectoriser: Vectoriser, epoch: str) -> None:
        """Open or create the store. `epoch` names the `labels` topic generation that it must belong to."""
        self._path = path
        self._vectoriser = vectoriser
        self._lock = threading.RLock()
        self._index = ExactIndex()
        self._indexed = 0
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            use_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._open(epoch)
        except sqlite3.Error as error:
            raise MemoryUnavailable(f"memory can't be opened: {error}", where=str(path), help=_HELP) from None

    def _open(self, epoch: str) -> None:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                if not self._meta():  # another process may have made it meanwhile
                    self._put_meta(layout=_LAYOUT, epoch=epoch, version="0", vectoriser_id=self._vectoriser.id)
        meta = self._meta()
        for name, want in (("layout", _LAYOUT), ("epoch", epoch), ("vectoriser_id", self._vectoriser.id)):
            if meta.get(name) != want:
                self._db.close()
                raise MemoryUnavailable(
                    f"memory is of {name} `{meta.get(name)}`, not `{want}`", where=str(self._path), help=_HELP
                )

    def _meta(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT key, value FROM meta"))

    def _put_meta(self, **values: str) -> None:
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)

    def watermark(self) -> Watermark:
        with self._lock, self._guard():
            meta = self._meta()
            count = self._db.execute("SELECT count(*) FROM points WHERE to_version = ?", (OPEN,)).fetchone()[0]
            return Watermark(meta["epoch"], int(meta["version"]), count, meta["vectoriser_id"])

    def version(self) -> int:
        """The last label event applied: what `watermark` says, without counting points."""
        with self._lock, self._guard():
            return self._version()

    def _version(self) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        if row is None:
            raise MemoryUnavailable("memory has no version", where=str(self._path), help=_HELP)
        return int(row[0])

    def apply(self, events: Sequence[LabelEvent]) -> Watermark:
        with self._lock, self._guard():
            for start in range(0, len(events), _BATCH):
                batch = events[start : start + _BATCH]
                with self._transaction():
                    self._apply(batch)
                if any(event["type"] == "forget" for event in batch):
                    self._index, self._indexed = ExactIndex(), 0
                    self._empty_wal()
            return self.watermark()

    def _apply(self, events: Sequence[LabelEvent]) -> None:
        """One transaction: another process may have applied some of these since, so the version decides."""
        version = self._version()
        fresh = [kept_event(event, self._vectoriser.profile) for event in events if event["version"] > version]
        parts = {e["decision_id"]: e["decision"]["facts"] for e in fresh if e["decision"] is not None}
        vectors = dict(zip(parts, self._vectoriser.vectorise(list(parts.values())), strict=True))
        trusts = {(tenant, name): trust for tenant, name, trust in self._db.execute("SELECT * FROM trust")}
        for event in fresh:
            if event["version"] != version + 1:
                raise MemoryUnavailable(
                    f"label event {event['version']} came after {version}: events are missing",
                    where=str(self._path),
                    help=_HELP,
                )
            version = event["version"]
            if speaks_of_labeller(event):
                self._apply_trust(event)
                trusts[event["tenant"], str(event.get("labeller"))] = trust_of(event)
            elif event["decision"] is not None:
                self._apply_one(event, vectors[event["decision_id"]].values, trusts)
            elif event["type"] == "forget":
                self._forget(str(event.get("subject")), version)
        if fresh:
            self._put_meta(version=str(version))

    def _forget(self, subject: str, version: int) -> None:
        """Take a subject's memories out, of every version: what was a point is nowhere any more."""
        names = self._db.execute(
            "SELECT decision_id FROM labelled WHERE json_extract(CAST(state AS TEXT), '$.decision.subject') = ?",
            (subject,),
        ).fetchall()
        for table, column in (("points", "memory_id"), ("labelled", "decision_id"), ("spoken", "decision_id")):
            self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", names)
        self._put_meta(forgotten=str(version))

    def _empty_wal(self) -> None:
        """What was deleted is overwritten in the file (`secure_delete`); older pages must not stay beside it."""
        until = time.monotonic() + _EMPTIED_WITHIN_S
        while self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] and time.monotonic() < until:
            time.sleep(0.01)

    def _apply_one(self, event: LabelEvent, vector: Array, trusts: Mapping[tuple[str, str], int]) -> None:
        decision_id, tenant, decision = event["decision_id"], event["tenant"], event["decision"]
        row = self._db.execute("SELECT state FROM labelled WHERE decision_id = ?", (decision_id,)).fetchone()
        assert decision is not None
        labels = DecisionLabels.from_dict(decode_trusted(row[0])) if row else DecisionLabels(tenant, decision)
        for name in labellers_of(event):
            self._db.execute("INSERT OR IGNORE INTO spoken VALUES (?, ?, ?)", (tenant, name, decision_id))
            set_trust(labels, name, trusts.get((tenant, name), FULL_TRUST))
        self._take(decision_id, labels, event, lambda: vector)

    def _apply_trust(self, event: LabelEvent) -> None:
        """All that a labeller spoke of stands as the new trust in him has it."""
        tenant, labeller = event["tenant"], event.get("labeller")
        self._db.execute("INSERT OR REPLACE INTO trust VALUES (?, ?, ?)", (tenant, labeller, trust_of(event)))
        spoken = "SELECT decision_id FROM spoken WHERE tenant = ? AND labeller = ?"
        for (decision_id,) in self._db.execute(spoken, (tenant, labeller)).fetchall():
            row = self._db.execute("SELECT state FROM labelled WHERE decision_id = ?", (decision_id,)).fetchone()
            labels = DecisionLabels.from_dict(decode_trusted(row[0]))
            self._take(decision_id, labels, event, partial(self._vector_of, decision_id, labels))

    def _vector_of(self, decision_id: str, labels: DecisionLabels) -> Array:
        """A labelled decision's vector: that of a point that it has or had, or made anew."""
        row = self._db.execute("SELECT vector FROM points WHERE memory_id = ? LIMIT 1", (decision_id,)).fetchone()
        if row:
            return np.frombuffer(row[0], dtype=np.int16).astype(np.float32)
        return self._vectoriser.vectorise([labels.decision["facts"]])[0].values

    def _take(
        self, decision_id: str, labels: DecisionLabels, event: LabelEvent, vector_of: Callable[[], Array]
    ) -> None:
        """Take an event into a decision's labels, closing and opening points where what it stands for changes."""
        before, version = standing(labels), event["version"]
        apply_event(labels, event)
        state = encode(labels.as_dict(), finite=True)
        self._db.execute("INSERT OR REPLACE INTO labelled VALUES (?, ?)", (decision_id, state))
        after = standing(labels)
        if after == before:
            return
        if before is not None:
            self._db.execute(
                "UPDATE points SET to_version = ? WHERE memory_id = ? AND to_version = ?", (version, decision_id, OPEN)
            )
        if after is not None:
            self._open_point(decision_id, version, labels, after, vector_of())

    def _open_point(
        self, decision_id: str, version: int, labels: DecisionLabels, after: Standing, vector: Array
    ) -> None:
        payload = {
            "label": after.label,
            "meaning": after.meaning,
            "contested": after.contested,
            "labeller": after.labeller,
            "summary": after.summary,
            "trust": after.trust,
            "at": time_ms_of(after.at),
            "verdict": labels.decision["verdict"],
            "rules": labels.decision["rules"],
            "amount": amount_of(labels.decision["facts"], self._vectoriser.profile),
            "comparable": has_comparable_amount(labels.decision["facts"], self._vectoriser.profile),
        }
        self._db.execute(
            "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                decision_id,
                version,
                OPEN,
                labels.tenant,
                labels.decision["action_type"],
                encode(payload, finite=True),
                vector.astype(np.int16).tobytes(),
            ),
        )

    def search(self, searches: Sequence[Search]) -> list[Found]:
        with self._lock, self._guard():
            newest = max((s.version for s in searches), default=0)
            if newest > self._indexed:
                self._refresh()
            if newest > self._indexed:
                raise MemoryUnavailable(
                    f"memory stands at version {self._indexed}, asked for {newest}", where=str(self._path)
                )
            return self._index.search(searches)

    def _refresh(self) -> None:
        """Bring the index up to the file: points opened or closed since."""
        self._db.execute("BEGIN")
        try:
            version = self._version()
            forgotten = int(self._meta().get("forgotten", 0))
            if self._indexed < forgotten:  # another process took points out: only a new index is without them
                self._index, self._indexed = ExactIndex(), 0
            if self._indexed:
                rows = self._db.execute(_NEWER, (self._indexed, self._indexed, OPEN))
            else:  # row by row in the index's own order: all of them need not be held twice
                rows = self._db.execute("SELECT * FROM points ORDER BY from_version")
            self._index.put(map(_point, rows))
        except BaseException:  # half an index answers wrongly: the next question makes it anew
            self._index, self._indexed = ExactIndex(), 0
            raise
        finally:
            self._db.execute("COMMIT")
        self._indexed = version

    def points(self, tenant: str | None = None, version: int | None = None) -> Iterator[Point]:
        with self._lock, self._guard():
            at = self._version() if version is None else version
            rows = self._db.execute(
                "SELECT * FROM points WHERE from_version <= ? AND ? < to_version AND (? IS NULL OR tenant = ?) "
                "ORDER BY memory_id",
                (at, at, tenant, tenant),
            ).fetchall()
            points = [_point(row) for row in rows]
        yield from points

    def is_remembered(self, memory_id: str) -> bool:
        with self._lock, self._guard():
            query = "SELECT 1 FROM points WHERE memory_id = ? AND to_version = ?"
            return self._db.execute(query, (memory_id, OPEN)).fetchone() is not None

    def reset(self, epoch: str) -> None:
        with self._lock, self._guard(), self._transaction():
            for table in ("points", "labelled", "spoken", "trust", "meta"):
                self._db.execute(f"DELETE FROM {table}")
            self._put_meta(layout=_LAYOUT, epoch=epoch, version="0", vectoriser_id=self._vectoriser.id)
            self._index = ExactIndex()
            self._indexed = 0

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _guard(self) -> _Guard:
        return _Guard(self._path)


def _point(row: Sequence[Any]) -> Point:
    memory_id, from_version, to_version, tenant, action_type, payload, vector = row
    value = decode_trusted(payload)
    return Point(
        memory_id=memory_id,
        tenant=intern(tenant),  # said of very many points: kept once
        action_type=intern(action_type),
        meaning=value["meaning"],
        label=intern(value["label"]),
        verdict=value["verdict"],
        rules=tuple(value["rules"]),
        amount=value["amount"],
        contested=value["contested"],
        comparable=value["comparable"],
        labeller=intern(value["labeller"]),
        summary=value["summary"],
        trust=value["trust"],
        at_ms=value["at"],
        from_version=from_version,
        to_version=to_version,
        vector=np.frombuffer(vector, dtype=np.int16).astype(np.float32),
    )


class _Transaction:
    """BEGIN IMMEDIATE ... COMMIT, or ROLLBACK on any exception."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("ROLLBACK" if kind else "COMMIT")


class _Guard:
    """Turns every fault of the file into `MemoryUnavailable`: a memory that can't answer rightly is unavailable."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, sqlite3.Error | KeyError | ValueError | TypeError | OSError):
            raise MemoryUnavailable(f"memory can't answer: {error}", where=str(self._path), help=_HELP) from error


def rebuild_file(path: Path) -> None:
    """Remove the store's files, so that the next opening starts from nothing. The log is not touched."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
