"""The record index in a SQLite file of its own: derived data, made again from the log whenever it is lost.

What few distinct values make up (verdict, action type, reasons, rules, policy, ...) is kept once as a *kind*, the
short strings of a provenance once as an *origin*; a row holds their numbers. So a condition on any of these becomes
a short list of numbers, one index serves them all, and their counts say which way into the table is the shortest.
A provenance name with very many values (a trace id) leaves the origins and is found by its hash (*marks*).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from memory_service.record_index import Cursor, Fetch, IndexedRecord, IndexRow, Refused, facts_of, index_row
from memory_service.wal import use_wal
from schemas.canonical import encode
from schemas.errors import BadInput, IntegrityError, StorageUnavailable, UsageError
from schemas.ids import decision_bytes, decision_text, id_prefix, is_decision_id
from schemas.label import LabelEvent, is_last_word
from schemas.query import LABELS, And, Expression, Field, Leaf, Not, OneOf, Or, Query, Range, holds, leaves

_LAYOUT = "1"
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
CREATE TABLE tenants (tenant INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, count INTEGER NOT NULL);
CREATE TABLE kinds (
    kind INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, key BLOB NOT NULL, count INTEGER NOT NULL,
    verdict TEXT, action_type TEXT, subject_type TEXT, policy TEXT, policy_version TEXT, engine TEXT, currency TEXT,
    UNIQUE (tenant, key)
);
CREATE TABLE codes (
    kind INTEGER NOT NULL, field TEXT NOT NULL, place INTEGER NOT NULL, code TEXT NOT NULL,
    PRIMARY KEY (kind, field, place)
) WITHOUT ROWID;
CREATE INDEX codes_code ON codes (code, field);
CREATE TABLE origins (
    origin INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, key BLOB NOT NULL, count INTEGER NOT NULL,
    UNIQUE (tenant, key)
);
CREATE TABLE origin_values (
    tenant INTEGER NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, origin INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, value, origin)
) WITHOUT ROWID;
CREATE TABLE names (
    tenant INTEGER NOT NULL, name TEXT NOT NULL, distinct_values INTEGER NOT NULL, unindexed INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE marks (tenant INTEGER NOT NULL, mark BLOB NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (tenant, mark, id)) WITHOUT ROWID;
CREATE TABLE early_labels (tenant TEXT NOT NULL, id BLOB NOT NULL, label INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)) WITHOUT ROWID;
CREATE TABLE rows (
    tenant INTEGER NOT NULL, id BLOB NOT NULL, kind INTEGER NOT NULL, origin INTEGER NOT NULL,
    label INTEGER, partition INTEGER NOT NULL, offset INTEGER NOT NULL, subject_id TEXT, request_id TEXT,
    amount, amount_usd, inputs_digest BLOB NOT NULL, uncertainty_score REAL, failure_similarity REAL,
    PRIMARY KEY (tenant, id)
) WITHOUT ROWID;
CREATE INDEX rows_kind ON rows (tenant, kind);
CREATE INDEX rows_origin ON rows (tenant, origin);
CREATE INDEX rows_subject ON rows (tenant, subject_id);
CREATE INDEX rows_request ON rows (tenant, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX rows_digest ON rows (tenant, substr(inputs_digest, 1, 4));
CREATE INDEX rows_label ON rows (tenant, label) WHERE label IS NOT NULL;
"""
_TABLES = (
    "positions",
    "tenants",
    "kinds",
    "codes",
    "origins",
    "origin_values",
    "names",
    "marks",
    "early_labels",
    "rows",
)
_HELP = "run `lumyn index rebuild`"
_KIND_COLUMNS = ("verdict", "action_type", "subject_type", "policy", "policy_version", "engine", "currency")
_KIND_FIELDS = frozenset({*_KIND_COLUMNS, "reason", "rule"})
_COLUMNS = "id, kind, label, partition, offset, subject_id, amount, amount_usd"
_MOST = 2**63 - 1  # what SQLite counts up to
_CROWDED = 1000
_MOST_RUNS = 256
_CACHE_KIB = 32 * 1024
_CACHED = 50_000
_LAST_ID = (1 << 128) - 1
_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class _Sql:
    """A condition. `exact` False: it lets more through than it should, and the record has to be asked."""

    text: str
    values: tuple[Any, ...] = ()
    exact: bool = True


