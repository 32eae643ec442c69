"""The exact store on SQLite keeps the contract; a file that can't answer rightly is unavailable, never empty."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from hashing_embedder import Hashing
from memory_model import EPOCH, event, plain
from store_contract import FAILED, WORKED, Asker, MemoryStoreContract, decision

from memory_service.sqlite_store import SqliteMemoryStore, rebuild_file
from memory_service.vectoriser import Vectoriser
from schemas.errors import EXIT_UNREACHABLE, LumynError, MemoryUnavailable


@pytest.fixture
def path(tmp_path):
    return tmp_path / "memory.db"


@pytest.fixture
def reopen(path, vectoriser):
    opened = []

    def again() -> SqliteMemoryStore:
        opened.append(SqliteMemoryStore(path, vectoriser, EPOCH))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


@pytest.fixture
def store(reopen):
    return reopen()


class TestSqliteMemoryStore(MemoryStoreContract):
    """The contract, on a file in a folder of its own."""


class TestWithAnotherEmbedder(MemoryStoreContract):
    """The contract, where texts have as many dimensions as MiniLM gives."""

    @pytest.fixture
    def vectoriser(self):
        return Vectoriser(Hashing(384))


class OtherName:
    """The same embedder under another id."""

    def __init__(self, inner):
        self._inner, self.id, self.dimensions, self.embed = inner, "other/1", inner.dimensions, inner.embed


def refused(path, vectoriser, epoch=EPOCH) -> MemoryUnavailable:
    with pytest.raises(MemoryUnavailable) as caught:
        SqliteMemoryStore(path, vectoriser, epoch)
    assert caught.value.exit_code == EXIT_UNREACHABLE
    assert caught.value.where == str(path)
    assert "lumyn memory rebuild" in caught.value.help
    return caught.value


def test_a_file_of_another_vectoriser_is_refused(store, path, embedder):
    store.close()
    assert "vectoriser_id" in refused(path, Vectoriser(OtherName(embedder))).message


def test_a_file_of_another_epoch_is_refused(store, path, vectoriser):
    store.close()
    assert f"epoch `{EPOCH}`, not `epoch-2`" in refused(path, vectoriser, "epoch-2").message


def test_a_file_of_another_layout_is_refused(store, path, vectoriser):
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'layout'")
    assert "layout `99`" in refused(path, vectoriser).message


@pytest.mark.parametrize("content", [b"garbage" * 1000, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_file_that_is_no_database_is_refused(path, vectoriser, content):
    path.write_bytes(content)
    refused(path, vectoriser)


def test_a_folder_that_does_not_exist_is_refused(tmp_path, vectoriser):
    refused(tmp_path / "nowhere" / "memory.db", vectoriser)


def test_a_file_overwritten_in_the_middle_is_refused_or_unavailable(store, path, vectoriser):
    for start in range(1, 301, 100):
        store.apply([event(n, decision(f"D{n}"), FAILED, "ann") for n in range(start, start + 100)])
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(MemoryUnavailable):
        Asker(SqliteMemoryStore(path, vectoriser, EPOCH), vectoriser).ask(version=300)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE points SET payload = X'00'",
        "UPDATE points SET payload = '{}'",
        "UPDATE points SET vector = X'0001'",
        "UPDATE points SET vector = X'00'",
        "DROP TABLE points",
        "DELETE FROM meta",
        "DELETE FROM meta WHERE key = 'version'",
        "UPDATE meta SET value = 'many' WHERE key = 'version'",
    ],
)
def test_damaged_content_makes_memory_unavailable_not_empty(store, path, vectoriser, damage):
    store.apply([event(1, decision("A"), FAILED, "ann")])
    with sqlite3.connect(path) as db:
        db.execute(damage)
    with pytest.raises(MemoryUnavailable):
        Asker(store, vectoriser).ask(version=1)


def test_a_damaged_row_makes_the_listing_unavailable(store, path):
    store.apply([event(1, decision("A"), FAILED, "ann")])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE points SET payload = X'00'")
    with pytest.raises(LumynError):
        list(store.points())


def test_a_locked_file_is_unavailable_and_nothing_is_half_applied(store, path):
    store.apply([event(1, decision("A"), FAILED, "ann")])
    store._db.execute("PRAGMA busy_timeout=50")
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(MemoryUnavailable, match="locked"):
        store.apply([event(2, decision("B"), FAILED, "ann")])
    holder.execute("ROLLBACK")
    holder.close()
    assert store.apply([event(2, decision("B"), FAILED, "ann")]).version == 2


def test_a_full_disk_keeps_what_was_there(store):
    store.apply([event(1, decision("A"), FAILED, "ann")])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(MemoryUnavailable, match="full"):
        store.apply([event(n, decision(f"D{n}"), FAILED, "ann") for n in range(2, 200)])
    assert store.watermark().version == 1
    store._db.execute("PRAGMA max_page_count=1000000")
    assert store.apply([event(n, decision(f"D{n}"), FAILED, "ann") for n in range(2, 200)]).count == 199


def test_an_event_that_can_not_be_read_undoes_its_whole_batch(store):
    broken = event(3, decision("C"), FAILED, "ann")
    broken["decision"] = {**broken["decision"], "facts": {"action": 7}}
    with pytest.raises(MemoryUnavailable):
        store.apply([event(1, decision("A"), FAILED, "ann"), event(2, decision("B"), FAILED, "ann"), broken])
    assert (store.watermark().version, store.watermark().count) == (0, 0)


def test_a_removed_file_is_made_again_from_the_labels(store, path, vectoriser, reopen):
    events = [
        event(n, decision(f"D{n}", tier=("gold", "new")[n % 2]), (FAILED, WORKED)[n % 2], "ann")
        for n in range(1, 40)
    ]
    store.apply(events)
    before = Asker(store, vectoriser).ask(version=39)
    store.close()
    rebuild_file(path)
    assert not path.exists()
    again = reopen()
    again.apply(events)
    after = Asker(again, vectoriser).ask(version=39)
    assert plain(after) == plain(before) and len(after.nearby) == 39


def test_threads_may_apply_and_search_at_once(store, vectoriser):
    events = [event(n, decision(f"D{n:03}"), FAILED, "ann") for n in range(1, 201)]
    faults: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(50):
                version = store.watermark().version
                found = Asker(store, vectoriser).ask(version=version, neighbours=500)
                assert len(found.nearby) == version
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 200, 20):
        store.apply(events[start : start + 20])
    for thread in threads:
        thread.join()
    assert not faults, faults[0]
