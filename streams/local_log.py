"""LocalLog: the embedded log, one SQLite file in WAL mode, for several threads and processes at once.

A topic is a table; a message's rowid is `partition << 48 | offset`, so a partition is a range of the table and no
other index is needed. Every commit is fsynced unless the log was opened with `durable=False`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from memory_service.wal import COPY_IT, may_be_written, open_to_read, quoted, use_wal
from schemas.errors import BadConfig, Fenced, LumynError, StorageUnavailable
from streams.log import Append, Message
from streams.partitioner import partition_for
from streams.subject_keys import NO_KEYS, SubjectKeys
from streams.topics import DEFAULT_PARTITIONS, TOPICS, check_key

_LAYOUT = "1"
_SHIFT = 48
_KEYED = frozenset({"records", "receipts", "labels", "label-requests"})
_PAGE = 16384


class _Statements:
    """A topic's statements, made once: a connection keeps a statement prepared while its text is the same."""

    def __init__(self, topic: str) -> None:
        self.table = table = "log_" + topic.replace("-", "_")
        self.insert = f"INSERT INTO {table} VALUES (?, ?, ?, ?)"
        value = "CAST(value AS BLOB)"  # who edits the file may leave a text or a number there: bytes to be checked
        self.read = f"SELECT pos, time_ms, key, {value} FROM {table} WHERE pos >= ? AND pos < ? ORDER BY pos LIMIT ?"
        self.last = f"SELECT pos, time_ms FROM {table} WHERE pos < ? ORDER BY pos DESC LIMIT 1"
        self.latest = f"SELECT pos, time_ms, {value} FROM {table} WHERE key = ? ORDER BY time_ms DESC, pos DESC LIMIT 1"
        self.with_key = f"SELECT pos, time_ms, {value} FROM {table} WHERE key = ? ORDER BY pos"
        self.keys_from = f"SELECT DISTINCT key FROM {table} WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"


_STATEMENTS = {topic: _Statements(topic) for topic in TOPICS}
_OFFSET = (1 << _SHIFT) - 1


def _of(topic: str) -> _Statements:
    try:
        return _STATEMENTS[topic]
    except KeyError:
        raise BadConfig(f"unknown topic `{topic}`") from None