_TRUE, _FALSE, _UNKNOWN = _Sql("1"), _Sql("0"), _Sql("1", exact=False)


@dataclass(frozen=True, slots=True)
class _Run:
    """A way into the table that yields rows in the order of their ids."""

    source: str
    condition: _Sql
    rows: int


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
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                self._start_over()
            meta = dict(self._db.execute("SELECT key, value FROM meta"))
        for name, want in (("layout", _LAYOUT), ("epoch", self._epoch)):
            if meta.get(name) != want:
                self._db.close()
                raise self._unavailable(f"the index is of {name} `{meta.get(name)}`, not `{want}`")

    def _start_over(self) -> None:
        meta = {"layout": _LAYOUT, "epoch": self._epoch, "labels": "0", "generation": uuid.uuid4().hex}
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
            batch = _Batch(self._db)
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

    def _put(self, row: IndexRow, batch: _Batch) -> None:
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
            marks = [(tenant, _mark(name, value), key) for name, value in crowded]
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
        key = _key([columns, row.reason_codes, row.rules])
        known = self._kinds.get((tenant, key))
        if known is None:
            known, is_new = self._interned("kinds", "kind", tenant, key)
            if is_new:
                names = ", ".join(f"{name} = ?" for name in _KIND_COLUMNS)
                self._db.execute(f"UPDATE kinds SET {names} WHERE kind = ?", (*columns, known))
                for field, codes in (("reason", row.reason_codes), ("rule", row.rules)):
                    self._db.executemany(
                        "INSERT INTO codes VALUES (?, ?, ?, ?)",
                        [(known, field, place, code) for place, code in enumerate(codes)],
                    )
            _remember(self._kinds, (tenant, key), known)
        return known

    def _origin(self, tenant: int, values: Sequence[tuple[str, str]]) -> int:
        key = _key(values)
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
                self._label(event["tenant"], decision_bytes(event["decision_id"]), _label_number(name))
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
                plan = _Plan(self._db, code, name, rows, query.expression)
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
        plan = _Plan(self._db, code, name, total, query.expression if query else And(()), self._cursors)
        if not plan.rest.exact and fetch is None:
            raise UsageError("this query needs the records themselves: give `fetch`")
        edge = _TRUE if after is None else _Sql(f"id {'<' if newest_first else '>'} ?", (_cursor_key(after),))
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
            for table in _TABLES:
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


class _Batch:
    """What one transaction of `apply` sums up: counts, and what is known of provenance names."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._names: dict[tuple[int, str], tuple[int, int]] = {}
        self._seen: set[tuple[int, str, str]] = set()
        self._counts: dict[tuple[str, int], int] = {}

    def split(self, tenant: int, row: IndexRow) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Provenance values that go into the origin, and those of names with too many values for that."""
        low: list[tuple[str, str]] = []
        crowded: list[tuple[str, str]] = []
        for name, value in row.provenance:
            distinct, unindexed = self._name(tenant, name)
            if distinct < _CROWDED and self._is_new(tenant, name, value):
                self._names[tenant, name] = (distinct + 1, unindexed)
            (low if distinct < _CROWDED else crowded).append((name, value))
        for name in row.unindexed:
            self._names[tenant, name] = (self._name(tenant, name)[0], 1)
        return low, crowded

    def _name(self, tenant: int, name: str) -> tuple[int, int]:
        known = self._names.get((tenant, name))
        if known is None:
            row = self._db.execute(
                "SELECT distinct_values, unindexed FROM names WHERE tenant = ? AND name = ?", (tenant, name)
            ).fetchone()
            known = self._names[tenant, name] = row or (0, 0)
        return known

    def _is_new(self, tenant: int, name: str, value: str) -> bool:
        if (tenant, name, value) in self._seen:
            return False
        self._seen.add((tenant, name, value))
        return not self._db.execute(
            "SELECT 1 FROM origin_values WHERE tenant = ? AND name = ? AND value = ?", (tenant, name, value)
        ).fetchone()

    def count(self, tenant: int, kind: int, origin: int) -> None:
        """One more row."""
        for key in (("tenant", tenant), ("kind", kind), ("origin", origin)):
            self._counts[key] = self._counts.get(key, 0) + 1

    def write(self) -> None:
        """Put it all into the file."""
        for (what, number), more in self._counts.items():
            self._db.execute(f"UPDATE {what}s SET count = count + ? WHERE {what} = ?", (more, number))
        self._db.executemany(
            "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", [(*key, *known) for key, known in self._names.items()]
        )


