"""Both clients of the engine understand every part of its protocol alike."""

from __future__ import annotations

import socket
import subprocess
import sys
import uuid

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.engine import (
    EngineError,
    EnginePoint,
    Filter,
    HasId,
    IsEmpty,
    IsNull,
    Match,
    MatchAny,
    Nearest,
    NoCollection,
    OrderBy,
    Range,
)
from memory_service.qdrant.server import ServerEngine
from schemas.errors import EXIT_UNREACHABLE, BadConfig

INDEXES = {"tenant": "tenant", "word": "keyword", "n": "integer", "x": "float"}


def uid(k: int) -> str:
    return str(uuid.UUID(int=k))


@pytest.fixture
def name(place):
    return f"{place.prefix}-points"


@pytest.fixture
def engine(place, name):
    """An engine with a collection of vectors of four and an index of each kind."""
    engine = place.open()
    engine.ensure_collection(name, 4, INDEXES)
    return engine


def put(engine, name, *payloads):
    points = [EnginePoint(uid(k), p, np.array([k, 1, 0, 0], dtype=np.float32)) for k, p in enumerate(payloads)]
    engine.upsert(name, points)


def among(engine, name, filter) -> list[int]:
    """Which points pass: by scroll, and by count, which must agree."""
    page = engine.scroll(name, filter, limit=100, with_payload=False)
    assert page.next_offset is None
    assert engine.count(name, filter) == len(page.points)
    return sorted(uuid.UUID(p.id).int for p in page.points)


PAYLOADS = (
    {"tenant": "a", "word": "one", "n": 1, "x": 0.5, "flag": True},
    {"tenant": "a", "word": ["one", "two"], "n": 2**62, "x": -3.0, "flag": False},
    {"tenant": "b", "word": "three", "n": -7, "x": 1e300, "flag": True},
    {"tenant": "b", "word": None, "n": None, "x": None, "flag": None},
    {"tenant": "b", "word": []},
)


@pytest.mark.parametrize(
    ("filter", "passes"),
    [
        (Filter(), [0, 1, 2, 3, 4]),
        (Filter(must=(Match("tenant", "a"),)), [0, 1]),
        (Filter(must=(Match("word", "one"),)), [0, 1]),
        (Filter(must=(MatchAny("word", ("two", "three")),)), [1, 2]),
        (Filter(must=(MatchAny("n", (1, -7)),)), [0, 2]),
        (Filter(must=(MatchAny("n", ()),)), []),
        (Filter(must=(Match("n", 2**62),)), [1]),
        (Filter(must=(Range("n", gt=1),)), [1]),
        (Filter(must=(Range("n", gte=1),)), [0, 1]),
        (Filter(must=(Range("n", lt=1),)), [2]),
        (Filter(must=(Range("x", lte=0.5),)), [0, 1]),
        (Filter(must=(Range("x", gte=0.5, lt=1e300),)), [0]),
        (Filter(must=(Range("x", lte=float("inf")),)), [0, 1, 2]),
        (Filter(must=(IsEmpty("word"),)), [3, 4]),
        (Filter(must=(IsNull("word"),)), [3]),
        (Filter(must=(IsEmpty("x"),)), [3, 4]),
        (Filter(must=(HasId((uid(1), uid(4), uid(99))),)), [1, 4]),
        (Filter(must_not=(Match("tenant", "a"),)), [2, 3, 4]),
        (Filter(should=(Match("word", "two"), Range("n", lt=0))), [1, 2]),
        (Filter(must=(Match("tenant", "b"), Filter(should=(IsEmpty("x"), Range("x", lte=2.0))))), [3, 4]),
        (Filter(must=(Filter(must_not=(Match("word", "one"), IsEmpty("word"))),)), [2]),
        (Filter(must=(Match("tenant", "a"),), should=(Range("n", lt=5),), must_not=(Match("n", 1),)), []),
    ],
)  # fmt: skip
def test_a_filter_lets_through_what_it_says(engine, name, filter, passes):
    put(engine, name, *PAYLOADS)
    assert among(engine, name, filter) == passes
    ranked = engine.query_batch(name, [Nearest(np.ones(4, dtype=np.float32), filter, 10)])[0]
    assert sorted(uuid.UUID(i).int for i in ranked.ids) == passes


