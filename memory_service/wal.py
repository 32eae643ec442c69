"""Write-ahead logging of an SQLite file: also where several processes create it at once, and where none may write."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

_PAUSE_S = 0.005
COPY_IT: Final = "copy the whole folder to one that may be written, and read it there"
"""What to do about a file that can't be read where it is."""


def use_wal(db: sqlite3.Connection, timeout_s: float = 10.0) -> None:
    """Switch a file to write-ahead logging, or find that it is.

    SQLite's own busy timeout doesn't cover this switch: of two processes that hold the new file for reading and
    want it alone, one is told at once that it is locked (sqlite.org/rescode.html#busy). It asks again.

    Raises:
        sqlite3.OperationalError: still locked after `timeout_s`, or the file can't be used.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(_PAUSE_S)


def may_be_written(path: Path) -> bool:
    """Whether an SQLite file can be opened as usual: that makes files beside it, even to read."""
    return os.access(path.parent, os.W_OK) and os.access(path, os.W_OK)


def wal_of(path: Path) -> Path:
    """The write-ahead log of a file."""
    return path.with_name(path.name + "-wal")


def open_to_read(path: Path, timeout_s: float = 10.0) -> sqlite3.Connection:
    """A connection that only reads, also of a folder where nothing may be written.

    Such a file's locks and write-ahead log are used where both are there. A file of which nothing is left in a
    write-ahead log is read as it is: `immutable`, without locks (sqlite.org/wal.html#read_only_databases).

    Raises:
        sqlite3.OperationalError: the file can't be read so; where its folder may not be written, `COPY_IT` helps.
    """
    try:
        return _connect(path, "mode=ro", timeout_s)
    except sqlite3.OperationalError as error:
        code = error.sqlite_errorcode & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or os.access(path.parent, os.W_OK):
            raise
        if not path.exists() or wal_of(path).exists():
            raise
    return _connect(path, "mode=ro&immutable=1", timeout_s)


def quoted(path: Path) -> str:
    """A path within an SQLite URI."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _connect(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    uri = f"file:{quoted(path)}?{mode}"
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=timeout_s)
    try:
        db.execute("SELECT 1 FROM sqlite_master LIMIT 1")
    except BaseException:
        db.close()
        raise
    return db