class _Plan:
    """How one query runs in one tenant: the shortest way into the table, and what is left to check on the way."""

    def __init__(
        self,
        db: sqlite3.Connection,
        tenant: int,
        name: str,
        total: int,
        expression: Expression,
        cursors: list[sqlite3.Cursor] | None = None,
    ) -> None:
        """`cursors` receives those that `rows` leaves open."""
        self._db = db
        self._cursors = [] if cursors is None else cursors
        self._tenant = tenant
        self._name = name
        terms = list(_conjuncts(expression))
        of_kind = [term for term in terms if _is_of_kind(term)]
        others = [term for term in terms if not _is_of_kind(term)]
        rest = [self._where(term, True, "id") for term in others]
        kinds = self._few_kinds(of_kind)
        ways = [runs for runs in map(self._ways, others) if runs is not None]
        if kinds is not None:
            ways.append([_Run("rows INDEXED BY rows_kind", _Sql("kind = ?", (kind,)), count) for kind, count in kinds])
            of_kinds = _in("+kind", [kind for kind, _ in kinds])
        else:
            of_kinds = self._kind_where(And(tuple(of_kind)), True) if of_kind else _TRUE
        self._runs = min(ways, key=lambda runs: sum(run.rows for run in runs), default=None)
        if self._runs is not None and sum(run.rows for run in self._runs) * 4 > total > 1000:
            self._runs = None  # so many rows match that reading on in order finds them sooner
        by_kind = kinds is not None and self._runs is ways[-1]
        self.rest = _all(rest if by_kind or not of_kind else [of_kinds, *rest])
        self._only_kinds = sum(count for _, count in kinds) if kinds is not None and not others else None

    def rows(self, edge: _Sql, limit: int | None, newest_first: bool) -> Iterator[tuple[Any, ...]]:
        """Rows in order. Each run is in order by itself; merging them keeps it without sorting."""
        order = "DESC" if newest_first else "ASC"
        cursors = [
            self._db.execute(
                f"SELECT {_COLUMNS} {text} ORDER BY id {order} LIMIT ?", (*values, -1 if limit is None else limit)
            )
            for text, values in self._selects(edge)
        ]
        self._cursors += cursors
        if len(cursors) == 1:
            return cursors[0]
        return heapq.merge(*cursors, key=lambda row: row[0], reverse=newest_first)

    def count(self) -> int:
        """How many rows, when `rest` is exact."""
        if self._only_kinds is not None:
            return self._only_kinds
        selects = self._selects(_TRUE)
        return sum(self._db.execute(f"SELECT count(*) {text}", values).fetchone()[0] for text, values in selects)

    def _selects(self, edge: _Sql) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if self.rest.text == "0":
            return
        runs = self._runs if self._runs is not None else [_Run("rows", _TRUE, 0)]
        for run in runs:
            where = _all([run.condition, edge, self.rest])
            yield f"FROM {run.source} WHERE tenant = ? AND {where.text}", (self._tenant, *where.values)

    def _few_kinds(self, terms: Sequence[Expression]) -> list[tuple[int, int]] | None:
        """(kind, rows) of the kinds that meet all terms; None when there are no terms, or too many kinds."""
        if not terms:
            return None
        where = self._kinds(And(tuple(terms)))
        found = self._db.execute(
            f"SELECT kind, count FROM kinds WHERE tenant = ? AND {where.text} LIMIT ?",
            (self._tenant, *where.values, _MOST_RUNS + 1),
        ).fetchall()
        return found if len(found) <= _MOST_RUNS else None

    def _ways(self, term: Expression) -> list[_Run] | None:
        """Runs that together yield every row that meets this term, or None."""
        if not isinstance(term, OneOf) or None in term.values or len(term.values) > _MOST_RUNS:
            return None
        field, term = term.field, replace(term, values=tuple(dict.fromkeys(term.values)))  # a row has one way
        if field.name in ("subject_id", "request_id"):
            source = f"rows INDEXED BY rows_{field.name.removesuffix('_id')}"
            return [self._probed(source, _Sql(f"{field.name} = ?", (value,))) for value in term.values]
        if field.name == "inputs_digest":
            return [
                self._probed("rows INDEXED BY rows_digest", _Sql("substr(inputs_digest, 1, 4) = ?", (digest[:4],)))
                for digest in {digest[:4]: digest for digest in _digests(term.values)}.values()
            ]
        if field.name == "label" and "none" not in term.values:
            numbers = [_label_number(str(value)) for value in term.values]
            return [self._probed("rows INDEXED BY rows_label", _Sql("label = ?", (n,))) for n in numbers]
        if field.name == "decision_id":
            return [_Run("rows", _Sql("id = ?", (key,)), 1) for key in _ids(term.values)]
        return self._provenance_ways(term) if field.name.startswith("provenance.") else None

    def _probed(self, source: str, condition: _Sql) -> _Run:
        most = 10_000
        rows = self._db.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE tenant = ? AND {condition.text} LIMIT ?)",
            (self._tenant, *condition.values, most),
        ).fetchone()[0]
        return _Run(source, condition, rows if rows < most else most * 10)

    def _provenance_ways(self, term: OneOf) -> list[_Run] | None:
        name, crowded, unindexed = self._known_name(term.field)
        if unindexed:
            return None
        texts = [value for value in term.values if isinstance(value, str)]
        marks = ", ".join("?" * len(texts))
        origins = self._db.execute(
            "SELECT origin, count FROM origins WHERE origin IN (SELECT origin FROM origin_values WHERE tenant = ? "
            f"AND name = ? AND value IN ({marks})) LIMIT ?",
            (self._tenant, name, *texts, _MOST_RUNS + 1),
        ).fetchall()
        if len(origins) > _MOST_RUNS:
            return None
        runs = [_Run("rows INDEXED BY rows_origin", _Sql("origin = ?", (origin,)), n) for origin, n in origins]
        if crowded:
            runs += [
                self._probed(
                    "rows",
                    _Sql(
                        "id IN (SELECT id FROM marks WHERE tenant = ? AND mark = ?)", (self._tenant, _mark(name, text))
                    ),
                )
                for text in texts
            ]
        return runs

    def _where(self, node: Expression, positive: bool, key: str = "+id") -> _Sql:
        """The condition on rows; of what the index doesn't hold, one that lets everything through.

        A `+` before a column keeps SQLite from seeking by it: the way into the table is chosen here.
        """
        if _is_of_kind(node):
            return self._kind_where(node, positive)
        match node:
            case Not(item):
                return self._where(item, not positive)
            case And(items) | Or(items):
                parts = [self._where(item, positive) for item in items]
                return _all(parts) if isinstance(node, And) == positive else _any(parts)
            case _:
                return _signed(self._leaf(node, key), positive)

    def _kind_where(self, node: Expression, positive: bool) -> _Sql:
        where = self._kinds(node)
        sign = "IN" if positive else "NOT IN"
        return _Sql(
            f"+kind {sign} (SELECT kind FROM kinds WHERE tenant = ? AND {where.text})", (self._tenant, *where.values)
        )

    def _kinds(self, node: Expression) -> _Sql:
        """The condition on `kinds`."""
        match node:
            case Not(item):
                return _signed(self._kinds(item), False)
            case And(items):
                return _all([self._kinds(item) for item in items])
            case Or(items):
                return _any([self._kinds(item) for item in items])
            case OneOf(field, values) if field.name in ("reason", "rule"):
                codes = "SELECT kind FROM codes WHERE field = ?"
                listed = _in("code", [value for value in values if value is not None])
                some = _Sql(f"kind IN ({codes} AND {listed.text})", (field.name, *listed.values))
                none = _Sql(f"kind NOT IN ({codes})", (field.name,))
                return _any([some, none]) if None in values else some
            case OneOf(field, values):
                return _one_of(field.name, values)
            case _:
                return _FALSE

    def _leaf(self, leaf: Leaf, key: str) -> _Sql:
        """One comparison on a row."""
        field = leaf.field
        if field.name == "tenant" and isinstance(leaf, OneOf):
            return _TRUE if self._name in leaf.values else _FALSE
        if field.name == "created_at" and isinstance(leaf, Range):
            return _times(key, leaf)
        if field.name.startswith("provenance."):
            return self._provenance(leaf)
        if field.path:
            return _UNKNOWN
        if isinstance(leaf, Range):
            return _range(f"+{field.name}", leaf)
        match field.name:
            case "decision_id":
                return _in(key, _ids(leaf.values))
            case "inputs_digest":
                return _in("+inputs_digest", _digests(leaf.values))
            case "label":
                return _one_of("+label", [_label_number(str(value)) for value in leaf.values])
            case _:
                return _one_of(f"+{field.name}", leaf.values)

    def _provenance(self, leaf: Leaf) -> _Sql:
        name, crowded, unindexed = self._known_name(leaf.field)
        if unindexed or (crowded and (isinstance(leaf, Range) or None in leaf.values)):
            return _UNKNOWN
        if isinstance(leaf, Range):
            if not isinstance(leaf.low if leaf.low is not None else leaf.high, str):
                return _FALSE
            return self._of_origins(name, _range("value", leaf))
        texts = [value for value in leaf.values if isinstance(value, str)]
        parts = [self._of_origins(name, _in("value", texts))]
        if crowded and texts:
            marks = _in("mark", [_mark(name, text) for text in texts])
            parts.append(
                _Sql(f"+id IN (SELECT id FROM marks WHERE tenant = ? AND {marks.text})", (self._tenant, *marks.values))
            )
        if None in leaf.values:
            parts.append(self._of_origins(name, _TRUE, "NOT IN"))
        return _any(parts)

    def _of_origins(self, name: str, values: _Sql, sign: str = "IN") -> _Sql:
        return _Sql(
            f"+origin {sign} (SELECT origin FROM origin_values WHERE tenant = ? AND name = ? AND {values.text})",
            (self._tenant, name, *values.values),
        )

    def _known_name(self, field: Field) -> tuple[str, bool, bool]:
        """(name, has too many values for origins, may be where only the record shows it)."""
        name = ".".join(field.path)
        above = [".".join(field.path[:end]) for end in range(1, len(field.path) + 1)]
        known = {
            row[0]: row[1:]
            for row in self._db.execute(
                "SELECT name, distinct_values, unindexed FROM names WHERE tenant = ? "
                f"AND name IN ({', '.join('?' * len(above))})",
                (self._tenant, *above),
            )
        }
        return name, known.get(name, (0, 0))[0] >= _CROWDED, any(row[1] for row in known.values())


