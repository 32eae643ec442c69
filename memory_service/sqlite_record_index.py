"""The record index in a SQLite file of its own: derived data, made again from the log whenever it is lost.

What few distinct values make up (verdict, action type, reasons, rules, policy, ...) is kept once as a *kind*, the
short strings of a provenance once as an *origin*; a row holds their numbers. So a condition on any of these becomes
a short list of numbers, one index serves them all, and their counts say which way into the table is the shortest.
A provenance name with very many values (a trace id) leaves the origins and is found by its hash (*marks*).
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from memory_service.index_batch import Batch
from memory_service.index_layout import KIND_COLUMNS, LAYOUT, SCHEMA, TABLES, key_of, label_number, mark_of
from memory_service.index_plan import Plan
from memory_service.index_sql import TRUE, Sql
from memory_service.record_index import Cursor, Fetch, IndexedRecord, IndexRow, Refused, facts_of, index_row
from memory_service.wal import use_wal
from schemas.errors import BadInput, IntegrityError, StorageUnavailable, UsageError
from schemas.ids import decision_bytes, decision_text, id_prefix, is_decision_id
from schemas.label import LabelEvent, is_last_word
from schemas.query import LABELS, And, Query, holds

_HELP = "run `lumyn index rebuild`"
_MOST = 2**63 - 1  # what SQLite counts up to
_CACHE_KIB = 32 * 1024
_CACHED = 50_000
_K = TypeVar("_K")
_V = TypeVar("_V")


class SqliteRecordIndex:
    """RecordIndex on one SQLite file; safe for several threads and processes."""

    def __init__(self, path: Path, epoch: str) -> None:
        """Open or create the index. `epoch` names the log that it must belong to."""
        self._path = path
        self._epoch = epoch
        self._lock = threading.RLock()
        self._generation = ""
        self._asked_of = ""
        self._cursors: list[sqlite3.Cursor] = []
        self._forget()
        with self._guard():
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
            use_wal(self._db)
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            self._open()

    def _open(self) -> None:
        with self._transaction():
            if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                for statement in SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._start_over()
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        for name, want in (("layout", LAYOUT), ("epoch", self._epoch)):
            if meta.get(name) != want:
                self._db.close()
                raise self._unavailable(f"the index is of {name} `{meta.get(name)}`, not `{want}`")

    def _start_over(self) -> None:
        meta = {"layout": LAYOUT, "epoch": self._epoch, "labels": "0", "generation": uuid.uuid4().hex}
        self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())

    def _forget(self) -> None:
        """Drop what is remembered of the file's numbers."""
        self._tenants: dict[str, int] = {}
        self._kinds: dict[tuple[int, bytes], int] = {}
        self._origins: dict[tuple[int, bytes], int] = {}
        self._shown: dict[int, tuple[Any, ...]] = {}

    def positions(self) -> dict[int, int]:
        with self._guard():
            self._asked_of = self._meta("generation")
            return dict(self._db.execute("SELECT partition, next FROM positions"))

    def labels_position(self) -> int:
        with self._guard():
            return int(self._meta("labels"))

    def _meta(self, key: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise self._unavailable(f"the index has no `{key}`")
        return str(row[0])

    def _notice_reset(self) -> None:
        """Forget the numbers of an index that was emptied, perhaps by another process."""
        generation = self._meta("generation")
        if generation != self._generation:
            self._forget()
            self._generation = generation

    def apply(
        self, records: Sequence[tuple[int, int, Mapping[str, Any]]], labels: Sequence[LabelEvent] = ()
    ) -> list[Refused]:
        refused = []
        with self._guard(), self._transaction():
            self._notice_reset()
            if self._asked_of not in ("", self._generation):  # these records go on from positions that are no more
                raise StorageUnavailable("the index was emptied meanwhile", where=str(self._path), help="try again")
            next_offsets: dict[int, int] = dict(self._db.execute("SELECT partition, next FROM positions"))
            batch = Batch(self._db)
            for partition, offset, record in records:
                if offset < next_offsets.get(partition, 0):
                    continue
                next_offsets[partition] = offset + 1
                try:
                    self._put(index_row(record, partition, offset), batch)
                except IntegrityError as error:
                    refused.append(Refused(partition, offset, error.message))
            batch.write()
            self._db.executemany("INSERT OR REPLACE INTO positions VALUES (?, ?)", next_offsets.items())
            self._apply_labels(labels)
        return refused

    def _put(self, row: IndexRow, batch: Batch) -> None:
        tenant, key = self._tenant(row.tenant), decision_bytes(row.decision_id)
        low, crowded = batch.split(tenant, row)
        kind, origin = self._kind(tenant, row), self._origin(tenant, low)
        early = self._db.execute(
            "DELETE FROM early_labels WHERE tenant = ? AND id = ? RETURNING label", (row.tenant, key)
        ).fetchone()
        inserted = self._db.execute(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                tenant,
                key,
                kind,
                origin,
                early[0] if early else None,
                row.partition,
                row.offset,
                row.subject_id,
                row.request_id,
                row.amount,
                row.amount_usd,
                bytes.fromhex(row.inputs_digest[7:]),
                row.uncertainty_score,
                row.failure_similarity,
            ),
        ).rowcount
        if inserted:
            batch.count(tenant, kind, origin)
            marks = [(tenant, mark_of(name, value), key) for name, value in crowded]
            self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", marks)
        else:  # the same decision again, further on: compaction keeps this one
            self._db.execute(
                "UPDATE rows SET partition = ?, offset = ? WHERE tenant = ? AND id = ?",
                (row.partition, row.offset, tenant, key),
            )

    def _tenant(self, name: str) -> int:
        known = self._tenants.get(name)
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO tenants (name, count) VALUES (?, 0)", (name,))
            known = self._db.execute("SELECT tenant FROM tenants WHERE name = ?", (name,)).fetchone()[0]
            _remember(self._tenants, name, known)
        return known

    def _kind(self, tenant: int, row: IndexRow) -> int:
        columns = (row.verdict, row.action_type, row.subject_type, row.policy, row.version, row.engine, row.currency)
        key = key_of([columns, row.reason_codes, row.rules])
        known = self._kinds.get((tenant, key))
        if known is None:
            known, is_new = self._interned("kinds", "kind", tenant, key)
            if is_new:
                names = ", ".join(f"{name} = ?" for name in KIND_COLUMNS)
                self._db.execute(f"UPDATE kinds SET {names} WHERE kind = ?", (*columns, known))
                for field, codes in (("reason", row.reason_codes), ("rule", row.rules)):
                    self._db.executemany(
                        "INSERT INTO codes VALUES (?, ?, ?, ?)",
                        [(known, field, place, code) for place, code in enumerate(codes)],
                    )
            _remember(self._kinds, (tenant, key), known)
        return known

    def _origin(self, tenant: int, values: Sequence[tuple[str, str]]) -> int:
        key = key_of(values)
        known = self._origins.get((tenant, key))
        if known is None:
            known, is_new = self._interned("origins", "origin", tenant, key)
            if is_new:
                self._db.executemany(
                    "INSERT INTO origin_values VALUES (?, ?, ?, ?)",
                    [(tenant, name, value, known) for name, value in values],
                )
            _remember(self._origins, (tenant, key), known)
        return known

    def _interned(self, table: str, column: str, tenant: int, key: bytes) -> tuple[int, bool]:
        row = self._db.execute(f"SELECT {column} FROM {table} WHERE tenant = ? AND key = ?", (tenant, key)).fetchone()
        if row:
            return int(row[0]), False
        cursor = self._db.execute(f"INSERT INTO {table} (tenant, key, count) VALUES (?, ?, 0)", (tenant, key))
        return int(cursor.lastrowid or 0), True

    def _apply_labels(self, events: Sequence[LabelEvent]) -> None:
        version = int(self._meta("labels"))
        for event in events:
            if event["version"] <= version:
                continue
            if event["version"] != version + 1:
                raise self._unavailable(f"label event {event['version']} came after {version}: events are missing")
            version = event["version"]
            if is_last_word(event) and is_decision_id(event["decision_id"]):
                name = event["label"] or "none"
                self._label(event["tenant"], decision_bytes(event["decision_id"]), label_number(name))
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'labels'", (str(version),))

    def _label(self, tenant: str, key: bytes, label: int | None) -> None:
        changed = self._db.execute(
            "UPDATE rows SET label = ? WHERE tenant = (SELECT tenant FROM tenants WHERE name = ?) AND id = ?",
            (label, tenant, key),
        ).rowcount
        if not changed:
            self._db.execute("INSERT OR REPLACE INTO early_labels VALUES (?, ?, ?)", (tenant, key, label))

    def find(
        self,
        query: Query | None = None,
        *,
        tenant: str | None,
        limit: int | None = None,
        after: Cursor | None = None,
        newest_first: bool = True,
        fetch: Fetch | None = None,
    ) -> list[IndexedRecord]:
        limit = None if limit is None else min(limit, _MOST)
        if limit is not None and limit <= 0:
            return []
        with self._guard(), self._snapshot():
            tenants = self._tenants_of(tenant)
            found = [self._in_tenant(code, query, limit, after, newest_first, fetch) for code, _, _ in tenants]
            rows = found[0] if len(found) == 1 else heapq.merge(*found, key=lambda row: row[1], reverse=newest_first)
            names = {code: name for code, name, _ in tenants}
            return [self._listed(names[row[0]], row) for row in itertools.islice(rows, limit)]

    def count(self, query: Query | None = None, *, tenant: str | None, fetch: Fetch | None = None) -> int:
        with self._guard(), self._snapshot():
            total = 0
            for code, name, rows in self._tenants_of(tenant):
                if query is None:
                    total += rows
                    continue
                plan = Plan(self._db, code, name, rows, query.expression)
                if plan.rest.exact:
                    total += plan.count()
                else:
                    total += sum(1 for _ in self._in_tenant(code, query, None, None, True, fetch))
            return total

    def by_prefix(self, prefix: str, tenant: str | None, limit: int = 2) -> list[str]:
        if id_prefix(prefix) != prefix:
            return []
        low, high = (decision_bytes(prefix.ljust(26, fill)) for fill in "0Z")
        with self._guard(), self._snapshot():
            found = [
                row[0]
                for code, _, _ in self._tenants_of(tenant)
                for row in self._db.execute(
                    "SELECT id FROM rows WHERE tenant = ? AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
                    (code, low, high, limit),
                )
            ]
            return [decision_text(key) for key in sorted(found)[:limit]]

    def _tenants_of(self, tenant: str | None) -> list[tuple[int, str, int]]:
        """(number, name, records) of one tenant or of all."""
        return self._db.execute(
            "SELECT tenant, name, count FROM tenants WHERE ? IS NULL OR name = ?", (tenant, tenant)
        ).fetchall()

    def _in_tenant(
        self,
        code: int,
        query: Query | None,
        limit: int | None,
        after: Cursor | None,
        newest_first: bool,
        fetch: Fetch | None,
    ) -> Iterator[tuple[Any, ...]]:
        """A tenant's matching rows in order, each with the tenant's number before its columns."""
        name, total = self._db.execute("SELECT name, count FROM tenants WHERE tenant = ?", (code,)).fetchone()
        plan = Plan(self._db, code, name, total, query.expression if query else And(()), self._cursors)
        if not plan.rest.exact and fetch is None:
            raise UsageError("this query needs the records themselves: give `fetch`")
        edge = TRUE if after is None else Sql(f"id {'<' if newest_first else '>'} ?", (_cursor_key(after),))
        rows = plan.rows(edge, None if not plan.rest.exact else limit, newest_first)
        if plan.rest.exact or query is None or fetch is None:
            return ((code, *row) for row in rows)
        return ((code, *row) for row in rows if _agrees(query, row, fetch))

    def _listed(self, tenant: str, row: tuple[Any, ...]) -> IndexedRecord:
        _, key, kind, label, partition, offset, subject_id, amount, amount_usd = row
        verdict, action_type, policy, version, currency, reasons, rules = self._kind_shown(kind)
        return IndexedRecord(
            decision_id=decision_text(key),
            tenant=tenant,
            created_ms=int.from_bytes(key[:6], "big"),
            verdict=verdict,
            reason_codes=reasons,
            action_type=action_type,
            subject_id=subject_id,
            policy=policy,
            version=version,
            amount=amount,
            currency=currency,
            amount_usd=amount_usd,
            partition=partition,
            offset=offset,
            label=label and LABELS[label],
            rules=rules,
        )

    def _kind_shown(self, kind: int) -> tuple[Any, ...]:
        shown = self._shown.get(kind)
        if shown is None:
            columns = self._db.execute(
                "SELECT verdict, action_type, policy, policy_version, currency FROM kinds WHERE kind = ?", (kind,)
            ).fetchone()
            codes = self._db.execute("SELECT field, code FROM codes WHERE kind = ? ORDER BY field, place", (kind,))
            by_field = {"reason": (), "rule": ()} | {
                field: tuple(code for _, code in some)
                for field, some in itertools.groupby(codes.fetchall(), key=lambda row: row[0])
            }
            shown = (*columns, by_field["reason"], by_field["rule"])
            _remember(self._shown, kind, shown)
        return shown

    def reset(self) -> None:
        with self._guard(), self._transaction():
            for table in TABLES:
                self._db.execute(f"DELETE FROM {table}")
            self._start_over()
            self._notice_reset()
            self._asked_of = self._generation

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """One thread at a time; every fault of the file is `StorageUnavailable`."""
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                raise self._unavailable(f"the index can't be used: {error}") from None

    def _unavailable(self, message: str) -> StorageUnavailable:
        return StorageUnavailable(message, where=str(self._path), help=_HELP)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._forget()  # numbers given out in it are void
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _snapshot(self) -> Iterator[None]:
        """All reads of one question see the same state."""
        self._db.execute("BEGIN")
        try:
            self._notice_reset()
            yield
        finally:
            for cursor in self._cursors:  # one left open would hold this state on
                cursor.close()
            self._cursors.clear()
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _cursor_key(after: Cursor) -> bytes:
    if not is_decision_id(after):
        raise BadInput("this cursor is not one that a list gave")
    return decision_bytes(after)


def _agrees(query: Query, row: tuple[Any, ...], fetch: Fetch) -> bool:
    label, partition, offset = row[2:5]
    record = fetch(partition, offset)
    return record is not None and holds(query.expression, facts_of(record, label and LABELS[label]))


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def remove_index_file(path: Path) -> None:
    """Remove the index's files, so that the next opening starts from nothing. The log is not touched."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
