"""Subjects' keys in a SQLite file, each wrapped by the master key, which is kept elsewhere.

The file holds no name: a subject is found by an HMAC of it under the master key. What is deleted is overwritten
(`secure_delete`), and the write-ahead log, which may hold an older page, is emptied before an erasure is called done.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

from memory_service.sqlite_file import SqliteFile, empty_wal, transaction
from schemas.canonical import encode
from schemas.errors import Erased, IntegrityError, KeysUnavailable, OnHold
from schemas.seal import KEY_BYTES, box, unbox
from streams.subject_keys import Held, State, Subject, SubjectKey

_LAYOUTS = (
    (
        "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE IF NOT EXISTS subjects (kid TEXT PRIMARY KEY, lookup BLOB UNIQUE, by_id BLOB, wrapped BLOB, "
        "state TEXT NOT NULL, hold TEXT) WITHOUT ROWID",
        "CREATE INDEX IF NOT EXISTS subjects_by_id ON subjects (by_id) WHERE by_id IS NOT NULL",
    ),
)
_KEPT = 65536
_ASK = 500


class SqliteSubjectKeys:
    """`SubjectKeys` on one file (mode 0600). Opened at first use; a process that was forked opens it anew."""

    def __init__(self, path: Path, master: Callable[[bool], bytes], *, read_only: bool = False) -> None:
        """`master` gives the master key's bytes; its argument says whether one may be made, as the store is new."""
        self._file = SqliteFile(
            path, "the subjects' keys", _LAYOUTS, error=KeysUnavailable, pragmas=("secure_delete=ON",),
            checked=self._check, read_only=read_only,
        )  # fmt: skip
        self._master_of = master
        self._lock = threading.RLock()
        self._master = b""
        self._seen: tuple[sqlite3.Connection | None, int] = (None, -1)
        self._keys: dict[str, bytes | None] = {}
        self._kids: dict[bytes, str] = {}

    # opening

    @contextmanager
    def _open(self, *, create: bool) -> Iterator[sqlite3.Connection | None]:
        """The file, or None where there is none and none is wanted."""
        with self._lock:
            there = self._file.is_there
            if not there and not create:
                yield None
                return
            if not self._file.is_open:  # before it is made: without a master key there is nothing to make
                self._master = self._master_of(not there)
            with self._file.opened() as db:
                self._notice_others(db)
                yield db

    def _check(self, db: sqlite3.Connection) -> None:
        """Refuse a master key that is not this store's: nothing could be opened, and what it sealed would be lost."""
        check = hmac.digest(self._master, b"lumyn.subject-keys/1", hashlib.sha256)
        with nullcontext() if self._file.read_only else transaction(db):
            if not self._file.read_only:
                db.execute("INSERT OR IGNORE INTO meta VALUES ('check', ?)", (check,))
            known = db.execute("SELECT value FROM meta WHERE name = 'check'").fetchone()[0]
        if not hmac.compare_digest(known, check):
            raise KeysUnavailable(
                "the master key is not the one that these subjects' keys are wrapped with",
                where=str(self._file.path),
                help="set LUMYN_MASTER_KEY, or LUMYN_MASTER_KEY_FILE, to the right one; nothing was changed",
            )

    def _notice_others(self, db: sqlite3.Connection) -> None:
        """What was kept is forgotten once another process has written, or another file is there: a key may be gone."""
        seen = (db, db.execute("PRAGMA data_version").fetchone()[0])
        if seen != self._seen or len(self._keys) > _KEPT or len(self._kids) > _KEPT:
            self._keys.clear()
            self._kids.clear()
            self._seen = seen

    def close(self) -> None:
        """Let go of the file; what was kept of it is forgotten."""
        with self._lock:
            self._file.close()
            self._keys, self._kids, self._seen = {}, {}, (None, -1)

    # keys

    def made(self, subjects: Sequence[Subject]) -> list[SubjectKey]:
        with self._open(create=True) as db:
            assert db is not None
            wanted = {subject: self._lookup(subject) for subject in subjects}
            missing = {s: look for s, look in wanted.items() if look not in self._kids}
            if missing:
                self._load(db, list(missing.values()))
                unmade = {s: look for s, look in missing.items() if look not in self._kids}
                if unmade:
                    self._make(db, unmade)
                    self._load(db, list(unmade.values()))
            out = []
            for subject in subjects:
                kid = self._kids[wanted[subject]]
                key = self._key(db, kid)
                if key is None:
                    raise Erased(
                        "this subject is being forgotten; nothing new is taken of it until that is done",
                        help="where it was broken off, run the same `lumyn memory forget` again",
                    )
                out.append(SubjectKey(kid, key))
            return out

    def _load(self, db: sqlite3.Connection, lookups: Sequence[bytes]) -> None:
        for start in range(0, len(lookups), _ASK):
            some = lookups[start : start + _ASK]
            marks = ",".join("?" * len(some))
            self._kids.update(db.execute(f"SELECT lookup, kid FROM subjects WHERE lookup IN ({marks})", some))

    def _make(self, db: sqlite3.Connection, subjects: dict[Subject, bytes]) -> None:
        rows = []
        for subject, lookup in subjects.items():
            kid = "s-" + secrets.token_hex(16)
            rows.append((kid, lookup, self._by_id(subject.tenant, subject.id), self._wrap(kid), "live"))
        with transaction(db):
            db.executemany(
                "INSERT INTO subjects (kid, lookup, by_id, wrapped, state) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (lookup) DO NOTHING",  # another process was quicker: its key counts
                rows,
            )

    def key(self, kid: str) -> bytes | None:
        with self._open(create=False) as db:
            return None if db is None else self._key(db, kid)

    def _key(self, db: sqlite3.Connection, kid: str) -> bytes | None:
        if kid not in self._keys:
            row = db.execute("SELECT wrapped FROM subjects WHERE kid = ? AND state = 'live'", (kid,)).fetchone()
            self._keys[kid] = None if row is None else self._unwrap(kid, row[0])
        return self._keys[kid]

    def state(self, kid: str) -> State:
        with self._open(create=False) as db:
            row = None if db is None else db.execute("SELECT state FROM subjects WHERE kid = ?", (kid,)).fetchone()
            return "unknown" if row is None else row[0]

    def held(self, kid: str) -> str | None:
        with self._open(create=False) as db:
            row = None if db is None else db.execute("SELECT hold FROM subjects WHERE kid = ?", (kid,)).fetchone()
            return None if row is None else row[0]

    def find(self, subject: Subject) -> Held | None:
        with self._open(create=False) as db:
            if db is None:
                return None
            row = db.execute(
                "SELECT kid, state, hold FROM subjects WHERE lookup = ?", (self._lookup(subject),)
            ).fetchone()
            return None if row is None else Held(*row)

    def named(self, tenant: str, subject_id: str) -> list[str]:
        with self._open(create=False) as db:
            if db is None:
                return []
            found = db.execute(
                "SELECT kid FROM subjects WHERE by_id = ? AND state = 'live'", (self._by_id(tenant, subject_id),)
            )
            return sorted(row[0] for row in found)

    def counts(self) -> dict[str, int] | None:
        """How many keys are in which state, and how many are on `hold`; None: there is no store yet."""
        with self._open(create=False) as db:
            if db is None:
                return None
            found = dict(db.execute("SELECT state, count(*) FROM subjects GROUP BY state"))
            found["hold"] = db.execute("SELECT count(*) FROM subjects WHERE hold IS NOT NULL").fetchone()[0]
            return found

    # holding and forgetting

    def hold(self, subject: Subject, why: str) -> Held:
        self.made([subject])
        with self._open(create=True) as db:
            assert db is not None
            db.execute("UPDATE subjects SET hold = ? WHERE lookup = ?", (why, self._lookup(subject)))
        found = self.find(subject)
        assert found is not None
        return found

    def release(self, subject: Subject) -> None:
        with self._open(create=False) as db:
            if db is not None:
                db.execute("UPDATE subjects SET hold = NULL WHERE lookup = ?", (self._lookup(subject),))

    def erase(self, kid: str) -> None:
        with self._open(create=False) as db:
            if db is None:
                return
            self._keys.pop(kid, None)
            done = db.execute(
                "UPDATE subjects SET wrapped = NULL, state = 'erasing' WHERE kid = ? AND state = 'live' "
                "AND hold IS NULL",
                (kid,),
            ).rowcount
            if not done:
                row = db.execute("SELECT hold FROM subjects WHERE kid = ? AND state = 'live'", (kid,)).fetchone()
                if row is not None:
                    raise OnHold(f"a legal hold stops this: {row[0]}", help="`lumyn memory hold --release` ends it")
            empty_wal(db, self._left_over)

    def finish(self, kid: str) -> None:
        with self._open(create=False) as db:
            if db is None:
                return
            done = db.execute(
                "UPDATE subjects SET lookup = NULL, by_id = NULL, wrapped = NULL, hold = NULL, state = 'erased' "
                "WHERE kid = ? AND state != 'erased'",
                (kid,),
            ).rowcount
            self._keys.pop(kid, None)
            self._kids.clear()
            if done:
                empty_wal(db, self._left_over)

    def _left_over(self) -> KeysUnavailable:
        return KeysUnavailable(
            "the key is gone, but another process keeps the file's write-ahead log from being emptied",
            where=str(self._file.path),
            help="run the same command again",
        )

    # the master key

    def _lookup(self, subject: Subject) -> bytes:
        return hmac.digest(self._master, b"subject\n" + encode(list(subject)), hashlib.sha256)

    def _by_id(self, tenant: str, subject_id: str) -> bytes:
        return hmac.digest(self._master, b"id\n" + encode([tenant, subject_id]), hashlib.sha256)

    def _wrap(self, kid: str) -> bytes:
        return box(self._wrapping, secrets.token_bytes(KEY_BYTES), kid.encode())

    def _unwrap(self, kid: str, wrapped: bytes) -> bytes:
        try:
            return unbox(self._wrapping, wrapped, kid.encode())
        except IntegrityError:
            raise IntegrityError(f"the key of {kid} was changed", where=str(self._file.path)) from None

    @property
    def _wrapping(self) -> bytes:
        return hmac.digest(self._master, b"wrap", hashlib.sha512)
