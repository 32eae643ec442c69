"""What every record index does, run on the SQLite one; and what is the SQLite one's own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ulid import ULID

from memory_service import sqlite_record_index
from memory_service.record_index import Cursor, Fetch, IndexedRecord, RecordIndex, facts_of
from memory_service.sqlite_record_index import SqliteRecordIndex, remove_index_file
from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import BadInput, StorageUnavailable, UsageError
from schemas.ids import iso_time
from schemas.label import LabelEvent
from schemas.query import Field, Query, Range, matches, parse_query
from streams.index_sync import catch_up, fetcher
from streams.local_log import LocalLog
from streams.log import Append
from streams.topics import LABELS, RECORDS

NOW = 1_734_620_430_000
CREATED = Field("created_at", "time")
Record = dict[str, Any]


def query(text: str) -> Query:
    return parse_query(text, now_ms=NOW)


def record(
    n: int = 0, *, at: int = NOW, tenant: str = "default", verdict: str = "DENY", action: str = "refund",
    reasons: Sequence[str] = ("LIMIT",), rules: Sequence[str] = ("R1",), policy: str = "refunds",
    version: str = "1", amount: Any = None, usd: float | None = None, subject: str = "usr_1",
    request_id: str | None = None, provenance: Mapping[str, Any] | None = None,
    evidence: Mapping[str, Any] | None = None, failure: float = 0.0,
) -> Record:  # fmt: skip
    """A record with what an index looks at; `n` makes its id differ from others of the same time."""
    facts = [{"fact": "amount_usd", "op": "gt", "want": 1, "value": usd}] if usd is not None else []
    request: Record = {"subject": {"type": "user", "id": subject}, "action": {"type": action}, "tenant": tenant}
    if amount is not None:
        request["action"]["amount"] = amount
    if evidence is not None:
        request["evidence"] = dict(evidence)
    return {
        "schema": "lumyn.record/1", "engine": "lumyn-engine/1", "request_id": request_id, "tenant": tenant,
        "decision_id": str(ULID.from_bytes(at.to_bytes(6, "big") + n.to_bytes(10, "big"))),
        "created_at": iso_time(at), "request": request, "inputs_digest": digest(f"{n}/{at}".encode()),
        "policy": {"name": policy, "version": version, "hash": "sha256:0"}, "verdict": verdict,
        "reason_codes": list(reasons), "provenance": dict(provenance or {}),
        "matched_rules": [
            {"id": rule, "stage": "S", "effect": verdict, "outcome": "matched", "reason_codes": [], "facts": facts}
            for rule in rules
        ],
        "risk_signals": {"failure_similarity": {"score": failure, "top_k": []}, "uncertainty_score": 1.0},
    }  # fmt: skip


def label(version: int, of: Record, name: str | None, kind: str = "label") -> LabelEvent:
    event: Any = {
        "version": version, "event_id": f"e{version}", "decision_id": of["decision_id"], "tenant": of["tenant"],
        "type": kind, "label": name, "should": None, "summary": "", "actor": "ann", "at": of["created_at"],
        "job": None, "decision": None,
    }  # fmt: skip
    return event  # type: ignore[no-any-return]


def placed(records: Sequence[Record]) -> list[tuple[int, int, Record]]:
    return [(0, offset, item) for offset, item in enumerate(records)]


def fetch_from(records: Sequence[Record]) -> Fetch:
    return lambda _, offset: records[offset] if offset < len(records) else None


def ids(found: Sequence[IndexedRecord]) -> list[str]:
    return [item.decision_id for item in found]


_PROVENANCE = st.dictionaries(
    st.sampled_from(["model", "batch", "a", "a.b"]),
    st.sampled_from(["m1", "m2", "", "7", "x" * 200, 7, 0.5, True, None, {"b": "m1"}, ["m1", "m2"]]),
    max_size=3,
)
_EVIDENCE = st.none() | st.dictionaries(
    st.sampled_from(["risk", "vip"]), st.sampled_from([0.5, 7, "7", True, "gold", None, ["gold", 7]]), max_size=2
)
_AMOUNT = st.none() | st.sampled_from([0, 7, 7.5, 2**53 - 1, "7"]) | st.fixed_dictionaries(
    {"value": st.sampled_from([7, 500, 0.1 + 0.2]), "currency": st.sampled_from(["USD", "EUR", None])}
)
_RECORD = st.builds(
    record, n=st.integers(0, 2**80 - 1), at=st.sampled_from([NOW - 86_400_000, NOW - 60_000, NOW - 1, NOW, NOW + 1]),
    tenant=st.sampled_from(["default", "other"]), verdict=st.sampled_from(["ALLOW", "DENY", "ABSTAIN"]),
    action=st.sampled_from(["refund", "close"]), reasons=st.lists(st.sampled_from(["A", "B", "LIMIT"]), max_size=2),
    rules=st.lists(st.sampled_from(["R1", "R2"]), max_size=2), policy=st.sampled_from(["p", "q"]),
    version=st.sampled_from(["1", "2"]), amount=_AMOUNT, usd=st.none() | st.sampled_from([7, 8.25]),
    subject=st.sampled_from(["usr_1", "usr_2", "Usr_1"]), request_id=st.none() | st.sampled_from(["r1", "r2"]),
    provenance=_PROVENANCE, evidence=_EVIDENCE, failure=st.sampled_from([0.0, 0.5, 0.94]),
)  # fmt: skip
_TEXTS = st.sampled_from(["refund", "usr_1", "r1", "p", "1", "m1", "'7'", "7", "LIMIT", "R1", "null", "''", "USD",
                          "lumyn-engine/1", "default", "gold", "true", "'x y'", "q@2", "0.5"])  # fmt: skip
_NUMBERS = st.sampled_from(["0", "7", "7.5", "500", "-1", "0.5", "9007199254740991", "1e300"])
_TIMES = st.sampled_from(["'14:59'", "'15:00'", "'15:00:30'", "2024-12-18", "2024-12-19", "'15:00:29.999'", "1999-01-01",
                          "'15:00:30.000'", "'9998-12-31'"])  # fmt: skip


def _comparison(name: str, values: st.SearchStrategy[str], ordered: bool) -> st.SearchStrategy[str]:
    signs = ["=", "!="] + (["<", "<=", ">", ">="] if ordered else [])
    listed = st.lists(values, min_size=1, max_size=3).map(", ".join)
    return st.one_of(
        st.builds("{} {} {}".format, st.just(name), st.sampled_from(signs), values),
        st.builds("{} {} ({})".format, st.just(name), st.sampled_from(["IN", "NOT IN"]), listed),
    )


_LEAF = st.one_of(
    *(_comparison(name, _TEXTS, False)
      for name in ("action_type", "tenant", "reason", "rule", "policy", "policy_version", "request_id", "subject_id",
                   "subject_type", "currency", "engine", "inputs_digest", "decision_id")),
    *(_comparison(name, _TEXTS, True)
      for name in ("provenance.model", "provenance.a.b", "provenance.a", "evidence.risk", "action.amount.value")),
    *(_comparison(name, _NUMBERS, True)
      for name in ("amount", "amount_usd", "uncertainty_score", "failure_similarity")),
    _comparison("verdict", st.sampled_from(["ALLOW", "DENY", "ESCALATE"]), False),
    _comparison("label", st.sampled_from(["none", "failure", "success", "retracted"]), False),
    _comparison("created_at", _TIMES, True),
)  # fmt: skip
_QUERY = st.recursive(
    _LEAF,
    lambda inner: st.one_of(
        st.builds("({}) AND ({})".format, inner, inner), st.builds("({}) OR ({})".format, inner, inner),
        st.builds("NOT ({})".format, inner), st.builds("{} AND {}".format, _LEAF, _LEAF),
    ),
    max_leaves=6,
)  # fmt: skip


class RecordIndexContract:
    """Subclasses give `make`: an empty index, another one at each call."""

    @pytest.fixture
    def make(self) -> Callable[[], RecordIndex]:
        raise NotImplementedError

    @pytest.fixture
    def index(self, make: Callable[[], RecordIndex]) -> Iterator[RecordIndex]:
        index = make()
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
        )]  # fmt: skip
        assert index.positions() == {3: 18} and index.labels_position() == 1

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(_RECORD, max_size=12, unique_by=lambda r: r["decision_id"]), st.data())
    def test_it_finds_exactly_what_matches(
        self, index: RecordIndex, records: list[Record], data: st.DataObject
    ) -> None:
        index.reset()
        said = data.draw(st.lists(st.tuples(
            st.integers(0, max(0, len(records) - 1)), st.sampled_from(["failure", "success", "retracted"])
        ), max_size=6 if records else 0))  # fmt: skip
        labels = {records[at]["decision_id"]: name for at, name in said}
        index.apply(placed(records), [label(v, records[at], name) for v, (at, name) in enumerate(said, 1)])
        for text in data.draw(st.lists(_QUERY, min_size=1, max_size=8)):
            asked = query(text)
            for tenant in ("default", "other", "nobody", None):
                expected = sorted(
                    r["decision_id"] for r in records
                    if tenant in (None, r["tenant"]) and matches(asked, facts_of(r, labels.get(r["decision_id"])))
                )  # fmt: skip
                fetch = fetch_from(records)
                assert ids(index.find(asked, tenant=tenant, newest_first=False, fetch=fetch)) == expected
                newest = ids(index.find(asked, tenant=tenant, limit=3, fetch=fetch))
                assert newest == expected[::-1][:3]
                assert index.count(asked, tenant=tenant, fetch=fetch) == len(expected)

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
        records = [record(n, tenant="ab"[n % 2]) for n in range(4)]
        index.apply(placed(records))
        whole = sorted(r["decision_id"] for r in records)
        assert index.by_prefix(whole[0][:10], None, 10) == whole
        assert index.by_prefix(whole[0][:10], "a", 10) == [whole[0], whole[2]]
        assert index.by_prefix(whole[0][:10], None) == whole[:2]
        assert index.by_prefix(whole[3], "b") == [whole[3]]
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


class TestSqliteRecordIndex(RecordIndexContract):
    @pytest.fixture
    def make(self, tmp_path: Path) -> Callable[[], RecordIndex]:
        count = iter(range(1000))
        return lambda: SqliteRecordIndex(tmp_path / f"index{next(count)}.db", "epoch")


def test_it_is_there_again_after_closing(tmp_path: Path) -> None:
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    index.apply(placed([record(1), record(2, verdict="ALLOW")]))
    before = index.find(tenant=None)
    index.close()
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    index.apply([(0, 2, record(3))])
    assert index.find(tenant=None)[1:] == before and index.positions() == {0: 3}
    index.close()


def test_the_index_of_another_log_is_refused(tmp_path: Path) -> None:
    SqliteRecordIndex(tmp_path / "i.db", "e").close()
    with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
        SqliteRecordIndex(tmp_path / "i.db", "another")


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


def test_a_closed_index_is_an_outage(tmp_path: Path) -> None:
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    index.close()
    for ask in (lambda: index.find(tenant=None), index.positions, index.reset, lambda: index.apply([])):
        with pytest.raises(StorageUnavailable):
            ask()


def test_two_processes_may_index_the_same_log(tmp_path: Path) -> None:
    one, two = (SqliteRecordIndex(tmp_path / "i.db", "e") for _ in range(2))
    records = [record(n, tenant=f"t{n % 3}", provenance={"model": f"m{n % 5}"}) for n in range(300)]
    errors: list[BaseException] = []

    def run(index: SqliteRecordIndex) -> None:
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
    assert one.count(query("provenance.model=m1"), tenant="t1") == two.count(query("provenance.model=m1"), tenant="t1")
    assert sum(one.count(query("verdict=DENY"), tenant=f"t{n}") for n in range(3)) == 300


def test_records_of_positions_that_another_process_reset_are_refused(tmp_path: Path) -> None:
    one, two = (SqliteRecordIndex(tmp_path / "i.db", "e") for _ in range(2))
    one.apply(placed([record(1)]))
    assert one.positions() == {0: 1}
    two.reset()
    assert one.find(tenant=None) == []
    with pytest.raises(StorageUnavailable, match="emptied meanwhile"):
        one.apply([(0, 1, record(2))])
    assert one.positions() == {}
    one.apply(placed([record(1), record(2)]))
    assert ids(two.find(tenant=None)) == ids(one.find(tenant=None)) and two.count(tenant=None) == 2


def test_a_list_that_is_not_read_to_its_end_does_not_hold_up_writers(tmp_path: Path) -> None:
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    records = [record(n, evidence={"n": n}) for n in range(3000)]
    index.apply(placed(records))
    index.find(query("evidence.n != 1"), tenant="default", limit=1, fetch=fetch_from(records))
    with pytest.raises(ZeroDivisionError):
        index.find(query("evidence.n = 1"), tenant="default", fetch=lambda _, __: 1 // 0)  # type: ignore[arg-type,return-value]
    index.apply([(0, 3000, record(3000))])
    assert index.count(tenant="default") == 3001


def test_many_kinds_are_searched_in_place_of_listed(tmp_path: Path) -> None:
    index = SqliteRecordIndex(tmp_path / "i.db", "e")
    records = [record(n, action=f"action {n}", verdict=["DENY", "ALLOW"][n % 2]) for n in range(1500)]
    index.apply(placed(records))
    assert index.count(query("verdict=DENY"), tenant="default") == 750
    assert len(index.find(query("verdict=DENY AND NOT action_type='action 0'"), tenant="default")) == 749
    assert index.count(query("action_type='action 7'"), tenant="default") == 1
    index.close()


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
    assert sqlite_record_index._in("column", ["a'b"]) == sqlite_record_index._Sql("column IN (?)", ("a'b",))
