"""Write-ahead logging of an SQLite file, also where several processes create the file at the same moment."""

from __future__ import annotations

import sqlite3
import time

_PAUSE_S = 0.005


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
