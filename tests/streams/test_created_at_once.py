"""Files that several processes create at the same moment: each of them gets a file that it can use."""

import multiprocessing
from contextlib import suppress

import pytest

from memory_service.sqlite_record_index import SqliteRecordIndex
from memory_service.sqlite_store import SqliteMemoryStore
from streams.local_log import LocalLog

FILES = 25
PROCESSES = 3


class _Vectoriser:
    id = "any"


OPENED = {
    "log": lambda path: LocalLog(path).close(),
    "memory": lambda path: SqliteMemoryStore(path, _Vectoriser(), "epoch").close(),
    "index": lambda path: SqliteRecordIndex(path, "epoch").close(),
}


def _create(kind, folder, together, failures) -> None:
    for number in range(FILES):
        with suppress(Exception):
            together.wait(60)
        try:
            OPENED[kind](folder / f"{number}.db")
        except Exception as error:
            failures.put(f"{number}: {error}")


@pytest.mark.parametrize("kind", OPENED)
def test_processes_may_create_a_file_at_the_same_moment(tmp_path, kind):
    context = multiprocessing.get_context("spawn")
    together, failures = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=_create, args=(kind, tmp_path, together, failures)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * PROCESSES
    assert failures.empty(), failures.get()
