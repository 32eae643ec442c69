"""The idempotency window of one partition: the first decision of each request id, rebuilt from the receipts.

It lives in a SQLite file, so its memory stays small however many requests a week has, and the next start of the same
worker reads only what is new. The file is derived: what it holds is what committed receipts say, up to a position.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from memory_service.wal import use_wal
from schemas.canonical import decode_trusted
from schemas.errors import StorageUnavailable
from schemas.limits import IDEMPOTENCY_WINDOW_MS
from schemas.request import Request
from streams.decide import Decision
from streams.log import Log, Message
from streams.prior import PriorDecision
from streams.topics import RECEIPTS

_BATCH = 5000
_LAYOUT = "1"
_ASK = 500


class ReceiptWindow:
    """`Prior` of one partition's requests. One owner; what is remembered counts only once `committed` says so."""

    def __init__(self, log: Log, partition: int, folder: Path, epoch: str) -> None:
        """Open (or make) the window's file. `epoch` names the topics' generation that it must belong to.

        Another process that has the file open (a worker that has not let go yet) makes this one use a new file.
        """
        self._log = log
        self._partition = partition
        self._now: dict[bytes, tuple[PriorDecision, str]] = {}
        self._loaded: dict[bytes, tuple[PriorDecision, str, int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._path, self._lock, self._own = _claim(folder, partition)
        except OSError as error:
            raise _trouble("kept", error, folder) from None
        try:
            self._db = _open(self._path, epoch)
            self._position = int(self._meta("position") or 0)
        except (OSError, sqlite3.Error) as error:
            self._release()
            raise _trouble("kept", error, folder) from None

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def catch_up(self, wanted: Callable[[], bool] = lambda: True) -> int:
        """Take in every receipt that is not in yet; returns how many.

        Raises `StorageUnavailable`, also when it is not wanted any more halfway.
        """
        count = 0
        while messages := self._log.read(RECEIPTS, self._partition, self._position, _BATCH):
            self._store(messages)
            count += len(messages)
            if not wanted():
                raise StorageUnavailable("the partition was given up before its receipts were read")
        if count:
            self._prune(messages_time=self._newest)
        return count

    def _store(self, receipts: Sequence[Message]) -> None:
        rows = []
        for message in receipts:
            self._newest = message.time_ms
            if message.key is None:
                continue
            value = decode_trusted(message.value)
            if value["outcome"] == "decided":
                rows.append(
                    (message.key, value["decision_id"], value["body_digest"], value["record_digest"], message.time_ms)
                )
        position = receipts[-1].offset + 1
        try:
            self._db.execute("BEGIN")
            self._db.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('position', ?)", (str(position),))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
            raise _trouble("written", error, self._path) from None
        self._position = position  # what is not in the file is read again

    _newest = 0

    def _prune(self, messages_time: int) -> None:
        try:
            self._db.execute("DELETE FROM seen WHERE time_ms < ?", (messages_time - IDEMPOTENCY_WINDOW_MS,))
        except sqlite3.Error as error:
            raise _trouble("written", error, self._path) from None

    def load(self, requests: Iterable[Request | None]) -> None:
        """Look up a batch's request ids at once, before it is decided; forgets the last batch.

        Raises `StorageUnavailable`: without the window nothing may be decided.
        """
        self._now.clear()
        self._loaded.clear()
        try:
            self._load(requests)
        except sqlite3.Error as error:
            raise _trouble("read", error, self._path) from None

    def _load(self, requests: Iterable[Request | None]) -> None:
        keys = list({request.key for request in requests if request is not None and request.key is not None})
        for start in range(0, len(keys), _ASK):
            some = keys[start : start + _ASK]
            marks = ",".join("?" * len(some))
            for key, decision_id, body, record, time_ms in self._db.execute(
                f"SELECT key, decision_id, body_digest, record_digest, time_ms FROM seen WHERE key IN ({marks})", some
            ):
                self._loaded[key] = (PriorDecision(decision_id, body, b""), record, time_ms)

    def find(self, request: Request, time_ms: int) -> PriorDecision | None:
        key = request.key
        if key is None:
            return None
        if key in self._now:
            return self._now[key][0]
        found = self._loaded.get(key)
        if found is None or time_ms - found[2] > IDEMPOTENCY_WINDOW_MS:
            return None
        return found[0]

    def remember(self, request: Request, decision: Decision) -> None:
        if request.key is not None:
            prior = PriorDecision(decision.record["decision_id"], request.body_digest, b"")
            self._now[request.key] = (prior, decision.record["record_digest"])

    def record(self, prior: PriorDecision) -> tuple[bytes, str]:
        for known, digest in self._now.values():
            if known is prior:
                return b"", digest
        return b"", next(digest for known, digest, _ in self._loaded.values() if known is prior)

    def committed(self, messages: Sequence[Message]) -> None:
        """What a transaction wrote has taken effect: its receipts are in the log."""
        receipts = [message for message in messages if message.topic == RECEIPTS]
        if receipts:
            self._store(receipts)

    def close(self) -> None:
        """Let go of the file, which stays for the next owner unless it was a temporary one."""
        self._db.close()
        self._release()

    def _release(self) -> None:
        os.close(self._lock)
        if not self._own:
            for name in (self._path, f"{self._path}-wal", f"{self._path}-shm"):
                Path(name).unlink(missing_ok=True)


def _trouble(what: str, error: Exception, where: Path) -> StorageUnavailable:
    return StorageUnavailable(
        f"the idempotency window can't be {what}: {error}", where=str(where), help="check the disk and its space"
    )


def _claim(folder: Path, partition: int) -> tuple[Path, int, bool]:
    """The partition's file with its lock, or, when another process has that, a temporary one."""
    path = folder / f"window-{partition}.db"
    lock = os.open(folder / f"window-{partition}.lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, lock, True
    except BlockingIOError:
        os.close(lock)
    handle, name = tempfile.mkstemp(prefix=f"window-{partition}-", suffix=".db", dir=folder)
    return Path(name), handle, False


def _open(path: Path, epoch: str) -> sqlite3.Connection:
    """The file, emptied when it is of another generation, another layout or damaged."""
    try:
        db = _connect(path)
        row = db.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
        if row is not None and row[0] == f"{_LAYOUT} {epoch}":
            return db
        db.execute("DELETE FROM seen")
        db.execute("DELETE FROM meta")
    except sqlite3.DatabaseError:
        for name in (path, f"{path}-wal", f"{path}-shm"):
            Path(name).unlink(missing_ok=True)
        db = _connect(path)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('identity', ?)", (f"{_LAYOUT} {epoch}",))
    return db


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    use_wal(db)
    db.execute("PRAGMA synchronous=NORMAL")  # a power cut loses the newest rows together with the position
    db.execute("PRAGMA cache_size=-8192")
    db.execute(
        "CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, decision_id TEXT, body_digest TEXT, "
        "record_digest TEXT, time_ms INTEGER) WITHOUT ROWID"
    )
    db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
    return db
