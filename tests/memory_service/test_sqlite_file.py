"""What every SQLite file of a home does when it is damaged, newer, held, not to be written, or replaced."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from memory_service import sqlite_file
from memory_service.sqlite_file import SqliteFile
from memory_service.wal import _connect
from schemas.errors import KeysUnavailable, NotFound, StorageUnavailable

LAYOUT = ("CREATE TABLE IF NOT EXISTS said (text TEXT)",)
NEXT = ("ALTER TABLE said ADD COLUMN who TEXT",)


def made(path: Path, *layouts: tuple[str, ...]) -> SqliteFile:
    return SqliteFile(path / "things.db", "the things", layouts or (LAYOUT,))


def say(file: SqliteFile, text: str = "one") -> None:
    with file.changing() as db:
        db.execute("INSERT INTO said (text) VALUES (?)", (text,))


def told(file: SqliteFile) -> list[str]:
    with file.opened() as db:
        return [row[0] for row in db.execute("SELECT text FROM said ORDER BY rowid")]


def test_a_look_makes_no_file_and_what_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    file = made(tmp_path / "home")
    with file.if_there() as db:
        assert db is None
    assert not (tmp_path / "home").exists()
    say(file)
    with file.if_there() as db:
        assert db is not None
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()} == {0o600}
    assert len(list((tmp_path / "home").iterdir())) == 3, "the file, and SQLite's two beside it"


def test_an_older_layout_is_brought_up_and_a_newer_one_is_refused(tmp_path: Path) -> None:
    say(made(tmp_path))
    newer = made(tmp_path, LAYOUT, NEXT)
    assert told(newer) == ["one"]
    with newer.changing() as db:
        db.execute("UPDATE said SET who = 'mia'")
    newer.close()
    with pytest.raises(StorageUnavailable, match="the things are of layout 2, and this version knows 1") as caught:
        told(made(tmp_path))
    assert "use the version of lumyn-streams that wrote them" in str(caught.value)
    assert told(newer) == ["one"]


def test_a_layout_that_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    say(made(tmp_path))
    with pytest.raises(StorageUnavailable, match="no such table: absent"):
        told(made(tmp_path, LAYOUT, (*NEXT, "INSERT INTO absent VALUES (1)")))
    assert told(made(tmp_path)) == ["one"]
    assert told(made(tmp_path, LAYOUT, NEXT)) == ["one"]


def test_many_at_once_make_one_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_say_many, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert told(made(tmp_path, LAYOUT, NEXT)) == ["one"] * 40


def _say_many(folder: Path) -> None:
    file = made(folder, LAYOUT, NEXT)
    for _ in range(10):
        say(file)


@pytest.mark.parametrize("of", ["no database", "its pages"])
def test_a_damaged_file_is_told_with_what_to_do(tmp_path: Path, of: str) -> None:
    file = made(tmp_path)
    for number in range(400):
        say(file, f"text {number} " * 20)
    with sqlite3.connect(file.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    file.close()
    whole = file.path.read_bytes()
    file.path.write_bytes(b"not SQLite" * 1000 if of == "no database" else whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(StorageUnavailable, match="the things can't be used: ") as caught:
        told(file)
    assert caught.value.where == str(file.path) and "restore it from a backup" in (caught.value.help or "")


def test_a_file_that_another_process_holds_is_told_and_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.05)
    file = made(tmp_path)
    say(file)
    other = sqlite3.connect(file.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageUnavailable, match="locked") as caught:
        say(file, "two")
    assert "another process holds the file" in (caught.value.help or "")
    other.execute("ROLLBACK")
    other.close()
    say(file, "two")
    assert told(file) == ["one", "two"]


def _as_nobody(work: Callable[[], object]) -> int:
    """What happens to one who may not do all: 0 where it is told with help that fits, else not."""

    def run() -> None:
        os.setgid(65534)
        os.setuid(65534)
        try:
            work()
        except StorageUnavailable as error:
            os._exit(0 if error.help == "who runs lumyn must be able to read and write the file and its folder" else 3)
        except BaseException:
            os._exit(4)
        os._exit(5)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    return process.exitcode or 0


@pytest.mark.parametrize("what", ["a folder not to be written", "a file of another's", "a file not to be written"])
def test_what_may_not_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("becomes another user")
    folder = tmp_path / "home"
    folder.mkdir()
    say(made(folder))
    made(folder).close()
    monkeypatch.chdir(folder)  # what lies above is pytest's alone
    file = made(Path())
    for path in folder.iterdir():
        path.chmod({"a folder not to be written": 0o666, "a file of another's": 0o600}.get(what, 0o444))
    folder.chmod(0o555 if what == "a folder not to be written" else 0o777)
    if what == "a folder not to be written":
        for path in folder.glob("*-*"):
            path.unlink()
    assert _as_nobody(lambda: told(file)) == 0


def test_what_others_change_is_seen_where_the_file_may_only_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    writer, reader, writable = made(tmp_path), made(tmp_path), True
    say(writer)
    writer.close()
    monkeypatch.setattr(sqlite_file, "may_be_written", lambda _: writable)
    monkeypatch.setattr(sqlite_file, "open_to_read", lambda path, wait: _connect(path, "mode=ro&immutable=1", wait))
    writable = False
    assert told(reader) == ["one"]
    writable = True
    say(writer, "two")
    writer.close()
    writable = False
    assert told(reader) == ["one", "two"]
    with pytest.raises(StorageUnavailable, match="may only be read"), reader.changing():
        pass


def test_a_file_that_was_replaced_or_removed_is_opened_anew(tmp_path: Path) -> None:
    file = made(tmp_path / "a")
    say(file)
    say(made(tmp_path / "b"), "another")
    for path in file.path.parent.iterdir():
        path.unlink()
    (tmp_path / "b" / "things.db").rename(file.path)
    for rest in ("-wal", "-shm"):
        (tmp_path / "b" / f"things.db{rest}").rename(f"{file.path}{rest}")
    assert told(file) == ["another"]
    for path in file.path.parent.iterdir():
        path.unlink()
    assert told(file) == []


def test_a_forked_process_has_a_connection_of_its_own(tmp_path: Path) -> None:
    file = made(tmp_path)
    say(file)
    process = multiprocessing.get_context("fork").Process(target=say, args=(file, "the child's"))
    process.start()
    process.join()
    assert process.exitcode == 0
    say(file, "the parent's")
    assert told(file) == ["one", "the child's", "the parent's"]


def test_an_error_takes_a_change_back_and_one_of_ours_goes_through(tmp_path: Path) -> None:
    file = made(tmp_path)
    with pytest.raises(NotFound), file.changing() as db:
        db.execute("INSERT INTO said VALUES ('never')")
        raise NotFound("as it is")
    assert told(file) == []
    keys = SqliteFile(file.path, "the keys", (LAYOUT,), error=KeysUnavailable)
    with pytest.raises(KeysUnavailable, match="the keys can't be used: no such table: none"), keys.changing() as db:
        db.execute("INSERT INTO said VALUES ('never')")
        db.execute("INSERT INTO none VALUES (1)")
    assert told(keys) == []


def test_what_a_file_is_checked_for_refuses_it(tmp_path: Path) -> None:
    def refuse(db: sqlite3.Connection) -> None:
        raise KeysUnavailable("not with this key")

    say(made(tmp_path))
    with pytest.raises(KeysUnavailable, match="not with this key"):
        told(SqliteFile(tmp_path / "things.db", "the things", (LAYOUT,), checked=refuse))


def test_what_was_deleted_is_nowhere_after_scrubbing(tmp_path: Path) -> None:
    file = made(tmp_path)
    say(file, "Philomena " * 2000)
    say(file, "stays")
    with file.changing() as db:
        db.execute("DELETE FROM said WHERE text LIKE 'Phil%'")
    assert any(b"Philomena" in path.read_bytes() for path in tmp_path.iterdir())
    file.scrub()
    assert [path.name for path in tmp_path.iterdir() if b"Philomena" in path.read_bytes()] == []
    assert told(file) == ["stays"]


def test_who_reads_meanwhile_keeps_it_from_being_scrubbed_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_S", 0.05)
    file = made(tmp_path)
    say(file)
    reader = sqlite3.connect(file.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM said").fetchall()
    with pytest.raises(StorageUnavailable, match="another process keeps the file's write-ahead log") as caught:
        file.scrub()
    assert caught.value.help == "run the same command again"
    reader.close()
    file.scrub()
    assert Path(f"{file.path}-wal").stat().st_size == 0
