"""The record index on Qdrant keeps the contract, on Edge and on a server; and what is its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from record_index_contract import RecordIndexContract, Reopen
from record_index_model import EPOCH, NOW, Record, fetch_from, ids, label, placed, query, record
from servers.qdrant import own_server

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.engine import EngineError, EnginePoint, QdrantEngine
from memory_service.qdrant.record_index import QdrantRecordIndex, collection_of, remove_record_index
from memory_service.qdrant.server import ServerEngine
from schemas.errors import StorageUnavailable

PREFIX = "lumyn"


@pytest.fixture
def edge_engine(tmp_path: Path) -> Iterator[QdrantEngine]:
    engine = EdgeEngine(tmp_path / "edge")
    yield engine
    engine.close()


@pytest.fixture
def server_engine(qdrant_server: Any) -> Iterator[QdrantEngine]:
    engine = ServerEngine(qdrant_server.url, grpc_port=qdrant_server.grpc_port)
    yield engine
    engine.close()


@pytest.fixture(params=["edge", "server"])
def engine(request: pytest.FixtureRequest) -> QdrantEngine:
    found: QdrantEngine = request.getfixturevalue(f"{request.param}_engine")
    return found


@pytest.fixture
def prefix(engine: QdrantEngine) -> Iterator[str]:
    """A prefix of the test's own: a server serves them all."""
    name = f"{PREFIX}-{uuid.uuid4().hex[:12]}"
    yield name
    remove_record_index(engine, name)


@pytest.fixture
def reopen(engine: QdrantEngine, prefix: str) -> Reopen:
    return lambda epoch=EPOCH: QdrantRecordIndex(engine, prefix, epoch)


class TestEdgeRecordIndex(RecordIndexContract):
    """The contract, on a folder of its own."""

    @pytest.fixture
    def engine(self, edge_engine: QdrantEngine) -> QdrantEngine:
        return edge_engine


class TestServerRecordIndex(RecordIndexContract):
    """The contract, in collections of its own."""

    @pytest.fixture
    def engine(self, server_engine: QdrantEngine) -> QdrantEngine:
        return server_engine


class Interrupted:
    """An engine that does something, or fails, before its n-th write; all else is the real one's."""

    def __init__(self, engine: QdrantEngine, at: int, do: Callable[[], None]) -> None:
        self._engine, self._at, self._do = engine, at, do
        self.writes = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("upsert", "set_payload"):
            return found

        def write(*args: Any, **more: Any) -> None:
            self.writes += 1
            if self.writes == self._at:
                self._do()
            found(*args, **more)

        return write


def fail() -> None:
    raise EngineError("the engine went away", where="here")


RECORDS = [
    record(n, at=NOW + n % 2, tenant="ab"[n % 3 == 0], verdict=["DENY", "ALLOW"][n % 2], amount=n / 7,
           provenance={"model": f"m{n % 3}", "seed": n})
    for n in range(40)
]  # fmt: skip
EVENTS = [label(v, RECORDS[v * 7 % 40], ["failure", "success", "retracted"][v % 3]) for v in range(1, 31)]


def answers(index: QdrantRecordIndex) -> list[object]:
    """All that can be told of an index by asking it."""
    asked = [None, *map(query, ("label=failure", "label=none", "provenance.seed=7 OR amount < 3", "verdict != ALLOW"))]
    found = [
        (index.find(one, tenant=t, fetch=fetch_from(RECORDS)), index.count(one, tenant=t, fetch=fetch_from(RECORDS)))
        for one in asked for t in ("a", "b", None)
    ]  # fmt: skip
    return [found, index.positions(), index.labels_position(), index.by_prefix("01", None, 50)]


def batches(index: QdrantRecordIndex) -> list[tuple[list[tuple[int, int, Record]], list[Any]]]:
    """What is still to be applied, in two steps, from where the index says it stands."""
    at, version = index.positions().get(0, 0), index.labels_position()
    return [(placed(RECORDS)[at:25], EVENTS[version:20]), (placed(RECORDS)[max(at, 25) :], EVENTS[max(version, 20) :])]


def test_broken_off_at_any_write_it_is_finished_to_the_same_answers(engine: QdrantEngine, prefix: str) -> None:
    """And the positions never say more than was written."""
    index = QdrantRecordIndex(engine, prefix, EPOCH)
    index.apply(placed(RECORDS), EVENTS)
    expected = answers(index)
    for at in range(1, 50):
        index.reset()
        faulty = Interrupted(engine, at, fail)
        victim = QdrantRecordIndex(faulty, prefix, EPOCH)  # type: ignore[arg-type]
        try:
            for records, events in batches(victim):
                victim.apply(records, events)
        except EngineError:
            indexed, labelled = index.positions().get(0, 0), index.labels_position()
            assert {item.offset for item in index.find(tenant=None)} >= set(range(indexed))
            shown = {item.decision_id: item.label for item in index.find(tenant=None)}
            for event in EVENTS[:labelled]:
                assert shown.get(event["decision_id"], "") is not None
        for records, events in batches(index):
            index.apply(records, events)
        assert answers(index) == expected, f"broken off at write {at}"
        if faulty.writes < at:
            assert at > 8
            return
    raise AssertionError("it never came to its end")


