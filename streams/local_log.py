"""LocalLog: the embedded log, one SQLite file in WAL mode, for several threads and processes at once.

A topic is a table; a message's rowid is `partition << 48 | offset`, so a partition is a range of the table and no
other index is needed. Every commit is fsynced unless the log was opened with `durable=False`.
"""

from __future__ import annotations

import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import BadConfig, Fenced, LumynError, StorageUnavailable
from streams.log import Append, Message
from streams.partitioner import partition_for
from streams.topics import DEFAULT_PARTITIONS, TOPICS, check_key

_LAYOUT = "1"
_SHIFT = 48
_KEYED = frozenset({"records", "receipts", "labels", "label-requests"})
_PAGE = 16384


def _table(topic: str) -> str:
    if topic not in TOPICS:
        raise BadConfig(f"unknown topic `{topic}`")
    return "log_" + topic.replace("-", "_")


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
        self._clock = clock
        self._lock = threading.RLock()
        self._open_transaction = False
        self._ends: dict[tuple[str, int], tuple[int, int]] = {}
        self._seen_version = -1
        try:
            self._db = self._connect(read_only, durable, busy_timeout_s)
            self._partitions, self.epoch = self._layout(partitions, read_only)
        except sqlite3.Error as error:
            raise _unavailable(error, path) from None

    def _connect(self, read_only: bool, durable: bool, busy_timeout_s: float) -> sqlite3.Connection:
        uri = f"file:{_quote(self.path)}?mode={'ro' if read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=busy_timeout_s)
        if not read_only:
            if not db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                db.execute(f"PRAGMA page_size={_PAGE}")
            db.execute("PRAGMA journal_mode=WAL")
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
            table = _table(topic)
            self._db.execute(
                f"CREATE TABLE {table} (pos INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, key BLOB, "
                "value BLOB NOT NULL)"
            )
            if topic in _KEYED:
                self._db.execute(f"CREATE INDEX {table}_key ON {table} (key) WHERE key IS NOT NULL")
        meta = {"layout": _LAYOUT, "partitions": str(partitions), "prefix": self.prefix, "epoch": uuid.uuid4().hex}
        self._db.executemany("INSERT INTO log_meta VALUES (?, ?)", meta.items())

    def partitions(self, topic: str) -> int:
        _table(topic)
        return TOPICS[topic].partitions or self._partitions

    def append(self, appends: Sequence[Append]) -> list[Message]:
        with self.transaction() as transaction:
            return transaction.append(appends)

    def read(self, topic: str, partition: int, offset: int, limit: int = 1000) -> list[Message]:
        low = partition << _SHIFT
        with self._guard():
            rows = self._db.execute(
                f"SELECT pos, time_ms, key, value FROM {_table(topic)} WHERE pos >= ? AND pos < ? ORDER BY pos LIMIT ?",
                (low + offset, (partition + 1) << _SHIFT, limit),
            ).fetchall()
        return [Message(topic, partition, pos - low, at, key, value) for pos, at, key, value in rows]

    def begin(self, topic: str, partition: int) -> int:
        first = self.read(topic, partition, 0, 1)
        return first[0].offset if first else self.end(topic, partition)

    def end(self, topic: str, partition: int) -> int:
        with self._guard():
            return self._end(topic, partition)[0]

    def _end(self, topic: str, partition: int) -> tuple[int, int]:
        """(next offset, last append time), from memory unless another connection has written since."""
        if not self._open_transaction:  # within one, nobody else can write
            self._notice_others()
        known = self._ends.get((topic, partition))
        if known is None:
            row = self._db.execute(
                f"SELECT pos, time_ms FROM {_table(topic)} WHERE pos < ? ORDER BY pos DESC LIMIT 1",
                ((partition + 1) << _SHIFT,),
            ).fetchone()
            low = partition << _SHIFT
            known = (row[0] - low + 1, row[1]) if row and row[0] >= low else (0, 0)
            self._ends[topic, partition] = known
        return known

    def _notice_others(self) -> None:
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen_version:
            self._ends.clear()
            self._seen_version = version

    def changed(self) -> int:
        """A number that differs whenever another connection has committed since."""
        with self._guard():
            return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def committed(self, group: str, topic: str, partition: int) -> int:
        with self._guard():
            return self._position(group, topic, partition)

    def _position(self, group: str, topic: str, partition: int) -> int:
        row = self._db.execute(
            "SELECT position FROM log_positions WHERE grp = ? AND topic = ? AND partition = ?",
            (group, topic, partition),
        ).fetchone()
        return row[0] if row else 0

    def latest(self, topic: str, key: bytes) -> Message | None:
        with self._guard():
            row = self._db.execute(
                f"SELECT pos, time_ms, value FROM {_table(topic)} WHERE key = ? "
                "ORDER BY time_ms DESC, pos DESC LIMIT 1",
                (key,),
            ).fetchone()
        if row is None:
            return None
        return Message(topic, row[0] >> _SHIFT, row[0] & ((1 << _SHIFT) - 1), row[1], key, row[2])

    def with_key(self, topic: str, key: bytes) -> list[Message]:
        with self._guard():
            rows = self._db.execute(
                f"SELECT pos, time_ms, value FROM {_table(topic)} WHERE key = ? ORDER BY pos", (key,)
            ).fetchall()
        return [Message(topic, pos >> _SHIFT, pos & ((1 << _SHIFT) - 1), at, key, value) for pos, at, value in rows]

    def keys_from(self, topic: str, prefix: bytes, limit: int) -> list[bytes]:
        """Distinct keys that start with a prefix, in order: how a short decision id is found."""
        with self._guard():
            rows = self._db.execute(
                f"SELECT DISTINCT key FROM {_table(topic)} WHERE key >= ? AND key < ? ORDER BY key LIMIT ?",
                (prefix, prefix + b"\xff", limit),
            ).fetchall()
        return [row[0] for row in rows]

    @contextmanager
    def transaction(self) -> Iterator[LocalTransaction]:
        with self._lock:
            if self._open_transaction:
                raise RuntimeError("transactions do not nest")
            try:
                self._db.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None
            done = False
            try:
                self._notice_others()
                self._open_transaction = True
                yield LocalTransaction(self, self._db)
                self._db.execute("COMMIT")
                done = True
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None
            finally:
                self._open_transaction = False
                if not done:
                    self._ends.clear()
                    self._roll_back()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
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

    @contextmanager
    def _guard(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise _unavailable(error, self.path) from None


class LocalTransaction:
    """An open write transaction of a `LocalLog`."""

    def __init__(self, log: LocalLog, db: sqlite3.Connection) -> None:
        self._log = log
        self._db = db

    def append(self, appends: Sequence[Append]) -> list[Message]:
        log, clock = self._log, self._log._clock()
        messages = []
        rows: dict[str, list[tuple[int, int, bytes | None, bytes]]] = {}
        for item in appends:
            check_key(item.topic, item.key)
            partition = item.partition
            if partition is None:
                count = log.partitions(item.topic)
                partition = 0 if count == 1 else partition_for(item.key or item.value, count)
            elif not 0 <= partition < log.partitions(item.topic):
                raise BadConfig(f"`{item.topic}` has no partition {partition}")
            offset, last = log._end(item.topic, partition)
            at = max(clock, last)  # time never goes back within a partition, whatever the clock does
            rows.setdefault(item.topic, []).append(((partition << _SHIFT) + offset, at, item.key, item.value))
            log._ends[item.topic, partition] = (offset + 1, at)
            messages.append(Message(item.topic, partition, offset, at, item.key, item.value))
        for topic, values in rows.items():
            self._db.executemany(f"INSERT INTO {_table(topic)} VALUES (?, ?, ?, ?)", values)
        return messages

    def position(self, group: str, topic: str, partition: int) -> int:
        return self._log._position(group, topic, partition)

    def move(self, group: str, topic: str, partition: int, position: int) -> None:
        self._db.execute(
            "INSERT INTO log_positions VALUES (?, ?, ?, ?, NULL) "
            "ON CONFLICT (grp, topic, partition) DO UPDATE SET position = excluded.position",
            (group, topic, partition, position),
        )

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


def _quote(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _unavailable(error: sqlite3.Error, path: Path) -> LumynError:
    text = str(error)
    helps = {
        "locked": "another process holds the log; try again",
        "readonly": "the log can't be written; check the file's and folder's permissions",
        "full": "the disk is full; nothing was written",
        "unable to open": "check that the folder exists and may be written",
        "not a database": "this file is not a lumyn log; restore it from a backup",
        "malformed": "the file is damaged; restore it from a backup",
    }
    return StorageUnavailable(
        f"the log can't be used: {text}",
        where=str(path),
        help=next((help for sign, help in helps.items() if sign in text), None),
    )