def test_a_boolean_is_not_compared_for_an_integer(engine, name):
    with pytest.raises(TypeError):
        Match("v", True)
    put(engine, name, {"v": True}, {"v": 1})
    assert among(engine, name, Filter(must=(Match("v", 1),))) == [1]


def test_a_payload_comes_back_as_it_was_stored(engine, name):
    payload = {
        "text": "ü\n\U0001f600",
        "int": 2**62,
        "negative": -1,
        "float": 2.0,
        "small": 5e-324,
        "true": True,
        "false": False,
        "null": None,
        "list": [1, "a", [2.5, None], {}],
        "map": {"a": {"b": [1]}},
        "empty": "",
    }
    put(engine, name, payload)
    (point,) = engine.retrieve(name, [uid(0)], with_vector=True)
    assert point.payload == payload
    assert {k: type(v) for k, v in point.payload.items()} == {k: type(v) for k, v in payload.items()}
    assert point.vector.dtype == np.float32 and point.vector.tolist() == [0, 1, 0, 0]
    (part,) = engine.retrieve(name, [uid(0)], with_payload=("int", "map"))
    assert part.payload == {"int": 2**62, "map": {"a": {"b": [1]}}} and part.vector is None
    (bare,) = engine.retrieve(name, [uid(0)], with_payload=False)
    assert bare.payload == {}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(data=st.data())
def test_scores_are_exact_and_best_first(engine, name, data):
    components = st.integers(-2048, 2048)
    count = data.draw(st.integers(1, 30))
    vectors = [data.draw(st.lists(components, min_size=4, max_size=4)) for _ in range(count)]
    engine.delete(name, Filter())
    engine.upsert(name, [EnginePoint(uid(k), {"n": k}, np.array(v, dtype=np.float32)) for k, v in enumerate(vectors)])
    query = data.draw(st.lists(components, min_size=4, max_size=4))
    limit = data.draw(st.integers(1, 40))
    above = data.draw(st.none() | st.integers(-(2**23), 2**23))
    dots = [sum(a * b for a, b in zip(v, query, strict=True)) for v in vectors]
    asked = Nearest(np.array(query, dtype=np.float32), None, limit, above=above, with_payload=("n",))
    (ranked,) = engine.query_batch(name, [asked])
    wanted = sorted((d for d in dots if above is None or d > above), reverse=True)[:limit]
    assert list(ranked.scores) == wanted
    assert [dots[p["n"]] for p in ranked.payloads] == wanted
    assert [uid(p["n"]) for p in ranked.payloads] == list(ranked.ids)


def test_a_batch_answers_each_search_for_itself_and_in_order(engine, name):
    put(engine, name, *PAYLOADS)
    right, left = np.array([1, 0, 0, 0], dtype=np.float32), np.array([-1, 0, 0, 0], dtype=np.float32)
    only_a = Filter(must=(Match("tenant", "a"),))
    answers = engine.query_batch(
        name,
        [
            Nearest(right, None, 2),
            Nearest(left, None, 2, with_vector=True),
            Nearest(right, only_a, 9, with_payload=True),
            Nearest(right, Filter(must=(Match("tenant", "nobody"),)), 9),
        ],
    )
    assert [list(r.ids) for r in answers] == [[uid(4), uid(3)], [uid(0), uid(1)], [uid(1), uid(0)], []]
    assert [v.tolist() for v in answers[1].vectors] == [[0, 1, 0, 0], [1, 1, 0, 0]]
    assert [p["n"] for p in answers[2].payloads] == [2**62, 1]
    assert answers[0].payloads == () and answers[0].vectors == ()
    assert engine.query_batch(name, []) == []


