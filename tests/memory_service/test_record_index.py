"""The record index on SQLite keeps the contract; and what is its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from record_index_contract import RecordIndexContract, Reopen
from record_index_model import EPOCH, label, placed, query, record

from memory_service import index_sql
from memory_service.record_index import RecordIndex
from memory_service.sqlite_record_index import SqliteRecordIndex, remove_index_file
from schemas.errors import StorageUnavailable

TOO_DEEP = pytest.mark.xfail(strict=True, raises=StorageUnavailable, reason="SQLite's parser runs out of stack")


class TestSqliteRecordIndex(RecordIndexContract):
    """The contract, on a file in a folder of its own."""

    @pytest.fixture
    def reopen(self, tmp_path: Path) -> Iterator[Reopen]:
        opened: list[SqliteRecordIndex] = []

        def again(epoch: str = EPOCH) -> SqliteRecordIndex:
            opened.append(SqliteRecordIndex(tmp_path / "index.db", epoch))
            return opened[-1]

        yield again
        for one in opened:
            one.close()

    @pytest.mark.parametrize(("nesting", "forms"), [
        (10, 3), pytest.param(45, 3, marks=TOO_DEEP), pytest.param(62, 2, marks=TOO_DEEP),
    ])  # fmt: skip
    def test_deeply_nested_queries_find_what_matches(self, index: RecordIndex, nesting: int, forms: int) -> None:
        super().test_deeply_nested_queries_find_what_matches(index, nesting, forms)


def test_a_file_that_is_no_index_is_an_outage_that_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "i.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
        SqliteRecordIndex(path, "e")
    with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
        SqliteRecordIndex(tmp_path / "no such folder" / "i.db", "e")
    remove_index_file(path)
    SqliteRecordIndex(path, "e").close()


def test_damage_found_while_reading_is_an_outage(tmp_path: Path) -> None:
    path = tmp_path / "i.db"
    index = SqliteRecordIndex(path, "e")
    index.apply(placed([record(n) for n in range(500)]))
    index.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
        SqliteRecordIndex(path, "e").find(tenant=None)


@pytest.mark.parametrize(("text", "way"), [
    ("verdict=ALLOW AND action_type=refund", "rows_kind"), ("subject_id=u7 AND verdict=DENY", "rows_subject"),
    ("request_id=r9", "rows_request"), ("label=failure AND verdict=DENY", "rows_label"),
    ("provenance.batch=b1", "rows_origin"), ("inputs_digest='sha256:" + "0" * 64 + "'", "rows_digest"),
    ("created_at > '2024-12-19'", "PRIMARY KEY"), ("decision_id=01JFG000000000000000000000", "PRIMARY KEY"),
])  # fmt: skip
def test_every_way_in_uses_its_index_and_sorts_nothing(tmp_path: Path, text: str, way: str) -> None:
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    records = [record(n, verdict=["ALLOW", "DENY"][n % 10 > 0], subject=f"u{n % 50}", request_id=f"r{n}",
                      provenance={"batch": f"b{n % 40}"}) for n in range(2000)]  # fmt: skip
    index.apply(placed(records), [label(1, records[0], "failure")])
    plans: list[str] = []
    other = sqlite3.connect(tmp_path / "i.db")
    index._db.set_trace_callback(lambda sql: plans.append(sql) if "ORDER BY id" in sql else None)
    index.find(query(text), tenant="default", limit=5)
    index._db.set_trace_callback(None)
    for sql in plans or ["SELECT 1"]:
        steps = " ".join(str(row[3]) for row in other.execute("EXPLAIN QUERY PLAN " + sql))
        assert way in steps and "TEMP B-TREE" not in steps, steps
    assert plans or way == "rows_digest"
    other.close()
    index.close()


def test_no_statement_is_made_of_what_callers_say() -> None:
    """Values reach SQL as parameters: the module formats only names and signs of its own."""
    assert index_sql.is_in("column", ["a'b"]) == index_sql.Sql("column IN (?)", ("a'b",))