def _conjuncts(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, And):
        for item in expression.items:
            yield from _conjuncts(item)
    else:
        yield expression


def _is_of_kind(node: Expression) -> bool:
    return all(leaf.field.name in _KIND_FIELDS for leaf in leaves(node))


def _all(parts: Sequence[_Sql]) -> _Sql:
    """Constants are folded: SQLite refuses a named index where it sees that nothing can match."""
    if any(part.text == "0" for part in parts):
        return _FALSE
    kept = [part for part in parts if part.text != "1"]
    exact = all(part.exact for part in parts)
    return _joined(" AND ", kept, exact) if kept else _TRUE if exact else _UNKNOWN


def _any(parts: Sequence[_Sql]) -> _Sql:
    certain = [part for part in parts if part.text == "1"]
    if certain:
        return max(certain, key=lambda part: part.exact)
    kept = [part for part in parts if part.text != "0"]
    return _joined(" OR ", kept, all(part.exact for part in kept)) if kept else _FALSE


def _joined(word: str, parts: Sequence[_Sql], exact: bool) -> _Sql:
    """Joined as a balanced tree: SQLite bounds the depth of an expression."""
    if len(parts) == 1:
        return _Sql(parts[0].text, parts[0].values, exact)
    half = len(parts) // 2
    left, right = _joined(word, parts[:half], exact), _joined(word, parts[half:], exact)
    return _Sql(f"({left.text}{word}{right.text})", (*left.values, *right.values), exact)