def wall_clock_ms() -> int:
    """The machine's clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class LocalLog:
    """A `TransactionalLog` in one SQLite file."""

    def __init__(
        self,
        path: Path,
        *,
        prefix: str = "lumyn",
        partitions: int = DEFAULT_PARTITIONS,
        clock: Callable[[], int] = wall_clock_ms,
        durable: bool = True,
        read_only: bool = False,
        busy_timeout_s: float = 10.0,
    ) -> None:
        """Open or create the log. `partitions` counts for a new file only: an old one keeps its own."""
        self.path = path
        self.prefix = prefix
        self.keys: SubjectKeys = NO_KEYS
        self._clock = clock
        self._lock = threading.RLock()
        self._open_transaction = False
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}
        self._positions: dict[tuple[str, str, int], int] = {}
        self._seen_version = -1
        try:
            self._db = self._connect(read_only, durable, busy_timeout_s)
            self._partitions, self.epoch = self._layout(partitions, read_only)
            self._counts = {topic.name: topic.partitions or self._partitions for topic in TOPICS.values()}
            self._absent = set(TOPICS) - self._present()
        except sqlite3.Error as error:
            raise _unavailable(error, path) from None

    def _connect(self, read_only: bool, durable: bool, busy_timeout_s: float) -> sqlite3.Connection:
        if read_only:
            return open_to_read(self.path, busy_timeout_s)
        uri = f"file:{quoted(self.path)}?mode=rwc"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_timeout_s)
        if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            db.execute(f"PRAGMA page_size={_PAGE}")
        use_wal(db, busy_timeout_s)
        db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        return db

    def _layout(self, partitions: int, read_only: bool) -> tuple[int, str]:
        exists = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_meta'").fetchone()
        if not exists and not read_only:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._create(partitions)
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        meta = dict(self._db.execute("SELECT key, value FROM log_meta"))
        if meta.get("layout") != _LAYOUT:
            raise StorageUnavailable(f"log layout `{meta.get('layout')}` is not `{_LAYOUT}`", where=str(self.path))
        if meta["prefix"] != self.prefix:
            raise BadConfig(f"this log's prefix is `{meta['prefix']}`, not `{self.prefix}`", where=str(self.path))
        return int(meta["partitions"]), meta["epoch"]

    def _create(self, partitions: int) -> None:
        if self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'log_meta'").fetchone():
            return
        self._db.execute("CREATE TABLE log_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        self._db.execute(
            "CREATE TABLE log_positions (grp TEXT, topic TEXT, partition INTEGER, position INTEGER NOT NULL, "
            "writer TEXT, PRIMARY KEY (grp, topic, partition)) WITHOUT ROWID"
        )
        for topic in TOPICS:
            self._create_topic(topic)
        meta = {"layout": _LAYOUT, "partitions": str(partitions), "prefix": self.prefix, "epoch": uuid.uuid4().hex}
        self._db.executemany("INSERT INTO log_meta VALUES (?, ?)", meta.items())

    def _create_topic(self, topic: str) -> None:
        table = _of(topic).table
        self._db.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (pos INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, key BLOB, "
            "value BLOB NOT NULL)"
        )
        if topic in _KEYED:
            self._db.execute(f"CREATE INDEX IF NOT EXISTS {table}_key ON {table} (key) WHERE key IS NOT NULL")

    def _present(self) -> set[str]:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {topic for topic, statements in _STATEMENTS.items() if statements.table in tables}

    def _is_absent(self, topic: str) -> bool:
        """Whether this log is of a version before the topic, and nobody has written to it since."""
        if topic in self._absent:
            self._absent -= self._present()
        return topic in self._absent

    def _absent_now(self, topic: str) -> bool:
        with self._lock:
            try:
                return self._is_absent(topic)
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None

    def partitions(self, topic: str) -> int:
        _of(topic)
        return self._counts[topic]

    def append(self, appends: Sequence[Append]) -> list[Message]:
        with self.transaction() as transaction:
            return transaction.append(appends)

    def read(self, topic: str, partition: int, offset: int, limit: int = 1000) -> list[Message]:
        low = partition << _SHIFT
        if topic in self._absent and self._absent_now(topic):
            return []
        rows = self._rows(_of(topic).read, (low + offset, (partition + 1) << _SHIFT, limit))
        return [Message(topic, partition, pos - low, at, key, value) for pos, at, key, value in rows]

    def begin(self, topic: str, partition: int) -> int:
        first = self.read(topic, partition, 0, 1)
        return first[0].offset if first else self.end(topic, partition)

    def end(self, topic: str, partition: int) -> int:
        with self._lock:
            try:
                return self._end(topic, partition)[0]
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None

    def _end(self, topic: str, partition: int) -> tuple[int, int]:
        """(next offset, last append time), from memory unless another connection has written since."""
        if not self._open_transaction:
            self._notice_others()
        known = self._ends.get((topic, partition))
        if known is None:
            if topic in self._absent and self._is_absent(topic):
                return 0, 0
            row = self._db.execute(_of(topic).last, ((partition + 1) << _SHIFT,)).fetchone()
            low = partition << _SHIFT
            known = (row[0] - low + 1, row[1]) if row and row[0] >= low else (0, 0)
            self._ends[topic, partition] = known
        return known

    def _notice_others(self) -> None:
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen_version:
            self._forget()
            self._seen_version = version

    def _forget(self) -> None:
        """What is in memory is of the file as it was: another connection has written, or we have rolled back."""
        self._ends.clear()
        self._positions.clear()

    def changed(self) -> int:
        """A number that differs whenever another connection has committed since."""
        return int(self._rows("PRAGMA data_version", ())[0][0])

    def committed(self, group: str, topic: str, partition: int) -> int:
        with self._lock:
            try:
                return self._position(group, topic, partition)
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None

    def _position(self, group: str, topic: str, partition: int) -> int:
        """A group's position, from memory unless another connection has written since."""
        if not self._open_transaction:
            self._notice_others()
        key = (group, topic, partition)
        known = self._positions.get(key)
        if known is None:
            row = self._db.execute(
                "SELECT position FROM log_positions WHERE grp = ? AND topic = ? AND partition = ?", key
            ).fetchone()
            known = self._positions[key] = row[0] if row else 0
        return known

    def latest(self, topic: str, key: bytes) -> Message | None:
        rows = self._rows(_of(topic).latest, (key,))
        if not rows:
            return None
        pos, at, value = rows[0]
        return Message(topic, pos >> _SHIFT, pos & _OFFSET, at, key, value)

    def with_key(self, topic: str, key: bytes) -> list[Message]:
        rows = self._rows(_of(topic).with_key, (key,))
        return [Message(topic, pos >> _SHIFT, pos & _OFFSET, at, key, value) for pos, at, value in rows]

    def keys_from(self, topic: str, prefix: bytes, limit: int) -> list[bytes]:
        """Distinct keys that start with a prefix, in order: how a short decision id is found."""
        return [row[0] for row in self._rows(_of(topic).keys_from, (prefix, prefix + b"\xff", limit))]

    def transaction(self) -> LocalTransaction:
        return LocalTransaction(self, self._db)

    def _start(self) -> None:
        self._lock.acquire()
        began = False
        try:
            if self._open_transaction:
                raise RuntimeError("transactions do not nest")
            began = True
            self._db.execute("BEGIN IMMEDIATE")
            self._notice_others()
            self._open_transaction = True  # from here on nobody else can write
        except BaseException as error:
            if began:
                self._finish(False)
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise _unavailable(error, self.path) from None
            raise

    def _finish(self, done: bool) -> None:
        self._open_transaction = False
        if not done:
            self._forget()
            self._roll_back()

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            self._absent = set(TOPICS) - self._present()  # a topic's table may have been taken back, too
        except sqlite3.Error:  # a dead connection has rolled back already
            return

    def writer(self, group: str, topic: str, partition: int) -> LocalWriter:
        name = uuid.uuid4().hex
        with self.transaction() as transaction:
            transaction.claim(group, topic, partition, name)
        return LocalWriter(self, group, topic, partition, name)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _rows(self, statement: str, values: tuple[object, ...]) -> list[Any]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None


