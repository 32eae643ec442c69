"""The label worker: the one sequencer, dense versions, one receipt a request, whatever is asked of it."""

from __future__ import annotations

import pytest
from embedded import Embedded, policy, request

from memory_service.recall import MemoryChoice
from memory_service.sqlite_record_index import SqliteRecordIndex
from schemas.canonical import decode_trusted, encode
from schemas.errors import Fenced, MemoryUnavailable, StorageUnavailable
from streams.control import control_append
from streams.find_records import IndexedFinder
from streams.index_sync import catch_up
from streams.label_worker import LabelWorker
from streams.log import Append
from streams.observe import Observer
from streams.versions import last_version, offset_after


class Told(Observer):
    def __init__(self):
        self.troubles = []

    def trouble(self, name, error, facts=None):
        self.troubles.append(name)


@pytest.fixture
def home(tmp_path):
    home = Embedded(tmp_path, policy())
    yield home
    home.close()


@pytest.fixture
def finder(home, tmp_path):
    index = SqliteRecordIndex(tmp_path / "index.db", home.log.epoch)
    yield IndexedFinder(home.log, lambda: index, catch_up=lambda index: catch_up(home.log, index))
    index.close()


@pytest.fixture
def worker(home, finder):
    worker = LabelWorker(home.log, finder, None, Told())
    worker.open()
    yield worker
    worker.close()


def ask(home, decision_id, event_id, label="failure", **more):
    body = {
        "event_id": event_id, "decision_id": decision_id, "tenant": "default", "type": "label", "label": label,
        "summary": "s", "actor": "amy", **more,
    }  # fmt: skip
    home.log.append([Append("label-requests", encode(body), event_id.encode())])


def receipts(home):
    return [decode_trusted(m.value) for m in home.log.read("label-receipts", 0, 0)]


def events(home):
    return [decode_trusted(m.value) for m in home.log.read("labels", 0, 0)]


def decided(home, count=3):
    return [answer["decision_id"] for answer in home.decide(*[request() for _ in range(count)])]


def test_labels_get_dense_versions_in_order_and_one_receipt_each(home, worker):
    first, second, third = decided(home)
    for number, name in enumerate((first, second, third, first)):
        ask(home, name, f"e{number}")
    assert worker.step()
    assert [(e["version"], e["decision_id"]) for e in events(home)] == [(1, first), (2, second), (3, third), (4, first)]
    assert [(r["outcome"], r["version"]) for r in receipts(home)] == [("accepted", v) for v in (1, 2, 3, 4)]
    assert home.log.committed("labels", "label-requests", 0) == 4
    assert not worker.step()


def test_a_retry_is_a_duplicate_also_after_a_restart_and_another_body_is_refused(home, finder, worker):
    (name,) = decided(home, 1)
    ask(home, name, "e1")
    ask(home, name, "e1")
    worker.step()
    worker.close()
    again = LabelWorker(home.log, finder, None, Told())
    again.open()
    ask(home, name, "e1")
    ask(home, name, "e1", summary="other words")
    ask(home, name, "e2")
    again.step()
    assert [(r["outcome"], r["version"]) for r in receipts(home)] == [
        ("accepted", 1), ("duplicate", 1), ("duplicate", 1), ("refused", None), ("accepted", 2),
    ]  # fmt: skip
    assert len(events(home)) == 2


def restore(home, name, event_id, expects, said=()):
    words = [{"actor": actor, "label": label, "should": None, "summary": "as it was"} for actor, label in said]
    ask(home, name, event_id, None, type="restore", expects=expects, undoes={"job": "J"}, job="U",
        restored={"said": words, "quarantined": False})  # fmt: skip


def test_a_restore_is_taken_only_where_nothing_was_said_since_also_after_a_restart(home, finder, worker):
    one, two = decided(home, 2)
    ask(home, one, "e1")
    ask(home, two, "e2")
    ask(home, one, "n1", None, type="note")
    worker.step()
    restore(home, one, "u1", 1, [("amy", "success")])
    restore(home, one, "late", 1)
    restore(home, two, "u2", 1)
    worker.step()
    worker.close()
    again = LabelWorker(home.log, finder, None, Told())
    again.open()
    restore(home, two, "u3", 2)
    restore(home, one, "u1", 1, [("amy", "success")])
    restore(home, one, "u1", 1)
    ask(home, two, "e3")
    restore(home, two, "u4", 5)
    again.step()
    assert [(r["outcome"], r["version"]) for r in receipts(home)[3:]] == [
        ("accepted", 4), ("refused", None), ("refused", None),
        ("accepted", 5), ("duplicate", 4), ("refused", None), ("accepted", 6), ("refused", None),
    ]  # fmt: skip
    assert "was labelled meanwhile" in receipts(home)[4]["detail"]
    fourth = events(home)[3]
    assert (fourth["label"], fourth["undoes"], fourth["restored"]["said"][0]["actor"]) == ("success", {"job": "J"}, "amy")


