"""One partition decided exactly once: positions, gaps, windows and writers, on the embedded log's partition writer."""

from __future__ import annotations

import pytest
from embedded import policy, request

from memory_service.recall import unavailable
from schemas.canonical import decode_trusted
from schemas.errors import Fenced, StorageUnavailable
from schemas.limits import IDEMPOTENCY_WINDOW_MS
from streams.control import ControlState
from streams.deciding import Deciding
from streams.local_log import LocalLog
from streams.log import Append
from streams.observe import Observer
from streams.partition_agent import PartitionAgent
from streams.partitioner import partition_for
from streams.topics import RECEIPTS, RECORDS, REQUESTS, full_name


class NoMemory:
    def recall(self, asked):
        return [unavailable()] * len(asked)


class Told(Observer):
    def __init__(self):
        self.events = []
        self.outcomes = []

    def event(self, name, **facts):
        self.events.append(name)

    def decided(self, outcome, verdict, latency_s, decision_id):
        self.outcomes.append((outcome, verdict))


class Clock:
    now = 1_700_000_000_000

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def log(tmp_path, clock):
    log = LocalLog(tmp_path / "lumyn.db", partitions=2, clock=clock)
    yield log
    log.close()


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def deciding(log):
    return Deciding(full_name(log.prefix, REQUESTS), NoMemory(), policy(), partitions=2)


@pytest.fixture
def make(log, deciding, told, tmp_path):
    made = []

    def open_agent(folder="windows", partition=0, open_writer=None):
        agent = PartitionAgent(
            log,
            partition,
            deciding,
            open_writer=open_writer or (lambda: log.writer("decide", REQUESTS, partition)),
            folder=tmp_path / folder,
            epoch="e1",
            observer=told,
        )
        made.append(agent)
        return agent

    yield open_agent
    for agent in made:
        agent.close()


def name_of(partition, number=0):
    """A request id whose key belongs to a partition."""
    return next(n for i in range(1000) if partition_for(f"default/{(n := f'r{number}-{i}')}".encode(), 2) == partition)


def put(log, *requests, partition=0):
    return log.append([Append(REQUESTS, r.canonical, r.key, partition) for r in requests])


def run(agent, deciding, messages, control=None):
    control = control or ControlState()
    agent.decide([deciding.parse(m, control) for m in agent.take(messages)], control)


def receipts(log, partition=0):
    return [decode_trusted(m.value) for m in log.read(RECEIPTS, partition, 0)]


def test_a_batch_has_a_record_and_a_receipt_each_and_moves_the_position(log, make, deciding, told):
    agent = make()
    assert agent.open() == 0
    messages = put(log, request(), request(risk=0.9), request(amount=900))
    run(agent, deciding, messages)
    records = [decode_trusted(m.value) for m in log.read(RECORDS, 0, 0)]
    assert [r["verdict"] for r in records] == ["ALLOW", "DENY", "ESCALATE"]
    assert [r["log"]["offset"] for r in records] == [r["source"]["offset"] for r in receipts(log)] == [0, 1, 2]
    assert agent.position == log.committed("decide", REQUESTS, 0) == 3
    assert told.outcomes == [("decided", "ALLOW"), ("decided", "DENY"), ("decided", "ESCALATE")]


def test_stale_messages_are_dropped_and_a_gap_is_read_from_the_log(log, make, deciding, told):
    agent = make()
    agent.open()
    messages = put(log, *[request() for _ in range(10)])
    run(agent, deciding, messages[:3])
    run(agent, deciding, messages[:3])
    assert len(receipts(log)) == 3
    run(agent, deciding, [messages[2], messages[5], messages[9]])
    assert [r["source"]["offset"] for r in receipts(log)] == list(range(10))
    assert "gap_filled" in told.events


