"""What every record index must do. A backend's test module subclasses `RecordIndexContract` with one fixture:

`reopen`: a function that opens the same storage, empty at first, again beside whoever has it open; `epoch=` names the
log that it is to belong to.
"""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from record_index_model import (
    HOSTILE,
    NOW,
    History,
    Record,
    built_queries,
    fetch_from,
    histories,
    ids,
    label,
    placed,
    query,
    record,
    written_queries,
)

from memory_service.record_index import Cursor, IndexedRecord, RecordIndex
from schemas.canonical import encode
from schemas.errors import BadInput, StorageUnavailable, UsageError
from schemas.query import And, Field, OneOf, Query, Range
from streams.index_sync import catch_up, fetcher
from streams.local_log import LocalLog
from streams.log import Append
from streams.topics import LABELS, RECORDS

CREATED = Field("created_at", "time")
Reopen = Callable[..., RecordIndex]


class RecordIndexContract:
    """Subclasses give `reopen`."""

    @pytest.fixture
    def index(self, reopen: Reopen) -> Iterator[RecordIndex]:
        index = reopen()
        yield index
        index.close()

    def test_an_empty_index_has_no_positions_and_finds_nothing(self, index: RecordIndex) -> None:
        assert index.positions() == {} and index.labels_position() == 0
        assert index.find(tenant="default") == [] and index.count(tenant=None) == 0
        assert index.by_prefix("01", None) == []

    def test_a_record_is_listed_with_what_lists_show(self, index: RecordIndex) -> None:
        one = record(5, amount={"value": 500, "currency": "EUR"}, usd=540.5, reasons=("B", "A"))
        index.apply([(3, 17, one)], [label(1, one, "failure")])
        assert index.find(tenant="default") == [IndexedRecord(
            decision_id=one["decision_id"], tenant="default", created_ms=NOW, verdict="DENY", reason_codes=("B", "A"),
            action_type="refund", subject_id="usr_1", policy="refunds", version="1", amount=500, currency="EUR",
            amount_usd=540.5, partition=3, offset=17, label="failure",
            rules=tuple(r["id"] for r in one["matched_rules"] if r["outcome"] == "matched"),
        )]  # fmt: skip
        assert index.positions() == {3: 18} and index.labels_position() == 1

    @settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(history=histories(), asked=st.lists(written_queries | built_queries, min_size=10, max_size=24))
    def test_it_finds_exactly_what_matches(
        self, index: RecordIndex, history: History, asked: list[Query]
    ) -> None:
        index.reset()
        index.apply(placed(history.records), history.events)
        fetch = fetch_from(history.records)
        for tenant in ("default", "other", "nobody", None):
            for one in asked:
                expected = history.matching(one, tenant)
                assert ids(index.find(one, tenant=tenant, newest_first=False, fetch=fetch)) == expected, one
                assert ids(index.find(one, tenant=tenant, limit=3, fetch=fetch)) == expected[::-1][:3]
                assert index.count(one, tenant=tenant, fetch=fetch) == len(expected)

    def test_a_value_named_twice_finds_its_records_once(self, index: RecordIndex) -> None:
        one = record(1, subject="u1", request_id="r1", provenance={"model": "m1"})
        index.apply(placed([one]), [label(1, one, "success")])
        name, digest = one["decision_id"], one["inputs_digest"]
        for field, value in {
            "label": "success", "subject_id": "u1", "request_id": "r1", "decision_id": name, "inputs_digest": digest,
            "provenance.model": "m1",
        }.items():  # fmt: skip
            once = query(f"{field} IN ('{value}', 'failure')").expression
            assert isinstance(once, OneOf)
            asked = Query("", And((replace(once, values=once.values + once.values),)))  # the parser would not write it
            assert ids(index.find(asked, tenant="default", fetch=fetch_from([one]))) == [name], field
            assert index.count(asked, tenant="default", fetch=fetch_from([one])) == 1, field

    @pytest.mark.parametrize("newest_first", [True, False])
    def test_pages_put_together_are_the_whole_list(self, index: RecordIndex, newest_first: bool) -> None:
        records = [
            record(n, at=NOW + n // 4, tenant="ab"[n % 2], verdict=["DENY", "ALLOW"][n % 3 == 0]) for n in range(60)
        ]
        index.apply(placed(records))
        for tenant in ("a", None):
            for asked in (None, query("verdict=DENY"), query("verdict=DENY OR amount > 3")):
                whole = index.find(asked, tenant=tenant, newest_first=newest_first)
                pages: list[IndexedRecord] = []
                while page := index.find(asked, tenant=tenant, limit=7, newest_first=newest_first,
                                         after=pages[-1].cursor if pages else None):  # fmt: skip
                    pages += page
                assert pages == whole and len(whole) >= 20
                assert ids(whole) == sorted(ids(whole), reverse=newest_first)

    def test_a_cursor_that_no_list_gave_is_refused(self, index: RecordIndex) -> None:
        index.apply(placed([record()]))
        with pytest.raises(BadInput):
            index.find(tenant="default", after=Cursor("x' OR 1=1 --"))

    def test_tenants_never_mix(self, index: RecordIndex) -> None:
        records = [record(n, tenant=tenant, subject="same") for n, tenant in enumerate(["a", "b", "a", "c"])]
        index.apply(placed(records), [label(1, records[0], "failure")])
        for text in ("subject_id=same", "verdict=DENY", "tenant=b OR verdict=DENY", "NOT tenant=a", "label != success"):
            found = index.find(query(text), tenant="a")
            assert {item.tenant for item in found} <= {"a"}
        assert index.find(query("tenant=b"), tenant="a") == []
        assert ids(index.find(query("tenant=b"), tenant=None)) == [records[1]["decision_id"]]
        assert index.by_prefix(records[1]["decision_id"], "a") == []

    @pytest.mark.parametrize("text", [
        "NOT tenant=a", "tenant=a AND NOT tenant=a", "verdict=DENY AND verdict != DENY", "tenant=a OR verdict=DENY",
        "verdict=DENY AND (verdict=DENY OR subject_id=u1)", "(verdict=DENY OR subject_id=u1) AND verdict != DENY",
        "subject_id IN (u1, u2) AND subject_id NOT IN (u2, u1)", "subject_id IN (u1, u2) AND subject_id IN (u2, u3)",
        "label=none AND label != none", "amount=3 AND amount != 3", "request_id=null AND NOT request_id=null",
        "tenant=a AND (tenant=a OR subject_id=u1)", "NOT (verdict=DENY AND NOT verdict=DENY)",
        "verdict=DENY OR verdict != DENY", "reason=A AND reason != A", "(reason=A OR reason=B) AND reason != A",
        "decision_id IN (01JFFPYFNG0000000000000001, 01JFFPYFNG0000000000000002) AND NOT decision_id IN "
        "(01JFFPYFNG0000000000000002, 01JFFPYFNG0000000000000001)",
        "created_at > '2024-12-19' AND NOT created_at > '2024-12-19'", "provenance.m=x AND NOT provenance.m=x",
    ])  # fmt: skip
    def test_what_is_both_asked_for_and_excluded_is_not_found(self, index: RecordIndex, text: str) -> None:
        history = History([
            record(n, tenant="aab"[n % 3], verdict=["DENY", "ALLOW"][n % 2], subject=f"u{n % 4}", amount=n % 5,
                   reasons=["A", "B"][n % 2 : 1 + n % 3], provenance={"m": "xy"[n % 2]},
                   request_id=None if n % 2 else f"r{n}")
            for n in range(24)
        ])  # fmt: skip
        index.apply(placed(history.records))
        for tenant in ("a", "b", None):
            expected = history.matching(query(text), tenant)
            assert ids(index.find(query(text), tenant=tenant, newest_first=False)) == expected
            assert ids(index.find(query(text), tenant=tenant, limit=30)) == expected[::-1]
            assert index.count(query(text), tenant=tenant) == len(expected)

    def test_another_tenants_label_changes_nothing(self, index: RecordIndex) -> None:
        one = record(tenant="a")
        index.apply([(0, 0, one)], [label(1, {**one, "tenant": "b"}, "failure")])
        assert index.find(tenant="a")[0].label is None

    def test_applying_again_changes_nothing(self, index: RecordIndex) -> None:
        records = [record(n, provenance={"model": f"m{n % 2}"}) for n in range(6)]
        events = [label(1, records[0], "failure"), label(2, records[1], "success")]
        index.apply(placed(records), events)
        before = index.find(tenant=None), index.count(query("verdict=DENY"), tenant=None), index.positions()
        index.apply(placed(records), events)
        index.apply(placed(records)[2:4])
        assert (index.find(tenant=None), index.count(query("verdict=DENY"), tenant=None), index.positions()) == before
        assert index.labels_position() == 2

    def test_a_decision_seen_again_further_on_is_listed_once_where_it_was_last(self, index: RecordIndex) -> None:
        one = record()
        index.apply([(0, 0, one)], [label(1, one, "failure")])
        index.apply([(0, 9, one)])
        found = index.find(tenant="default")
        assert [(item.offset, item.label) for item in found] == [(9, "failure")]
        assert index.count(tenant="default") == index.count(query("verdict=DENY"), tenant="default") == 1

    def test_the_last_label_counts_whoever_came_first(self, index: RecordIndex) -> None:
        one, two = record(1), record(2)
        index.apply([], [label(1, one, "failure"), label(2, one, "success"), label(3, two, "failure")])
        index.apply(placed([one, two]))
        index.apply([], [label(4, one, None, "note"), label(5, two, None, "quarantine"), label(6, two, "retracted"),
                         label(7, one, "failure", "settle")])  # fmt: skip
        assert [item.label for item in index.find(tenant="default", newest_first=False)] == ["failure", "retracted"]
        assert index.count(query("label=failure"), tenant="default") == 1

    def test_a_gap_in_the_labels_is_refused_and_nothing_of_the_batch_is_kept(self, index: RecordIndex) -> None:
        one = record()
        with pytest.raises(StorageUnavailable):
            index.apply([(0, 0, one)], [label(2, one, "failure")])
        assert index.positions() == {} and index.find(tenant=None) == [] and index.labels_position() == 0
        index.apply([(0, 0, one)], [label(1, one, "failure")])
        assert index.count(query("verdict=DENY"), tenant=None) == 1

    @pytest.mark.parametrize("broken", [
        {}, {"decision_id": "nonsense"}, {"verdict": None}, {"created_at": "2024-12-19T00:00:00.000Z"},
        {"request": None}, {"reason_codes": [1]}, {"inputs_digest": "sha256:zz"}, {"policy": {}},
    ])  # fmt: skip
    def test_what_is_no_record_is_passed_over_and_told(self, index: RecordIndex, broken: Record) -> None:
        bad = {**record(), **broken} if broken else {}
        refused = index.apply([(0, 4, bad), (0, 5, record(1))])
        assert [(item.partition, item.offset) for item in refused] == [(0, 4)] and refused[0].why
        assert index.positions() == {0: 6} and index.count(tenant=None) == 1

    def test_an_encrypted_request_is_listed_without_its_fields(self, index: RecordIndex) -> None:
        index.apply([(0, 0, {**record(), "request": {"envelope": "AAAA"}})])
        found = index.find(query("verdict=DENY"), tenant=None)
        assert [(item.action_type, item.subject_id, item.amount) for item in found] == [("", None, None)]

    def test_what_the_index_does_not_hold_is_asked_of_the_record(self, index: RecordIndex) -> None:
        records = [record(n, evidence={"risk": n / 10}) for n in range(10)]
        index.apply(placed(records))
        asked = query("verdict=DENY AND evidence.risk >= 0.7")
        found = index.find(asked, tenant="default", limit=2, fetch=fetch_from(records))
        assert ids(found) == [records[9]["decision_id"], records[8]["decision_id"]]
        assert index.count(asked, tenant="default", fetch=fetch_from(records)) == 3
        assert index.count(asked, tenant="default", fetch=lambda _, __: None) == 0
        with pytest.raises(UsageError):
            index.find(asked, tenant="default")

    def test_short_provenance_needs_no_look_into_records(self, index: RecordIndex) -> None:
        index.apply(placed([record(n, provenance={"model": f"m{n % 3}", "freshness_s": n}) for n in range(9)]))
        assert index.count(query("provenance.model = m1"), tenant="default") == 3
        assert index.count(query("provenance.model != m1 AND provenance.model > 'm1'"), tenant="default") == 3

    def test_a_provenance_name_with_thousands_of_values_is_still_found(self, index: RecordIndex) -> None:
        records = [record(n, provenance={"trace": f"t{n}", "model": "m"}) for n in range(2500)]
        index.apply(placed(records))
        fetch = fetch_from(records)
        for n in (0, 999, 1000, 2499):
            asked = query(f"provenance.trace = t{n} AND provenance.model = m")
            assert ids(index.find(asked, tenant="default")) == [records[n]["decision_id"]]
        assert index.count(query("provenance.trace IN (t3, t2000, t9999)"), tenant="default") == 2
        assert index.count(query("provenance.trace != t2000"), tenant="default") == 2499
        assert index.count(query("provenance.trace = null"), tenant="default", fetch=fetch) == 0
        assert index.count(query("provenance.trace >= 't24' AND provenance.trace < 't25'"), tenant="default",
                           fetch=fetch) == 111  # fmt: skip

    @pytest.mark.parametrize(("bounds", "found"), [
        (Range(CREATED, NOW, NOW + 2), [0, 1, 2]), (Range(CREATED, NOW, NOW + 2, above=True), [1, 2]),
        (Range(CREATED, NOW, NOW + 2, below=True), [0, 1]), (Range(CREATED, low=NOW + 1), [1, 2]),
        (Range(CREATED, high=NOW), [0]), (Range(CREATED, -5, 1 << 60), [0, 1, 2]),
        (Range(CREATED, low=1 << 60), []), (Range(CREATED, high=-1), []),
    ])  # fmt: skip
    def test_times_are_found_to_the_millisecond(self, index: RecordIndex, bounds: Range, found: list[int]) -> None:
        records = [record(0, at=NOW), record(2**80 - 1, at=NOW + 1), record(2**80 - 1, at=NOW + 2)]
        index.apply(placed(records))
        listed = index.find(Query("", bounds), tenant="default", newest_first=False)
        assert ids(listed) == [records[n]["decision_id"] for n in found]

    def test_dotted_provenance_is_found_whether_its_key_or_its_path_has_the_dot(self, index: RecordIndex) -> None:
        forms: list[Record] = [
            {"a.b": "x"}, {"a": {"b": "x"}}, {"a": "x"}, {"a.b": None, "a": {"b": "x"}}, {"a": {"b": ["y", "x"]}},
        ]  # fmt: skip
        records = [record(n, provenance=form) for n, form in enumerate(forms)]
        index.apply(placed(records))
        found = index.find(query("provenance.a.b = x"), tenant="default", newest_first=False,
                           fetch=fetch_from(records))  # fmt: skip
        assert [item.offset for item in found] == [0, 1, 4]

    def test_ids_by_prefix(self, index: RecordIndex) -> None:
        records = [record(n, tenant=tenant) for n, tenant in ((0, "a"), (31, "b"), (33, "a"), (70, "b"))]
        index.apply(placed(records))
        whole = sorted(r["decision_id"] for r in records)
        assert index.by_prefix(whole[0][:10], None, 10) == whole
        assert index.by_prefix(whole[0][:10], "a", 10) == [whole[0], whole[2]]
        assert index.by_prefix(whole[0][:10], None) == whole[:2]
        assert index.by_prefix(whole[3], "b") == [whole[3]]
        for cut in (12, 20, 25):
            shared = [name for name in whole if name.startswith(whole[1][:cut])]
            assert index.by_prefix(whole[1][:cut], None, 10) == shared
        assert index.by_prefix("7", None) == index.by_prefix("01' --", None) == index.by_prefix("", None) == []

    @pytest.mark.parametrize("text", [
        "x'; DROP TABLE rows; --", "x') OR 1=1 --", 'x" OR "1"="1', "%", "_", "NULL", "\\", "x\x00y", "é𐍈", "*",
    ])  # fmt: skip
    def test_values_are_values_whatever_they_hold(self, index: RecordIndex, text: str) -> None:
        def quoted(value: str) -> str:
            return "'" + value.replace("'", "''") + "'"

        records = [record(1, subject=text, provenance={text: text}, reasons=(text,), rules=(text,), action=text,
                          policy=text, request_id=text, evidence={text: text}), record(2)]  # fmt: skip
        index.apply(placed(records))
        if "\x00" not in text:
            for field in ("subject_id", "reason", "rule", "action_type", "policy", "request_id"):
                asked = query(f"{field} = {quoted(text)}")
                assert ids(index.find(asked, tenant="default")) == [records[0]["decision_id"]], field
            name = '"provenance.' + text.replace('"', '""') + '"'
            found = index.find(query(f"{name} = {quoted(text)}"), tenant="default", fetch=fetch_from(records))
            assert ids(found) == [records[0]["decision_id"]]
        assert index.find(tenant=text) == [] and index.count(tenant="default") == 2

    def test_the_longest_accepted_queries_run(self, index: RecordIndex) -> None:
        index.apply(placed([record(n, subject=f"u{n}") for n in range(3)]))
        for part in ("subject_id = u1", "verdict = DENY", "provenance.model=x", "NOT reason = A", "created_at < '1:00'"):
            for word in (" OR ", " AND "):
                asked = query(word.join([part] * 4000))
                index.find(asked, tenant="default")
        listed = ", ".join(f"u{n}" for n in range(4900))
        assert index.count(query(f"subject_id IN ({listed})"), tenant="default") == 3
        assert index.count(query("NOT (" * 30 + "subject_id=u1 OR verdict=ALLOW" + ")" * 30), tenant="default") == 1

    def test_reset_empties_it_and_it_can_be_filled_again(self, index: RecordIndex) -> None:
        records = [record(n, provenance={"model": "m"}) for n in range(3)]
        index.apply(placed(records), [label(1, records[0], "failure")])
        before = index.find(tenant=None)
        index.reset()
        assert index.find(tenant=None) == [] and index.positions() == {} and index.labels_position() == 0
        index.apply(placed(records), [label(1, records[0], "failure")])
        assert index.find(tenant=None) == before
        assert index.count(query("provenance.model=m AND verdict=DENY"), tenant="default") == 3

    def test_it_catches_up_on_a_log_bit_by_bit(self, index: RecordIndex, tmp_path: Path) -> None:
        log = LocalLog(tmp_path / "log.db", partitions=3, durable=False)
        records = [record(n, at=NOW + n, evidence={"n": n}) for n in range(50)]
        for item in records[:30]:
            log.append([Append(RECORDS, encode(item), item["decision_id"].encode())])
        log.append([Append(LABELS, encode(label(1, records[3], "failure")))])
        sizes: list[int] = []
        done = catch_up(log, index, sizes.append)
        assert (done.records, done.labels, done.refused) == (30, 1, ()) and sum(sizes) == 31
        for item in records[30:]:
            log.append([Append(RECORDS, encode(item), item["decision_id"].encode())])
        log.append([Append(RECORDS, b"not json", b"x"), Append(LABELS, encode(label(2, records[40], "success")))])
        done = catch_up(log, index)
        assert (done.records, done.labels, len(done.refused)) == (21, 1, 1)
        assert catch_up(log, index).records == 0
        assert ids(index.find(tenant=None, newest_first=False)) == [item["decision_id"] for item in records]
        found = index.find(query("evidence.n IN (3, 40)"), tenant="default", fetch=fetcher(log))
        assert [item.label for item in found] == ["success", "failure"]
        one = index.find(tenant=None, limit=1)[0]
        stored = fetcher(log)(one.partition, one.offset)
        assert stored is not None and stored["decision_id"] == one.decision_id
        assert fetcher(log)(0, 9_999) is None
        log.close()

    def test_a_log_of_several_reads_is_indexed_whole(self, index: RecordIndex, tmp_path: Path) -> None:
        log = LocalLog(tmp_path / "log.db", partitions=1, durable=False)
        records = [record(n, at=NOW + n) for n in range(4500)]
        log.append([Append(RECORDS, encode(item), item["decision_id"].encode()) for item in records])
        log.append([Append(LABELS, encode(label(n, records[n], "success"))) for n in range(1, 2301)])
        assert catch_up(log, index).records == index.count(tenant=None) == 4500
        assert index.count(query("label=success"), tenant="default") == 2300
        log.close()

    def test_a_record_that_compaction_removed_is_passed_over(self, index: RecordIndex, tmp_path: Path) -> None:
        log = LocalLog(tmp_path / "log.db", partitions=1, durable=False)
        records = [record(n, evidence={"n": n}) for n in range(3)]
        log.append([Append(RECORDS, encode(item), item["decision_id"].encode()) for item in records])
        with sqlite3.connect(tmp_path / "log.db") as db:
            db.execute("DELETE FROM log_records WHERE pos = 1")
        assert fetcher(log)(0, 1) is None
        assert catch_up(log, index).records == 2 and index.positions() == {0: 3}
        log.close()

    def test_an_index_of_a_longer_log_is_not_believed(self, index: RecordIndex, tmp_path: Path) -> None:
        log = LocalLog(tmp_path / "log.db", partitions=1, durable=False)
        index.apply([(0, 5, record())])
        with pytest.raises(StorageUnavailable, match="index rebuild"):
            catch_up(log, index)
        log.close()

    def test_it_is_there_again_after_closing(self, reopen: Reopen) -> None:
        index = reopen()
        index.apply(placed([record(1), record(2, verdict="ALLOW")]), [label(1, record(1), "failure")])
        before = index.find(tenant=None)
        index.close()
        index = reopen()
        assert index.labels_position() == 1
        index.apply([(0, 2, record(3))])
        assert index.find(tenant=None)[1:] == before and index.positions() == {0: 3}
        index.close()

    def test_the_index_of_another_log_is_refused(self, reopen: Reopen) -> None:
        index = reopen()
        index.apply(placed([record()]))
        with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
            reopen(epoch="another")
        assert index.count(tenant=None) == 1
        index.close()

    def test_a_closed_index_is_an_outage(self, index: RecordIndex) -> None:
        index.close()
        for ask in (lambda: index.find(tenant=None), index.positions, index.reset, lambda: index.apply([])):
            with pytest.raises(StorageUnavailable):
                ask()

    def test_two_may_index_the_same_log_at_once(self, reopen: Reopen) -> None:
        one, two = reopen(), reopen()
        records = [record(n, tenant=f"t{n % 3}", provenance={"model": f"m{n % 5}"}) for n in range(300)]
        errors: list[BaseException] = []

        def run(index: RecordIndex) -> None:
            try:
                for start in range(0, 300, 10):
                    index.apply(placed(records)[start : start + 10])
                    index.find(query("verdict=DENY"), tenant="t1", limit=5)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(index,)) for index in (one, two, one)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == [] and one.find(tenant=None) == two.find(tenant=None) and len(one.find(tenant=None)) == 300
        asked = query("provenance.model=m1")
        assert one.count(asked, tenant="t1") == two.count(asked, tenant="t1") == 20
        assert sum(one.count(query("verdict=DENY"), tenant=f"t{n}") for n in range(3)) == 300
        one.close()
        two.close()

    def test_records_of_positions_that_another_opener_reset_are_refused(self, reopen: Reopen) -> None:
        one, two = reopen(), reopen()
        one.apply(placed([record(1)]))
        assert one.positions() == {0: 1}
        two.reset()
        assert one.find(tenant=None) == []
        with pytest.raises(StorageUnavailable, match="emptied meanwhile"):
            one.apply([(0, 1, record(2))])
        assert one.positions() == {}
        one.apply(placed([record(1), record(2)]))
        assert ids(two.find(tenant=None)) == ids(one.find(tenant=None)) and two.count(tenant=None) == 2
        one.close()
        two.close()

    def test_a_list_that_is_not_read_to_its_end_does_not_hold_up_writers(self, index: RecordIndex) -> None:
        records = [record(n, evidence={"n": n}) for n in range(1200)]
        index.apply(placed(records))
        index.find(query("evidence.n != 1"), tenant="default", limit=1, fetch=fetch_from(records))
        with pytest.raises(ZeroDivisionError):
            index.find(query("evidence.n = 1"), tenant="default", fetch=lambda _, __: 1 // 0)  # type: ignore[arg-type,return-value]
        index.apply([(0, 1200, record(1200))])
        assert index.count(tenant="default") == 1201

    def test_many_distinct_values_are_found_each_and_together(self, index: RecordIndex) -> None:
        records = [record(n, action=f"action {n}", verdict=["DENY", "ALLOW"][n % 2]) for n in range(1500)]
        index.apply(placed(records))
        assert index.count(query("verdict=DENY"), tenant="default") == 750
        assert len(index.find(query("verdict=DENY AND NOT action_type='action 0'"), tenant="default")) == 749
        assert index.count(query("action_type='action 7'"), tenant="default") == 1

    @pytest.mark.parametrize("newest_first", [True, False])
    @pytest.mark.parametrize("spread", [0, 1 << 76])
    def test_no_page_skips_or_repeats_among_decisions_of_one_millisecond(
        self, index: RecordIndex, newest_first: bool, spread: int
    ) -> None:
        """`spread` apart, ids of one time differ in their last or in their first random bits."""
        at = [NOW] * 5 + [NOW + 1] * 1300 + [NOW + 2] * 3
        records = [record(n % 16 * spread + n, at=at_ms, subject=f"u{n % 2}") for n, at_ms in enumerate(at)]
        index.apply(placed(records))
        whole = sorted((r["decision_id"] for r in records), reverse=newest_first)
        odd = sorted((r["decision_id"] for r in records[1::2]), reverse=newest_first)
        for asked, expected, size in ((None, whole, 170), (query("subject_id=u1"), odd, 90)):
            pages: list[IndexedRecord] = []
            while page := index.find(asked, tenant="default", limit=size, newest_first=newest_first,
                                     after=pages[-1].cursor if pages else None):  # fmt: skip
                assert len(page) == min(size, len(expected) - len(pages))
                pages += page
            assert ids(pages) == expected
        assert ids(index.find(tenant=None, newest_first=newest_first)) == whole

    def test_hostile_values_come_back_as_they_were(self, index: RecordIndex) -> None:
        records = [
            record(n, subject=text, tenant=text, reasons=(text, text), policy=text, version=text, action=text,
                   amount={"value": n, "currency": text}, provenance={text: text}, request_id=text, rules=(text,))
            for n, text in enumerate(HOSTILE)
        ]  # fmt: skip
        index.apply(placed(records))
        for n, text in enumerate(HOSTILE):
            (found,) = index.find(tenant=text)
            assert found.decision_id == records[n]["decision_id"] and found.tenant == text
            assert (found.subject_id, found.policy, found.version, found.currency) == (text,) * 4
            assert (found.action_type, found.reason_codes) == (text, (text, text))
            for name in ("subject_id", "policy", "policy_version", "currency", "reason", "rule", "request_id"):
                asked = Query("", OneOf(Field(name, "text"), (text,)))
                assert ids(index.find(asked, tenant=None)) == [found.decision_id], name
                assert ids(index.find(asked, tenant=text)) == [found.decision_id]

    @pytest.mark.parametrize("amount", [
        0, -1, 7.5, 19.99, -0.01, 0.1 + 0.2, 980.4296384295451, 1 / 3, -2 / 3, 2**53 - 1, 1 - 2**53, 1e22, 1e300,
        1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -5e-324, 2.2250738585072014e-308, 1e-7, 123456789012345.6,
    ])  # fmt: skip
    def test_numbers_are_compared_and_listed_to_the_last_bit(self, index: RecordIndex, amount: float) -> None:
        below, above = math.nextafter(amount, -math.inf), math.nextafter(amount, math.inf)
        index.apply(placed([record(amount=amount), record(1), record(2, amount="text")]))
        assert index.find(tenant=None, newest_first=False)[0].amount == amount
        field = Field("amount", "number")

        def found(asked: Range | OneOf) -> int:
            listed, counted = index.find(Query("", asked), tenant=None), index.count(Query("", asked), tenant=None)
            assert counted == len(listed)
            return counted

        assert [found(OneOf(field, (value,))) for value in (below, amount, above)] == [0, 1, 0]
        assert [found(Range(field, low=value)) for value in (below, amount, above)] == [1, 1, 0]
        assert [found(Range(field, high=value)) for value in (below, amount, above)] == [0, 1, 1]
        assert [found(Range(field, low=value, above=True)) for value in (below, amount, above)] == [1, 0, 0]
        assert [found(Range(field, high=value, below=True)) for value in (below, amount, above)] == [0, 0, 1]
        assert found(OneOf(field, (None,))) == 2 and found(OneOf(field, (None, amount))) == 3

    @pytest.mark.parametrize(("nesting", "forms"), [(10, 3), (45, 3), (62, 2)])
    def test_deeply_nested_queries_find_what_matches(self, index: RecordIndex, nesting: int, forms: int) -> None:
        history = History([record(n, subject=f"u{n}", action=f"a{n % 7}", amount=n) for n in range(70)])
        index.apply(placed(history.records))
        text = "amount > 60"
        for level in range(nesting):
            text = [f"subject_id = u{level} OR ({text})", f"action_type != a{level % 7} AND ({text})",
                    f"NOT ({text} AND amount != {level})"][level % forms]  # fmt: skip
        found = index.find(query(text), tenant="default", newest_first=False)
        assert ids(found) == history.matching(query(text), "default")
        assert index.count(query(text), tenant=None) == len(found)

    def test_one_filled_again_or_in_other_bits_answers_identically(self, index: RecordIndex) -> None:
        records = [record(n, at=NOW + n % 3, tenant="ab"[n % 2], verdict=["DENY", "ALLOW"][n % 5 > 0], amount=n / 7,
                          provenance={"model": f"m{n % 3}", "seed": n if n % 4 else "s"}) for n in range(90)]  # fmt: skip
        events = [label(v, records[v * 7 % 90], ["failure", "success", "retracted"][v % 3]) for v in range(1, 40)]
        fetch = fetch_from(records)

        def answers() -> list[object]:
            asked = [None, query("label=failure"), query("provenance.seed=s OR amount < 3"), query("verdict != ALLOW")]
            found = [[index.find(one, tenant=t, fetch=fetch), index.count(one, tenant=t, fetch=fetch)]
                     for one in asked for t in ("a", None)]  # fmt: skip
            return [found, index.positions(), index.labels_position(), index.by_prefix("01", "b", 50)]

        index.apply(placed(records), events)
        before = answers()
        for bits in (1, 13):
            index.reset()
            for start in range(0, 90, bits):
                index.apply(placed(records)[start : start + bits], events[: start // 2][-bits:])
            index.apply([], events)
            assert answers() == before
        index.reset()
        index.apply([], events)
        index.apply(placed(records))
        assert answers() == before