def trust(home, labeller, much, event_id, **more):
    ask(home, "", event_id, None, type="trust", labeller=labeller, trust=much, **more)


def test_trust_is_of_a_tenants_labeller_and_is_taken_exactly_once_also_after_a_restart(home, finder, worker):
    trust(home, "bot", 0.25, "t1")
    trust(home, "bot", 0.25, "t1")
    trust(home, "bot", 0.5, "t1")
    trust(home, "bot", 0.5, "t1", tenant="globex")
    worker.step()
    worker.close()
    again = LabelWorker(home.log, finder, None, Told())
    again.open()
    trust(home, "bot", 0.25, "t1")
    trust(home, "bot", 1, "t1")
    again.step()
    assert [(r["outcome"], r["version"]) for r in receipts(home)] == [
        ("accepted", 1), ("duplicate", 1), ("refused", None), ("accepted", 2), ("duplicate", 1), ("refused", None),
    ]  # fmt: skip
    assert [(e["tenant"], e["labeller"], e["trust"], e["decision"], e["decision_id"]) for e in events(home)] == [
        ("default", "bot", 0.25, None, ""), ("globex", "bot", 0.5, None, ""),
    ]  # fmt: skip
    assert [m.key for m in home.log.read("labels", 0, 0)] == [b"labeller/default/bot", b"labeller/globex/bot"]


def test_trust_is_taken_back_only_where_nobody_set_it_since(home, finder, worker):
    back = {"undoes": {"job": "J"}, "job": "U"}
    trust(home, "bot", 0.25, "t1", job="J")
    trust(home, "other", 0.25, "t2")
    trust(home, "bot", 1, "u1", expects=2, **back)
    trust(home, "bot", 0.5, "t3")
    trust(home, "bot", 1, "u2", expects=1, **back)
    worker.step()
    worker.close()
    again = LabelWorker(home.log, finder, None, Told())
    again.open()
    trust(home, "bot", 1, "u3", expects=1, **back)
    trust(home, "bot", 1, "u4", expects=3, **back)
    again.step()
    assert [r["version"] for r in receipts(home)] == [1, 2, None, 3, None, None, 4]
    assert "the trust in `bot` was changed meanwhile (version 3, not 1)" in receipts(home)[5]["detail"]


def test_who_is_held_is_recorded_but_takes_nothing_back_and_trusts_nobody(home, finder, worker):
    (name,) = decided(home, 1)
    ask(home, name, "e1", actor="mallory")
    trust(home, "mallory", 0, "t1", actor="ops")
    ask(home, name, "e2", "success", actor="mallory")
    trust(home, "mallory", 1, "t2", actor="mallory")
    worker.step()
    worker.close()
    again = LabelWorker(home.log, finder, None, Told())
    again.open()
    trust(home, "ops", 0, "t3", actor="mallory")
    ask(home, name, "u1", None, type="restore", actor="mallory", expects=3, undoes={"after": 0}, job="U",
        restored={"said": [], "quarantined": False})  # fmt: skip
    trust(home, "mallory", 0.5, "t4", actor="ops")
    trust(home, "bot", 0.5, "t5", actor="mallory")
    trust(home, "bot", 0.5, "t6", actor="mallory", tenant="globex")
    again.step()
    assert [r["version"] for r in receipts(home)] == [1, 2, 3, None, None, None, 4, 5, 6]
    assert all("`mallory` is held (memory version 2)" in r["detail"] for r in receipts(home) if r["version"] is None)