class LocalTransaction:
    """A write transaction of a `LocalLog`: open within its `with` block, committed at the end or rolled back."""

    def __init__(self, log: LocalLog, db: sqlite3.Connection) -> None:
        self._log = log
        self._db = db

    def __enter__(self) -> LocalTransaction:
        self._log._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        log = self._log
        done = False
        try:
            if kind is None:
                self._db.execute("COMMIT")
                done = True
            elif isinstance(error, sqlite3.Error):
                raise _unavailable(error, log.path) from None
        except sqlite3.Error as failed:
            raise _unavailable(failed, log.path) from None
        finally:
            try:
                log._finish(done)
            finally:
                log._lock.release()

    def append(self, appends: Sequence[Append]) -> list[Message]:
        log, clock = self._log, self._log._clock()
        ends, counts = log._ends, log._counts
        messages = []
        rows: dict[str, list[tuple[int, int, bytes | None, bytes]]] = {}
        for item in appends:
            topic, partition, key, value = item.topic, item.partition, item.key, item.value
            if key is None:
                check_key(topic, key)
            if topic in log._absent:
                log._create_topic(topic)
            count = counts.get(topic) or log.partitions(topic)
            if partition is None:
                partition = 0 if count == 1 else partition_for(key or value, count)
            elif not 0 <= partition < count:
                raise BadConfig(f"`{topic}` has no partition {partition}")
            offset, last = ends.get((topic, partition)) or log._end(topic, partition)
            at = max(clock, last)  # time never goes back within a partition, whatever the clock does
            rows.setdefault(topic, []).append(((partition << _SHIFT) + offset, at, key, value))
            ends[topic, partition] = (offset + 1, at)
            messages.append(Message(topic, partition, offset, at, key, value))
        for topic, values in rows.items():
            if len(values) == 1:
                self._db.execute(_STATEMENTS[topic].insert, values[0])
            else:
                self._db.executemany(_STATEMENTS[topic].insert, values)
        return messages

    def position(self, group: str, topic: str, partition: int) -> int:
        return self._log._position(group, topic, partition)

    def move(self, group: str, topic: str, partition: int, position: int) -> None:
        self._db.execute(
            "INSERT INTO log_positions VALUES (?, ?, ?, ?, NULL) "
            "ON CONFLICT (grp, topic, partition) DO UPDATE SET position = excluded.position",
            (group, topic, partition, position),
        )
        self._log._positions[group, topic, partition] = position

    def claim(self, group: str, topic: str, partition: int, name: str) -> None:
        """Make `name` the one writer of a partition."""
        self._db.execute(
            "INSERT INTO log_positions VALUES (?, ?, ?, 0, ?) "
            "ON CONFLICT (grp, topic, partition) DO UPDATE SET writer = excluded.writer",
            (group, topic, partition, name),
        )

    def owner(self, group: str, topic: str, partition: int) -> str | None:
        """The name of a partition's writer."""
        row = self._db.execute(
            "SELECT writer FROM log_positions WHERE grp = ? AND topic = ? AND partition = ?",
            (group, topic, partition),
        ).fetchone()
        return row[0] if row else None


class LocalWriter:
    """A `PartitionWriter` of a `LocalLog`."""

    def __init__(self, log: LocalLog, group: str, topic: str, partition: int, name: str) -> None:
        self._log = log
        self._input = (group, topic, partition)
        self._name = name

    @property
    def position(self) -> int:
        return self._log.committed(*self._input)

    def commit(self, outputs: Sequence[Append], position: int) -> list[Message]:
        with self._log.transaction() as transaction:
            if transaction.owner(*self._input) != self._name:
                raise Fenced("another writer owns this partition now", where="/".join(map(str, self._input[1:])))
            messages = transaction.append(outputs)
            transaction.move(*self._input, position)
        return messages

    def close(self) -> None:
        """Nothing to give back: the next writer claims the partition."""


def _unavailable(error: sqlite3.Error, path: Path) -> LumynError:
    text = str(error)
    helps = {
        "locked": "another process holds the log; try again",
        "readonly": "the log can't be written, only read; check the file's and folder's permissions",
        "full": "the disk is full; nothing was written",
        "disk I/O error": "the disk may be full or broken, nothing was written: `lumyn doctor` looks",
        "unable to open": "check that the folder exists and may be written",
        "not a database": "this file is not a lumyn log; restore it from a backup",
        "malformed": "the file is damaged; restore it from a backup",
    }
    if "unable to open" in text and path.exists() and not may_be_written(path):
        helps["unable to open"] = f"its folder can't be written, and something is left in `{path.name}-wal`: {COPY_IT}"
    return StorageUnavailable(
        f"the log can't be used: {text}",
        where=str(path),
        help=next((help for sign, help in helps.items() if sign in text), None),
    )
