"""One SQLite file of a home: opened at first use, laid out, guarded, and emptied of what was deleted.

Each store says what it keeps, for people (`the incidents`), and its layouts: one list of statements a version, each
bringing the version before to its own. `PRAGMA user_version` holds the version; a file from before it was written
there has 0, so the first layout's statements say `IF NOT EXISTS`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from memory_service.wal import COPY_IT, may_be_written, open_to_read, use_wal, wal_of
from schemas.errors import LumynError, StorageUnavailable

BUSY_S: Final = 10.0
"""How long another process's transaction, or its reading of what is to be emptied, is waited for."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_HELD = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_SHUT = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class SqliteFile:
    """A file (mode 0600, as are SQLite's own beside it) for several threads and processes.

    A process that was forked opens it anew, and so does one under which the file was replaced. Whatever goes wrong is
    told as `error`, with what to do; a `LumynError` from within goes through as it is.

    A file that may not be written is looked into as it is, anew each time: without a write-ahead log of one's own, what
    others change meanwhile would not be seen. Changing it is refused.
    """

    def __init__(
        self,
        path: Path,
        what: str,
        layouts: Sequence[Sequence[str]],
        *,
        error: type[StorageUnavailable] = StorageUnavailable,
        pragmas: Sequence[str] = (),
        checked: Callable[[sqlite3.Connection], None] = lambda db: None,
        read_only: bool = False,
    ) -> None:
        """`what` is what the file holds, in the plural; `checked` refuses a file right after it was opened.

        `read_only` opens a file that is there, of this layout, where nothing may be written.
        """
        self.read_only = read_only
        self.path = path
        self._what, self._layouts, self._error = what, layouts, error
        self._pragmas, self._checked = pragmas, checked
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._opened_as: tuple[int, int, int] | None = None
        self._shut = False  # it was opened where it may not be written
        self._inside = 0
        self._abandoned: list[sqlite3.Connection] = []  # a parent's, which its child must not close

    @property
    def is_there(self) -> bool:
        """Whether there is such a file."""
        return self.path.exists()

    @property
    def is_open(self) -> bool:
        """Whether this process has it open, and it is still that file."""
        return self._db is not None and self._identity() == self._opened_as

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """The file, made where there is none. Others of this process wait meanwhile."""
        with self._lock:
            self._inside += 1
            try:
                yield self._connected()
            except LumynError:
                raise
            except (sqlite3.Error, OSError) as error:
                self._let_go()
                raise self._told(error) from None
            finally:
                self._inside -= 1

    @contextmanager
    def if_there(self) -> Iterator[sqlite3.Connection | None]:
        """The file, or None where there is none: a look makes no file."""
        if not self.is_there:
            yield None
            return
        with self.opened() as db:
            yield db

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """The file within a transaction of its own: no other process writes meanwhile, and an error takes it back."""
        with self.opened() as db:
            if self._shut:
                raise self._error(
                    f"{self._what} may only be read here: the file, or its folder, can't be written",
                    where=str(self.path), help=COPY_IT,
                )  # fmt: skip
            with transaction(db):
                yield db

    def scrub(self) -> None:
        """Leave nothing of what was deleted, here or in the write-ahead log. Raises while another process reads."""
        with self.opened() as db:
            db.execute("PRAGMA temp_store=MEMORY")
            db.execute("VACUUM")
            empty_wal(db, self._left_over)

    def _left_over(self) -> StorageUnavailable:
        return self._error(
            f"it is taken out of {self._what}, but another process keeps the file's write-ahead log from being emptied",
            where=str(self.path),
            help="run the same command again",
        )

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._let_go()

    # opening

    def _connected(self) -> sqlite3.Connection:
        if self._db is not None and self.is_open and (not self._shut or self._inside > 1):
            return self._db
        self._let_go()
        self._shut = not self.read_only and self.is_there and not may_be_written(self.path)
        if self.read_only or self._shut:
            db = open_to_read(self.path, BUSY_S)
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
        try:
            if not (self.read_only or self._shut):
                use_wal(db, BUSY_S)
                for pragma in ("synchronous=FULL", *self._pragmas):
                    db.execute(f"PRAGMA {pragma}")
            self._lay_out(db)
            self._checked(db)
        except BaseException:
            db.close()
            raise
        self._db, self._opened_as = db, self._identity()
        return db

    def _has_left_over(self) -> bool:
        """Whether it could be read but for its write-ahead log, which is taken in where the folder may be written."""
        may_read, may_make = os.access(self.path, os.R_OK), os.access(self.path.parent, os.W_OK)
        return self._shut and may_read and not may_make and wal_of(self.path).exists()

    def _identity(self) -> tuple[int, int, int] | None:
        """Which file of which process's: a replaced file, or another process's connection, is none of ours."""
        with suppress(OSError):
            status = self.path.stat()
            return status.st_dev, status.st_ino, os.getpid()
        return None

    def _lay_out(self, db: sqlite3.Connection) -> None:
        known = len(self._layouts)
        if _version(db) == known:
            return
        if self._shut and _version(db) < known:
            raise self._error(
                f"{self._what} are of an older layout, and may only be read here", where=str(self.path), help=COPY_IT
            )
        with transaction(db):
            found = _version(db)
            if found > known:
                raise self._error(
                    f"{self._what} are of layout {found}, and this version knows {known}", where=str(self.path),
                    help="use the version of lumyn-streams that wrote them",
                )  # fmt: skip
            for layout in self._layouts[found:]:
                for statement in layout:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version={known}")

    def _let_go(self) -> None:
        if self._db is not None:
            if self._opened_as is not None and self._opened_as[-1] == os.getpid():
                self._db.close()
            else:
                self._abandoned.append(self._db)
        self._db = self._opened_as = None

    def _told(self, error: sqlite3.Error | OSError) -> StorageUnavailable:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _DAMAGED:
            help = "the file is damaged: put it aside, and restore it from a backup"
        elif code in _HELD:
            help = "another process holds the file (a backup, a shell?): let it end, then run this again"
        elif code in _SHUT and self._has_left_over():
            left = f"its folder can't be written, and something is left in `{wal_of(self.path).name}`"
            return self._error(f"{self._what} can't be read: {left}", where=str(self.path), help=COPY_IT)
        elif code in _SHUT or isinstance(error, PermissionError):
            help = "who runs lumyn must be able to read and write the file and its folder"
        elif code in _FULL:
            help = "is the disk full, or failing?"
        else:
            help = None
        said = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        return self._error(f"{self._what} can't be used: {said}", where=str(self.path), help=help)


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and nobody else writes meanwhile."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # closed by an error within: rolled back already
            db.execute("ROLLBACK")
        raise


def empty_wal(db: sqlite3.Connection, left_over: Callable[[], LumynError]) -> None:
    """An older page of the file must not outlive it in the write-ahead log. Raises `left_over` while others read it."""
    until = time.monotonic() + BUSY_S
    while db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > until:
            raise left_over()
        time.sleep(0.01)