def test_both_sequencers_make_the_same_events(home, worker):
    """One asks the log what it needs, the other keeps it."""
    from streams.label_agent import LabelAgent

    (name,) = decided(home, 1)
    trust(home, "bot", 0.25, "t1", job="J")
    ask(home, name, "e1", actor="bot")
    trust(home, "bot", 1, "u1", undoes={"job": "J"}, job="U", expects=1)
    asked = [decode_trusted(m.value) for m in home.log.read("label-requests", 0, 0)]
    worker.step()
    requests = [{**one, "event_id": f"again-{one['event_id']}"} for one in asked]
    requests[-1]["expects"] = 4
    agent = LabelAgent(home.log)
    made = [agent.label([one])[0] for one in requests]
    first = events(home)[:3]
    for one, other in zip(first, made, strict=True):
        differ = {"version", "event_id", "at"}
        assert {k: v for k, v in one.items() if k not in differ} == {k: v for k, v in other.items() if k not in differ}
    assert agent.label([requests[0]])[0]["version"] == 4, "a retry gives the first event"
    (stale,) = agent.label([{**requests[2], "event_id": "late"}])
    assert "the trust in `bot` was changed meanwhile" in str(stale)
    (other,) = agent.label([{**requests[0], "trust": 0.5}])
    assert "was used before for another label" in str(other)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"type": "trust", "label": None}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": 0.5}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "", "trust": 0.5, "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": 0.51, "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": -0.5, "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": True, "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": "1", "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": "failure", "labeller": "bot", "trust": 0.5, "decision_id": ""}, "bad_input"),
        ({"type": "trust", "label": None, "labeller": "bot", "trust": 1, "decision_id": "", "expects": 1}, "bad_input"),
        ({"labeller": "bot"}, "bad_input"),
        ({"trust": 0.5}, "bad_input"),
        ({"type": "restore", "label": None, "expects": 0, "undoes": {"job": "J"}, "restored": {"said": [
            {"actor": "a", "label": "success", "should": None, "summary": "", "at": "soon"}], "quarantined": False}},
         "bad_input"),
        ({"decision_id": "01M7YHMTP8XZ0C2HZDJN4YDVFG"}, "not_found"),
        ({"decision_id": "no id at all"}, "not_found"),
        ({"tenant": "globex"}, "not_found"),
        ({"label": "success", "should": "DENY"}, "bad_input"),
        ({"label": "perhaps"}, "bad_input"),
        ({"surprise": 1}, "bad_input"),
        ({"type": "restore"}, "bad_input"),
        ({"expects": 1}, "bad_input"),
        ({"type": "restore", "label": None, "expects": 0, "undoes": {"job": "J"}, "restored": {"said": [
            {"actor": "a", "label": "success", "should": "DENY", "summary": ""}], "quarantined": False}}, "bad_input"),
        ({"type": "restore", "label": None, "expects": 0, "undoes": {"job": "J", "after": 1},
          "restored": {"said": [], "quarantined": False}}, "bad_input"),
        ({"type": "quarantine"}, "bad_input"),
    ],
)
def test_a_label_that_must_not_count_is_refused_and_the_next_goes_on(home, worker, more, reason):
    (name,) = decided(home, 1)
    ask(home, **{"decision_id": name, "event_id": "bad", **more})
    ask(home, name, "good")
    worker.step()
    refused, accepted = receipts(home)
    assert (refused["outcome"], refused["reason"]) == ("refused", reason)
    assert accepted["outcome"] == "accepted"
    assert [e["event_id"] for e in events(home)] == ["good"]


@pytest.mark.parametrize("junk", [b"", b"\xff", b"[]", b'{"a":NaN}', b"[" * 100_000])
def test_junk_is_kept_as_a_dead_letter(home, worker, junk):
    home.log.append([Append("label-requests", junk)])
    worker.step()
    (receipt,) = receipts(home)
    assert receipt["outcome"] == "refused"
    (dead,) = home.log.read("dead-letters", 0, 0)
    assert decode_trusted(dead.value)["source"]["topic"] == "lumyn.label-requests"


def test_a_second_worker_fences_the_first(home, finder, worker):
    (name,) = decided(home, 1)
    other = LabelWorker(home.log, finder, None, Told())
    other.open()
    ask(home, name, "e1")
    with pytest.raises(Fenced):
        worker.step()
    other.step()
    assert [r["outcome"] for r in receipts(home)] == ["accepted"]


def test_a_record_that_is_not_indexed_yet_is_waited_for_and_never_refused(home, tmp_path):
    index = SqliteRecordIndex(tmp_path / "late.db", home.log.epoch)
    (name,) = decided(home, 1)
    worker = LabelWorker(home.log, IndexedFinder(home.log, lambda: index, wait_s=0.2), None, Told())
    worker.open()
    ask(home, name, "e1")
    with pytest.raises(StorageUnavailable, match="not caught up"):
        worker.step()
    assert receipts(home) == []
    catch_up(home.log, index)
    worker.step()
    assert [r["outcome"] for r in receipts(home)] == ["accepted"]