def test_an_upsert_replaces_the_whole_point(engine, name):
    put(engine, name, {"n": 1, "word": "one"})
    put(engine, name, {"n": 2})
    assert [p.payload for p in engine.retrieve(name, [uid(0)])] == [{"n": 2}]


def test_an_upsert_leaves_alone_what_does_not_pass(engine, name):
    put(engine, name, {"n": 1}, {"n": 5})
    points = [EnginePoint(uid(k), {"n": 3}, np.zeros(4, dtype=np.float32)) for k in range(3)]
    engine.upsert(name, points, Filter(must=(Range("n", lte=3),)))
    assert {p.id: p.payload["n"] for p in engine.retrieve(name, [uid(0), uid(1), uid(2)])} == {
        uid(0): 3,
        uid(1): 5,
        uid(2): 3,
    }


def test_many_points_go_in_and_come_out_whole(engine, name):
    many = [EnginePoint(uid(k), {"n": k}, np.full(4, k, dtype=np.float32)) for k in range(2500)]
    engine.upsert(name, many)
    assert engine.count(name) == 2500
    found = engine.retrieve(name, [uid(k) for k in range(2500)] + [uid(9999)], with_vector=True)
    assert {p.id: (p.payload["n"], p.vector[3]) for p in found} == {uid(k): (k, k) for k in range(2500)}
    assert engine.retrieve(name, []) == []
    engine.upsert(name, [])


def test_payloads_are_merged_in_order_by_id_and_by_filter(engine, name):
    put(engine, name, {"n": 1, "word": "one"}, {"n": 2}, {"n": 3})
    engine.set_payload(
        name,
        [
            ([uid(0), uid(1)], {"word": "new"}),
            (Filter(must=(Range("n", gte=2),)), {"x": 1.5}),
            (Filter(must=(Range("x", gt=1),)), {"word": "last"}),
        ],
    )
    found = {p.id: p.payload for p in engine.retrieve(name, [uid(0), uid(1), uid(2)])}
    assert found == {
        uid(0): {"n": 1, "word": "new"},
        uid(1): {"n": 2, "word": "last", "x": 1.5},
        uid(2): {"n": 3, "word": "last", "x": 1.5},
    }
    engine.set_payload(name, [])


def test_points_are_deleted_by_id_and_by_filter(engine, name):
    put(engine, name, *PAYLOADS)
    engine.delete(name, [uid(0), uid(77)])
    engine.delete(name, Filter(must=(Match("tenant", "b"),)))
    assert among(engine, name, Filter()) == [1]


def test_a_scroll_by_id_comes_to_every_point_once(engine, name):
    put(engine, name, *({"n": k, "word": "even" if k % 2 == 0 else "odd"} for k in range(25)))
    seen, offset = [], None
    while True:
        page = engine.scroll(name, Filter(must=(Match("word", "even"),)), limit=4, offset=offset)
        seen += [p.payload["n"] for p in page.points]
        offset = page.next_offset
        if offset is None:
            break
    assert seen == list(range(0, 25, 2))


@pytest.mark.parametrize(
    ("order", "found"),
    [
        (OrderBy("n"), [-7, 1, 2**62]),
        (OrderBy("n", descending=True), [2**62, 1, -7]),
        (OrderBy("n", start_from=1), [1, 2**62]),
        (OrderBy("n", descending=True, start_from=1), [1, -7]),
        (OrderBy("x"), [2**62, 1, -7]),
        (OrderBy("x", start_from=0.5), [1, -7]),
    ],
)
def test_a_scroll_goes_in_the_order_of_a_number(engine, name, order, found):
    put(engine, name, *PAYLOADS)
    page = engine.scroll(name, None, limit=10, order_by=order)
    assert [p.payload["n"] for p in page.points] == found
    assert page.next_offset is None