def _signed(sql: _Sql, positive: bool) -> _Sql:
    """Its negation where `positive` is False: NULL counts as false, so its negation is true."""
    if positive or not sql.exact:
        return sql
    if sql.text in ("0", "1"):
        return _TRUE if sql.text == "0" else _FALSE
    return _Sql(f"({sql.text}) IS NOT TRUE", sql.values)


def _in(column: str, values: Sequence[Any]) -> _Sql:
    return _Sql(f"{column} IN ({', '.join('?' * len(values))})", tuple(values)) if values else _FALSE


def _one_of(column: str, values: Sequence[Any]) -> _Sql:
    listed = _in(column, [value for value in values if value is not None])
    return _any([listed, _Sql(f"{column} IS NULL")]) if None in values else listed


def _range(column: str, bounds: Range) -> _Sql:
    parts = []
    if bounds.low is not None:
        parts.append(_Sql(f"{column} {'>' if bounds.above else '>='} ?", (bounds.low,)))
    if bounds.high is not None:
        parts.append(_Sql(f"{column} {'<' if bounds.below else '<='} ?", (bounds.high,)))
    return _all(parts)


def _times(key: str, bounds: Range) -> _Sql:
    """A range of times is a range of ids, whose first 6 bytes are the time."""
    parts = []
    if isinstance(bounds.low, int):
        parts.append(_Sql(f"{key} >= ?", (_id_from(bounds.low + bounds.above),)))
    if isinstance(bounds.high, int):
        end = bounds.high + (not bounds.below)
        parts.append(_Sql(f"{key} < ?", (_id_from(end),)) if end < 1 << 48 else _TRUE)
    return _all(parts)


