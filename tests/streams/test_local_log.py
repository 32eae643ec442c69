"""LocalLog keeps the contract of logs, and every trouble of its file is one clear error with nothing half written."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
from log_contract import (
    TransactionalLogContract,
    all_of,
    in_processes,
    test_a_partition_is_the_positive_hash_modulo_the_count,
    test_murmur2_is_the_java_clients,
    values,
)

from schemas.errors import EXIT_UNREACHABLE, BadConfig, StorageUnavailable
from streams.local_log import LocalLog
from streams.log import Append

__all__ = ["test_a_partition_is_the_positive_hash_modulo_the_count", "test_murmur2_is_the_java_clients"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lumyn.db"


@pytest.fixture
def reopen(path):
    return partial(LocalLog, path)


@pytest.fixture
def log(reopen):
    opened = reopen()
    yield opened
    opened.close()


class TestLocalLog(TransactionalLogContract):
    """The contract, on a file in a folder of its own."""


def child(code: str, *arguments: object, **options) -> subprocess.Popen:
    """A Python process of its own, with the project on its path."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=options.pop("cwd", ROOT),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def refused(use, *, message: str, help: str | None) -> StorageUnavailable:
    with pytest.raises(StorageUnavailable) as caught:
        use()
    assert message in str(caught.value)
    assert caught.value.exit_code == EXIT_UNREACHABLE
    assert (help in caught.value.help) if help else True
    return caught.value


# clocks


def test_time_does_not_go_back_when_the_clock_does(path):
    now = [5000]
    log = LocalLog(path, clock=lambda: now[0])
    times = []
    for moment in (5000, 6000, 1000, 5999, 6001):
        now[0] = moment
        times.append(log.append([Append("requests", b"v", None, 0)])[0].time_ms)
    assert times == [5000, 6000, 6000, 6000, 6001]
    assert log.append([Append("requests", b"v", None, 1)])[0].time_ms == 6001
    now[0] = 2000
    assert LocalLog(path, clock=lambda: now[0]).append([Append("requests", b"v", None, 0)])[0].time_ms == 6001


def test_all_messages_of_one_append_have_one_time(path):
    ticks = iter(range(100, 200))
    log = LocalLog(path, clock=lambda: next(ticks))
    assert {m.time_ms for m in log.append([Append("requests", b"v", None, p) for p in range(8)])} == {100}


# the file's own settings


def test_an_old_file_keeps_its_partitions_and_epoch(path):
    first = LocalLog(path, partitions=3)
    first.close()
    again = LocalLog(path, partitions=16)
    assert again.partitions("requests") == 3
    assert again.epoch == first.epoch
    assert LocalLog(path.with_name("other.db")).epoch != first.epoch


def test_another_prefix_is_refused(path):
    LocalLog(path, prefix="one").close()
    with pytest.raises(BadConfig, match="prefix is `one`, not `two`"):
        LocalLog(path, prefix="two")