def test_integer_ids_are_ids_too(engine, name):
    engine.upsert(name, [EnginePoint(2**64 - 1, {"n": 1}, np.ones(4, dtype=np.float32))])
    assert [p.id for p in engine.retrieve(name, [2**64 - 1])] == [2**64 - 1]
    assert list(engine.query_batch(name, [Nearest(np.ones(4, dtype=np.float32), None, 1)])[0].ids) == [2**64 - 1]


def test_a_collection_without_vectors_holds_payloads(place, engine):
    name = f"{place.prefix}-memory"
    engine.ensure_collection(name, None, {"n": "integer"})
    engine.upsert(name, [EnginePoint(uid(1), {"n": 1}), EnginePoint(uid(2), {"n": 2})])
    assert [p.payload["n"] for p in engine.scroll(name, limit=9, order_by=OrderBy("n")).points] == [1, 2]
    assert all(p.vector is None for p in engine.retrieve(name, [uid(1)], with_vector=True))


def test_making_a_collection_again_keeps_it_and_adds_what_is_missing(place, engine, name):
    put(engine, name, {"k": 3}, {"k": 1})
    with pytest.raises(EngineError):
        engine.scroll(name, limit=9, order_by=OrderBy("k"))
    engine.ensure_collection(name, 4, {**INDEXES, "k": "integer"})
    assert [p.payload["k"] for p in engine.scroll(name, limit=9, order_by=OrderBy("k")).points] == [1, 3]


def test_a_collection_of_another_vector_size_is_refused(engine, name):
    for size in (5, None):
        with pytest.raises(EngineError, match=f"vectors of 4, not {size}"):
            engine.ensure_collection(name, size, {})


def test_a_dropped_collection_is_gone(engine, name):
    put(engine, name, {"n": 1})
    assert engine.exists(name)
    engine.drop_collection(name)
    engine.drop_collection(name)
    assert not engine.exists(name)
    vector = np.ones(4, dtype=np.float32)
    for question in (
        lambda: engine.count(name),
        lambda: engine.retrieve(name, [uid(0)]),
        lambda: engine.scroll(name, limit=1),
        lambda: engine.query_batch(name, [Nearest(vector, None, 1)]),
        lambda: engine.upsert(name, [EnginePoint(uid(0), {}, vector)]),
        lambda: engine.delete(name, [uid(0)]),
        lambda: engine.set_payload(name, [([uid(0)], {"n": 2})]),
    ):
        with pytest.raises(NoCollection):
            question()
    engine.ensure_collection(name, 4, INDEXES)
    assert engine.count(name) == 0


def test_what_was_written_is_there_for_another_opener(place, engine, name):
    put(engine, name, {"n": 1})
    assert place.open().count(name) == 1


@pytest.mark.parametrize(
    "point",
    [
        EnginePoint("no uuid", {}, np.zeros(4, dtype=np.float32)),
        EnginePoint(uid(1), {}, np.zeros(5, dtype=np.float32)),
        EnginePoint(uid(1), {"text": "\ud800"}, np.zeros(4, dtype=np.float32)),
    ],
    ids=["id", "vector", "surrogate"],
)
def test_a_point_that_can_not_be_stored_is_refused_and_the_engine_goes_on(engine, name, point):
    with pytest.raises(EngineError):
        engine.upsert(name, [point])
    put(engine, name, {"n": 1})
    assert engine.count(name) == 1


def test_after_closing_every_question_is_an_error(engine, name):
    engine.version()
    engine.close()
    engine.close()
    for question in (engine.version, lambda: engine.count(name), lambda: engine.exists(name)):
        with pytest.raises(EngineError) as caught:
            question()
        assert caught.value.where == engine.where
        assert caught.value.exit_code == EXIT_UNREACHABLE


# Edge