def _id_from(time_ms: int) -> bytes:
    return min(max(time_ms, 0) << 80, _LAST_ID).to_bytes(16, "big")


def _ids(values: Sequence[Any]) -> list[bytes]:
    return [decision_bytes(value) for value in values if isinstance(value, str) and is_decision_id(value)]


def _digests(values: Sequence[Any]) -> list[bytes]:
    """The digests among these; other text equals none."""
    found = []
    for value in values:
        head, _, digits = str(value).partition(":")
        if head == "sha256" and len(digits) == 64 and digits == digits.lower():
            try:
                found.append(bytes.fromhex(digits))
            except ValueError:
                continue
    return found


def _label_number(name: str) -> int | None:
    """None is none: only what was labelled is in the index of labels."""
    return LABELS.index(name) or None


def _cursor_key(after: Cursor) -> bytes:
    if not is_decision_id(after):
        raise BadInput("this cursor is not one that a list gave")
    return decision_bytes(after)


def _agrees(query: Query, row: tuple[Any, ...], fetch: Fetch) -> bool:
    label, partition, offset = row[2:5]
    record = fetch(partition, offset)
    return record is not None and holds(query.expression, facts_of(record, label and LABELS[label]))


def _key(values: Any) -> bytes:
    return hashlib.blake2b(encode(values), digest_size=16).digest()


def _mark(name: str, value: str) -> bytes:
    return _key([name, value])[:12]


def _remember(cache: dict[_K, _V], key: _K, value: _V) -> None:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def remove_index_file(path: Path) -> None:
    """Remove the index's files, so that the next opening starts from nothing. The log is not touched."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