def test_a_retry_is_a_duplicate_in_the_batch_in_the_window_and_after_a_restart(log, make, deciding):
    name = name_of(0)
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name), request(name)))
    run(agent, deciding, put(log, request(name)))
    agent.close()
    for folder in ("windows", "another machine"):
        agent = make(folder)
        agent.open()
        run(agent, deciding, put(log, request(name), request(name, amount=7)))
        agent.close()
    found = receipts(log)
    assert [r["outcome"] for r in found] == ["decided", *["duplicate"] * 3, "conflict", "duplicate", "conflict"]
    assert len({r["decision_id"] for r in found}) == 1
    assert {r["record_digest"] for r in found if r["outcome"] == "duplicate"} == {found[0]["record_digest"]}
    assert len(log.read(RECORDS, 0, 0)) == 1


def test_past_the_window_the_same_id_is_a_new_decision(log, make, deciding, clock):
    name = name_of(0)
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name)))
    clock.now += IDEMPOTENCY_WINDOW_MS
    run(agent, deciding, put(log, request(name)))
    clock.now += 1
    run(agent, deciding, put(log, request(name)))
    assert [r["outcome"] for r in receipts(log)] == ["decided", "duplicate", "decided"]


def test_a_fenced_agent_commits_nothing_and_its_window_learns_nothing(log, make, deciding):
    name = name_of(0)
    old = make()
    old.open()
    new = make()
    new.open()
    messages = put(log, request(name))
    with pytest.raises(Fenced):
        run(old, deciding, messages)
    assert receipts(log) == []
    run(new, deciding, messages)
    assert [r["outcome"] for r in receipts(log)] == ["decided"]


def test_a_commit_whose_answer_was_lost_is_not_decided_twice(log, make, deciding):
    class LosesAnswer:
        def __init__(self, inner):
            self._inner = inner
            self.position = inner.position

        def commit(self, outputs, position):
            self._inner.commit(outputs, position)
            raise StorageUnavailable("the answer was lost")

        def close(self):
            self._inner.close()

    writers = [LosesAnswer, lambda inner: inner]
    agent = make(open_writer=lambda: writers.pop(0)(log.writer("decide", REQUESTS, 0)))
    agent.open()
    messages = put(log, request(name_of(0)), request(name_of(0, 1)))
    with pytest.raises(StorageUnavailable):
        run(agent, deciding, messages)
    run(agent, deciding, messages)
    assert [r["outcome"] for r in receipts(log)] == ["decided", "decided"]
    assert agent.position == 2


def test_a_request_id_in_the_wrong_partition_is_rejected_and_kept(log, make, deciding):
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name_of(1))))
    (receipt,) = receipts(log)
    assert receipt["outcome"] == "rejected"
    (dead,) = log.read("dead-letters", 0, 0)
    assert "belongs to partition 1" in decode_trusted(dead.value)["detail"]


def test_stale_control_abstains(log, make, deciding):
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request()), ControlState(stale=True))
    (record,) = [decode_trusted(m.value) for m in log.read(RECORDS, 0, 0)]
    assert (record["verdict"], record["reason_codes"]) == ("ABSTAIN", ["CONTROL_STALE"])


def test_a_closed_agent_decides_nothing(log, make, deciding):
    agent = make()
    agent.open()
    messages = put(log, request())
    agent.close()
    run(agent, deciding, messages)
    assert receipts(log) == [], "the rest is its next owner's"


def test_a_damaged_window_file_is_made_again_from_the_receipts(log, make, deciding, tmp_path):
    name = name_of(0)
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name)))
    agent.close()
    for path in (tmp_path / "windows").glob("window-0.db*"):
        path.write_bytes(b"\x00garbage" * 1000)
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name)))
    assert [r["outcome"] for r in receipts(log)] == ["decided", "duplicate"]


def test_a_window_of_another_generation_is_not_believed(log, make, deciding, told, tmp_path):
    agent = make()
    agent.open()
    run(agent, deciding, put(log, request(name_of(0))))
    agent.close()
    from streams.window import ReceiptWindow

    window = ReceiptWindow(log, 0, tmp_path / "windows", "another epoch")
    assert window.catch_up() == 1, "read from the start again"
    window.close()