def test_closing_one_of_two_openers_leaves_the_other_working(tmp_path):
    first, second = EdgeEngine(tmp_path / "edge"), EdgeEngine(tmp_path / "edge")
    first.ensure_collection("c", 4, {})
    first.close()
    second.upsert("c", [EnginePoint(1, {}, np.ones(4, dtype=np.float32))])
    second.close()
    third = EdgeEngine(tmp_path / "edge")
    assert third.count("c") == 1
    third.close()


HOLDER = """
import sys
from pathlib import Path
from memory_service.qdrant.edge import EdgeEngine
engine = EdgeEngine(Path(sys.argv[1]))
print(engine.count("c"), flush=True)
sys.stdin.read()
"""


def test_a_folder_that_another_process_has_open_is_refused_with_advice(tmp_path):
    folder = tmp_path / "edge"
    ours = EdgeEngine(folder)
    ours.ensure_collection("c", 4, {})
    ours.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "0\n"
        again = EdgeEngine(folder)
        with pytest.raises(EngineError, match="another process has the memory folder open") as caught:
            again.count("c")
        assert "one process" in caught.value.help and caught.value.where == f"edge:{folder}"
    finally:
        holder.communicate("", timeout=30)
    assert again.count("c") == 0, "and it works once the other one is gone"
    again.close()


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from memory_service.qdrant.edge import EdgeEngine
from memory_service.qdrant.engine import EnginePoint
engine = EdgeEngine(Path(sys.argv[1]))
engine.ensure_collection("c", 4, {"n": "integer"})
engine.upsert("c", [EnginePoint(k, {"n": k}, np.full(4, k, dtype=np.float32)) for k in range(700)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_written_on_edge_survives_kill_9(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "edge")], timeout=60)
    assert done.returncode == -9
    engine = EdgeEngine(tmp_path / "edge")
    assert engine.count("c", Filter(must=(Range("n", gte=0),))) == 700
    engine.close()


@pytest.mark.parametrize("name", ["", "../out", "a/b", ".hidden"])
def test_a_collection_name_is_no_way_out_of_the_folder(tmp_path, name):
    engine = EdgeEngine(tmp_path / "edge")
    with pytest.raises(EngineError, match="can't be a collection's name"):
        engine.ensure_collection(name, 4, {})
    engine.close()


def test_a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(EngineError, match="can't be used"):
        EdgeEngine(tmp_path / "file")


def test_damaged_files_are_an_error_not_an_empty_collection(tmp_path):
    engine = EdgeEngine(tmp_path / "edge")
    engine.ensure_collection("c", 4, {})
    engine.upsert("c", [EnginePoint(1, {}, np.ones(4, dtype=np.float32))])
    engine.close()
    for path in (tmp_path / "edge" / "c" / "segments").rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xa5" * 64)
    again = EdgeEngine(tmp_path / "edge")
    with pytest.raises(EngineError):
        again.retrieve("c", [1])
    again.close()


# server


@pytest.mark.parametrize(
    "url", ["", "localhost:6333", "ftp://h:1", "http://", "http://h:port", "http://u:secret@h:1", "http://h:1/path"]
)
def test_an_address_that_is_none_is_refused_without_showing_it(url):
    with pytest.raises(BadConfig) as caught:
        ServerEngine(url)
    assert "secret" not in str(caught.value)


def test_nobody_there_is_an_error_with_the_address_and_advice():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    engine = ServerEngine(f"http://127.0.0.1:{port}", grpc_port=port, api_key="s3cret")
    with pytest.raises(EngineError, match="can't be reached") as caught:
        engine.count("c")
    assert caught.value.where == f"http://127.0.0.1:{port}"
    assert "lumyn doctor" in caught.value.help
    assert "s3cret" not in str(caught.value) + repr(caught.value) + repr(engine)
    engine.close()


def test_a_server_that_says_nothing_is_an_error_at_the_deadline():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        engine = ServerEngine(f"http://127.0.0.1:{port}", grpc_port=port, deadline=0.3)
        with pytest.raises(EngineError, match=r"can't be reached|within 0\.3 s"):
            engine.count("c")
        engine.close()