def test_another_layout_is_refused(path):
    LocalLog(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE log_meta SET value = '7' WHERE key = 'layout'")
    refused(lambda: LocalLog(path), message="layout `7`", help=None)


def test_a_commit_is_synced_unless_the_log_says_otherwise(path):
    pragma = "PRAGMA synchronous"
    assert LocalLog(path)._db.execute(pragma).fetchone()[0] == 2  # FULL
    assert LocalLog(path, durable=False)._db.execute(pragma).fetchone()[0] == 1  # NORMAL
    assert LocalLog(path)._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


@pytest.mark.parametrize(
    "name",
    [
        "a?mode=ro.db",
        "a#b.db",
        "100%.db",
        "%41.db",
        "a b.db",
        "é😀.db",
        "a&cache=shared.db",
        "file:x.db",
        "'q\".db",
    ],
)
@pytest.mark.parametrize("folder", ["plain", "f#o?o%20"])
def test_a_hostile_path_is_only_a_name(tmp_path, name, folder):
    home = tmp_path / folder
    home.mkdir()
    log = LocalLog(home / name)
    log.append([Append("control", b"v")])
    log.close()
    assert [p.name for p in home.iterdir()] == [name]
    assert values(LocalLog(home / name).read("control", 0, 0)) == [b"v"]
    assert [p.name for p in tmp_path.iterdir()] == [folder]


def test_a_relative_path_is_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    LocalLog(Path("a?b.db")).append([Append("control", b"v")])
    assert (tmp_path / "a?b.db").exists()


# trouble


def test_a_locked_log_is_unavailable_and_says_what_to_do(log, path):
    impatient = LocalLog(path, busy_timeout_s=0.05)
    with log.transaction() as transaction:
        transaction.append([Append("control", b"1")])
        error = refused(
            lambda: impatient.append([Append("control", b"2")]), message="locked", help="try again"
        )
        assert error.where == str(path)
        assert impatient.read("control", 0, 0) == [], "reading goes on"
    impatient.append([Append("control", b"2")])
    assert values(log.read("control", 0, 0)) == [b"1", b"2"]


@pytest.mark.parametrize("content", [b"no database " * 500, b"SQLite format 3\x00" + b"\x00" * 4000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    refused(lambda: LocalLog(path), message="not a database", help="not a lumyn log")
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    refused(lambda: LocalLog(tmp_path / "no" / "lumyn.db"), message="unable to open", help="folder exists")
    refused(lambda: LocalLog(tmp_path), message="unable to open", help="folder exists")


def test_a_damaged_file_is_refused_not_read_short(log, path):
    for _ in range(20):
        log.append([Append("requests", b"x" * 200, None, 0) for _ in range(100)])
    log.close()
    data = bytearray(path.read_bytes())
    data[8192 * 12 :] = b"\x55" * (len(data) - 8192 * 12)
    path.write_bytes(data)
    refused(lambda: all_of(LocalLog(path), "requests"), message="malformed", help="backup")


def test_a_log_opened_for_reading_reads_and_refuses_to_write(log, path):
    log.append([Append("control", b"v")])
    reader = LocalLog(path, read_only=True)
    assert values(reader.read("control", 0, 0)) == [b"v"]
    refused(lambda: reader.append([Append("control", b"w")]), message="readonly", help="can't be written")
    refused(lambda: reader.writer("g", "requests", 0), message="readonly", help="can't be written")
    log.append([Append("control", b"w")])
    assert values(reader.read("control", 0, 0)) == [b"v", b"w"]


def test_opening_for_reading_makes_no_file(path):
    refused(lambda: LocalLog(path, read_only=True), message="unable to open", help="folder exists")
    assert not path.exists()


def _append_as_nobody(folder: Path) -> None:
    os.chdir(folder)
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        LocalLog(Path("lumyn.db")).append([Append("control", b"w")])
    except StorageUnavailable as error:
        os._exit(0 if error.help and "written" in error.help else 3)
    except BaseException:
        os._exit(4)
    os._exit(5)


def test_a_file_that_may_not_be_written_is_refused_with_help(log, path):
    log.append([Append("control", b"v")])
    log.close()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    process = multiprocessing.get_context("fork").Process(target=_append_as_nobody, args=(path.parent,))
    process.start()
    process.join()
    path.parent.chmod(0o755)
    assert process.exitcode == 0
    path.chmod(0o644)
    assert values(LocalLog(path).read("control", 0, 0)) == [b"v"]


def test_a_full_disk_leaves_nothing_of_the_append_and_says_so(log):
    log.append([Append("requests", b"before", None, 0)])
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count={pages + 3}")
    refused(
        lambda: log.append(
            [Append("requests", b"x" * 3000, None, 0), Append("records", b"y" * 200_000, b"k", 0)]
        ),
        message="full",
        help="nothing was written",
    )
    assert values(log.read("requests", 0, 0)) == [b"before"]
    assert log.end("requests", 0) == 1 and log.end("records", 0) == 0
    log._db.execute("PRAGMA max_page_count=1000000")
    assert log.append([Append("requests", b"after", None, 0)])[0].offset == 1


def test_a_file_size_limit_leaves_whole_appends_only(path):
    code = """
        import resource, sys
        from pathlib import Path
        from schemas.errors import StorageUnavailable
        from streams.local_log import LocalLog
        from streams.log import Append
        log = LocalLog(Path(sys.argv[1]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_600_000, 1_600_000))
        done = 0
        try:
            while True:
                log.append([Append("requests", b"x" * 2000, None, 0), Append("records", b"y" * 2000, b"k", 0)])
                done += 1
        except StorageUnavailable as error:
            print(done)
            assert error.exit_code == 4
    """
    process = child(code, path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    again = LocalLog(path)
    assert int(out) > 5
    assert again.end("requests", 0) == again.end("records", 0) == int(out)
    assert again._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1_600_000


def test_a_process_killed_in_the_middle_of_a_transaction_leaves_nothing_of_it(path):
    code = """
        import sys, time
        from pathlib import Path
        from streams.local_log import LocalLog
        from streams.log import Append
        log = LocalLog(Path(sys.argv[1]))
        log.append([Append("requests", b"whole", None, 0), Append("records", b"whole", b"k", 0)])
        with log.transaction() as transaction:
            transaction.append([Append("requests", b"half" * 200_000, None, 0) for _ in range(20)])
            transaction.move("decide", "requests", 0, 21)
            print("in it", flush=True)
            time.sleep(60)
    """
    process = child(code, path)
    assert process.stdout.readline() == "in it\n", process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    again = LocalLog(path)
    assert values(again.read("requests", 0, 0)) == [b"whole"]
    assert again.committed("decide", "requests", 0) == 0
    assert again.append([Append("requests", b"next", None, 0)])[0].offset == 1
    assert again._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_a_process_killed_while_appending_leaves_whole_appends_only(path):
    code = """
        import sys
        from pathlib import Path
        from streams.local_log import LocalLog
        from streams.log import Append
        log = LocalLog(Path(sys.argv[1]))
        n = 0
        while True:
            body = b"%d" % n
            log.append([Append("requests", body, None, p) for p in range(8)] + [Append("records", body, body, 0)])
            n += 1
            print(n, flush=True)
    """
    process = child(code, path)
    for _ in range(30):
        line = process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    acknowledged = int((rest.split("\n")[-2] if rest.count("\n") else line) or line)
    again = LocalLog(path)
    count = again.end("records", 0)
    assert count >= acknowledged, "what was acknowledged is there"
    assert [again.end("requests", p) for p in range(8)] == [count] * 8
    assert values(again.read("records", 0, 0, 10**6)) == [b"%d" % n for n in range(count)]


def _open_and_append(path: Path, name: int) -> None:
    LocalLog(path).append([Append("control", b"%d" % name)])


def test_processes_may_create_the_log_at_the_same_moment(tmp_path):
    for attempt in range(2):
        path = tmp_path / f"{attempt}.db"
        in_processes(_open_and_append, *[(path, name) for name in range(4)])
        assert sorted(values(LocalLog(path).read("control", 0, 0))) == [b"0", b"1", b"2", b"3"]


def test_after_closing_it_is_unavailable(log):
    log.close()
    refused(lambda: log.read("control", 0, 0), message="closed", help=None)
    refused(lambda: log.append([Append("control", b"v")]), message="closed", help=None)


def test_changed_tells_of_other_connections_only(log, path):
    before = log.changed()
    log.append([Append("control", b"v")])
    assert log.changed() == before
    LocalLog(path).append([Append("control", b"w")])
    assert log.changed() != before