def test_an_index_that_is_down_at_the_start_is_opened_when_it_is_there(home, tmp_path):
    index = SqliteRecordIndex(tmp_path / "late.db", home.log.epoch)
    down = [True]

    def open_index():
        if down[0]:
            raise StorageUnavailable("qdrant can't be reached")
        return index

    (name,) = decided(home, 1)
    finder = IndexedFinder(home.log, open_index, catch_up=lambda index: catch_up(home.log, index))
    worker = LabelWorker(home.log, finder, None, Told())
    worker.open()
    ask(home, name, "e1")
    with pytest.raises(StorageUnavailable, match="can't be reached"):
        worker.step()
    assert receipts(home) == []
    down[0] = False
    worker.step()
    assert [r["outcome"] for r in receipts(home)] == ["accepted"]
    index.close()


def test_the_stores_trouble_does_not_stop_the_sequence_and_is_made_up_for(home, finder):
    broken = [True]
    beats = []

    def open_store(choice):
        assert choice is None
        if broken[0]:
            raise MemoryUnavailable("down")
        return home._open_memory()[0]

    told = Told()
    worker = LabelWorker(home.log, finder, open_store, told, beat=lambda store, at_ms: beats.append(at_ms))
    worker.open()
    first, second, _ = decided(home)
    ask(home, first, "e1")
    worker.step()
    assert [r["outcome"] for r in receipts(home)] == ["accepted"]
    assert told.troubles == ["memory_not_applied"] and not beats
    broken[0] = False
    ask(home, second, "e2")
    worker.step()
    assert home._open_memory()[0].watermark().version == 2
    assert beats


def test_it_fills_the_memory_that_control_chooses(home, finder, monkeypatch):
    opened, beats = [], []
    monkeypatch.setattr("streams.label_worker._LOOK_S", 0.0)

    class Store:
        def __init__(self, choice):
            opened.append(choice)
            self.inner = home._open_memory()[0]

        def __getattr__(self, name):
            return getattr(self.inner, name)

    worker = LabelWorker(home.log, finder, Store, Told(), beat=lambda store, at_ms: beats.append(store))
    worker.open()
    worker.step()
    assert opened == [None]
    memory = {"embedder": "static:other", "vectoriser_id": "v2"}
    was = {"embedder": "static", "vectoriser_id": "v1"}
    event = {"type": "memory_switched", "actor": "a", "memory": memory, "was": was}
    home.log.append([control_append(event)])
    worker.step()
    worker.step()
    assert opened == [None, MemoryChoice("static:other", "v2")]
    assert beats[0] is not beats[-1], "the one that is filled is vouched for"


def test_versions_are_found_in_a_topic_with_gaps(home):
    class Gappy:
        """The labels as Kafka would hold them: every transaction's marker takes an offset."""

        prefix, epoch = home.log.prefix, home.log.epoch

        def end(self, topic, partition):
            return home.log.end(topic, partition) * 2

        def read(self, topic, partition, offset, limit=1000):
            found = home.log.read(topic, partition, (offset + 1) // 2, limit)
            return [m._replace(offset=m.offset * 2) for m in found]

    names = decided(home, 1)
    for number in range(9):
        home.labels.label([
            {"event_id": f"e{number}", "decision_id": names[0], "tenant": "default", "type": "label",
             "label": "failure", "summary": "", "actor": f"a{number}"}
        ])  # fmt: skip
    for log, step in ((home.log, 1), (Gappy(), 2)):
        assert last_version(log, "labels") == 9
        for version in range(9):
            found = log.read("labels", 0, offset_after(log, "labels", version), 1)
            assert decode_trusted(found[0].value)["version"] == version + 1
            assert found[0].offset == version * step
        assert log.read("labels", 0, offset_after(log, "labels", 9)) == []


def test_the_finder_brings_every_record_asked_for_near_or_far_and_none_else(home, finder):
    names = decided(home, 260)
    near, far = names[:130:3], names[131::37]
    found = finder.find([*reversed(near), *far, "01HF7YAT001B8J2P4N3651W2JP"])
    assert {name: record["decision_id"] for name, record in found.items()} == {name: name for name in (*near, *far)}