def test_a_label_that_comes_while_its_record_is_being_written_is_not_lost(engine: QdrantEngine, prefix: str) -> None:
    """Whichever write of the one the other comes before, both ways round."""
    index = QdrantRecordIndex(engine, prefix, EPOCH)
    for turn in range(8):
        at, slow_records = turn // 2 + 1, turn % 2 == 0
        three = [record(10 * turn + n, at=NOW + turn) for n in range(3)]
        records = [(turn, offset, item) for offset, item in enumerate(three)]
        late = label(2 * turn + 2, three[1], "success")
        index.apply([], [label(2 * turn + 1, three[0], "failure")])
        mine, others = ((records, []), ([], [late])) if slow_records else (([], [late]), (records, []))
        interrupted = Interrupted(engine, at, lambda others=others: index.apply(*others))  # type: ignore[misc]
        QdrantRecordIndex(interrupted, prefix, EPOCH).apply(*mine)  # type: ignore[arg-type]
        assert interrupted.writes >= min(at, 2)
        index.apply(records, [late])
        shown = {item.decision_id: item.label for item in index.find(tenant=None, limit=3)}
        assert shown == {three[0]["decision_id"]: "failure", three[1]["decision_id"]: "success",
                         three[2]["decision_id"]: None}  # fmt: skip
        assert index.positions()[turn] == 3 and index.labels_position() == 2 * turn + 2


def test_an_older_label_never_replaces_a_later_one(engine: QdrantEngine, prefix: str) -> None:
    """An applier broken off before its position applies again, in other batches."""
    events = [label(1, RECORDS[0], "failure"), label(2, RECORDS[0], "success")]
    index = QdrantRecordIndex(engine, prefix, EPOCH)
    index.apply(placed(RECORDS[:1]))
    faulty = Interrupted(engine, 3, fail)  # its position
    with pytest.raises(EngineError):
        QdrantRecordIndex(faulty, prefix, EPOCH).apply([], events)  # type: ignore[arg-type]
    assert index.labels_position() == 0
    index.apply([], events[:1])
    assert index.find(tenant=None)[0].label == "success" and index.labels_position() == 1
    index.apply([(0, 1, RECORDS[0])])  # written again, with the label that is kept
    assert index.find(tenant=None)[0].label == "success"
    index.apply([], events)
    assert index.find(tenant=None)[0].label == "success" and index.labels_position() == 2


def test_positions_written_into_an_index_emptied_meanwhile_are_not_believed(engine: QdrantEngine, prefix: str) -> None:
    index = QdrantRecordIndex(engine, prefix, EPOCH)
    index.apply(placed(RECORDS[:1]), EVENTS[:1])
    slow = QdrantRecordIndex(Interrupted(engine, 4, index.reset), prefix, EPOCH)  # type: ignore[arg-type]
    slow.apply([(0, 1, RECORDS[1])], EVENTS[1:2])
    assert slow._engine.writes == 4  # type: ignore[attr-defined]
    assert index.positions() == {} and index.labels_position() == 0
    for records, events in batches(index):
        index.apply(records, events)
    assert index.count(tenant=None) == 40 and index.positions() == {0: 40}


def test_partitions_indexed_by_different_processes_keep_their_own_positions(reopen: Reopen) -> None:
    one, two = reopen(), reopen()
    for n, item in enumerate(RECORDS):
        (one, two)[n % 2].apply([(n % 2, n // 2, item)])
    assert one.positions() == two.positions() == {0: 20, 1: 20} and one.count(tenant=None) == 40


def test_hundreds_of_partitions_have_positions(reopen: Reopen) -> None:
    index = reopen()
    index.apply([(n, n * 3, record(n)) for n in range(300)])
    assert index.positions() == {n: n * 3 + 1 for n in range(300)}


def test_one_emptied_from_outside_is_an_outage_and_never_an_empty_list(
    engine: QdrantEngine, prefix: str, reopen: Reopen
) -> None:
    index = reopen()
    index.apply(placed(RECORDS), EVENTS)
    engine.drop_collection(collection_of(prefix))
    asks = (
        lambda: index.find(tenant=None), lambda: index.count(tenant="a"), lambda: index.by_prefix("01", None),
        index.positions, index.labels_position, lambda: index.apply(placed(RECORDS)),
    )  # fmt: skip
    for ask in asks:
        with pytest.raises(StorageUnavailable, match="lumyn index rebuild"):
            ask()
    again = reopen()
    assert again.positions() == {} and again.labels_position() == 0 and again.find(tenant=None) == []


def test_who_goes_on_from_positions_that_were_lost_is_refused(
    engine: QdrantEngine, prefix: str, reopen: Reopen
) -> None:
    index = reopen()
    index.apply(placed(RECORDS))
    assert index.positions() == {0: 40}
    engine.drop_collection(collection_of(prefix))
    again = reopen()
    with pytest.raises(StorageUnavailable, match="emptied meanwhile"):
        index.apply([(0, 40, record(40))])
    assert again.positions() == index.positions() == {}


def test_a_collection_that_is_no_index_is_left_alone(engine: QdrantEngine, prefix: str, reopen: Reopen) -> None:
    engine.ensure_collection(collection_of(prefix), None, {})
    engine.upsert(collection_of(prefix), [EnginePoint(7, {"whose": "another's"})])
    with pytest.raises(StorageUnavailable, match="not an index's"):
        reopen()
    assert engine.count(collection_of(prefix)) == 1


def test_one_whose_making_was_broken_off_is_made_whole(engine: QdrantEngine, prefix: str, reopen: Reopen) -> None:
    engine.ensure_collection(collection_of(prefix), None, {"tenant": "tenant"})
    index = reopen()
    index.apply(placed(RECORDS), EVENTS)
    assert index.count(query("verdict=DENY"), tenant=None) == 20
    assert [item.offset for item in index.find(tenant=None, limit=1)] == [39]


def test_another_layout_is_refused_until_it_is_removed(engine: QdrantEngine, prefix: str, reopen: Reopen) -> None:
    reopen().apply(placed(RECORDS))
    engine.set_payload(collection_of(prefix), [([0], {"layout": "0"})])
    with pytest.raises(StorageUnavailable, match=r"layout `0`.*\n.*lumyn index rebuild"):
        reopen()
    remove_record_index(engine, prefix)
    assert reopen().positions() == {}


def test_one_that_another_log_took_over_is_no_longer_answered_from(
    engine: QdrantEngine, prefix: str, reopen: Reopen
) -> None:
    index = reopen()
    index.apply(placed(RECORDS))
    remove_record_index(engine, prefix)
    other = reopen(epoch="another log")
    other.apply(placed(RECORDS[:3]))
    for ask in (lambda: index.find(tenant=None), lambda: index.apply(placed(RECORDS)), index.positions):
        with pytest.raises(StorageUnavailable, match="another log"):
            ask()
    assert other.count(tenant=None) == 3


def test_two_prefixes_are_two_indexes(engine: QdrantEngine, prefix: str) -> None:
    one, two = (QdrantRecordIndex(engine, name, EPOCH) for name in (prefix, prefix + "x"))
    one.apply(placed(RECORDS))
    assert one.count(tenant=None) == 40 and two.count(tenant=None) == 0 and two.positions() == {}
    remove_record_index(engine, prefix + "x")
    assert one.count(tenant=None) == 40


def test_a_process_killed_while_it_indexes_leaves_what_can_be_finished(tmp_path: Path) -> None:
    """Edge: kill -9 in the midst of batches; the next process goes on from the positions."""
    source = (
        "import sys; from pathlib import Path\n"
        "from test_qdrant_record_index import *\n"
        "index = QdrantRecordIndex(EdgeEngine(Path(sys.argv[1])), PREFIX, EPOCH)\n"
        "print('ready', flush=True)\n"
        "while (at := index.positions().get(0, 0)) < 40:\n"
        "    index.apply(placed(RECORDS)[at:at + 3], EVENTS[index.labels_position():][:2])\n"
        "    print(at, flush=True)\n"
        "index.apply([], EVENTS)\n"
    )
    expected = QdrantRecordIndex(EdgeEngine(tmp_path / "whole"), PREFIX, EPOCH)
    expected.apply(placed(RECORDS), EVENTS)
    for lines in (1, 3, 6, 8):
        child = subprocess.Popen(
            [sys.executable, "-c", source, str(tmp_path / "edge")],
            stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        )  # fmt: skip
        assert child.stdout is not None
        for _ in range(lines):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    engine = EdgeEngine(tmp_path / "edge")
    index = QdrantRecordIndex(engine, PREFIX, EPOCH)
    for records, events in batches(index):
        index.apply(records, events)
    assert answers(index) == answers(expected)
    engine.close()


def answered_again(engine: QdrantEngine) -> None:
    """Wait until a client that lost its server has connected again."""
    deadline = time.monotonic() + 30
    while True:
        try:
            engine.version()
        except EngineError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return


def test_a_server_killed_and_started_again_has_what_was_applied() -> None:
    server = own_server()
    try:
        engine = ServerEngine(server.url, grpc_port=server.grpc_port)
        index = QdrantRecordIndex(engine, PREFIX, EPOCH)
        index.apply(placed(RECORDS)[:25], EVENTS[:20])
        before = index.find(tenant=None)
        server.kill()
        for ask in (lambda: index.find(tenant=None), lambda: index.apply(placed(RECORDS), EVENTS)):
            with pytest.raises(StorageUnavailable):
                ask()
        server.start()
        answered_again(engine)
        assert index.find(tenant=None) == before and index.positions() == {0: 25} and index.labels_position() == 20
        index.apply(placed(RECORDS), EVENTS)
        whole = QdrantRecordIndex(engine, "whole", EPOCH)
        whole.apply(placed(RECORDS), EVENTS)
        assert answers(index) == answers(whole)
        assert ids(index.find(tenant=None)) == sorted((r["decision_id"] for r in RECORDS), reverse=True)
        engine.close()
    finally:
        server.close()
