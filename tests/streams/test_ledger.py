"""The ledger's fold: whatever stands in the topic, and however often, each event counts once and nothing else does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.canonical import encode
from schemas.ledger import STATES, Contested
from streams import ledger as module
from streams.ledger import Ledger, read_ledger, redriven_event, say_state, write_contested
from streams.local_log import LocalLog
from streams.log import Append, Message
from streams.topics import LEDGER

OTHER = {"tenant": "other", "actor": "eve"}


def begun(job: str = "backfill-1", tenant: str = "default") -> Any:
    return {
        "type": "backfill_begun", "event_id": job, "tenant": tenant, "actor": "lea", "job": job, "why": "w",
        "range": {"asked": {}, "first": None, "last": None, "decisions": 9, "root": "sha256:0"},
        "against": {"kind": "policy", "name": "p@1", "digest": "sha256:1"},
    }  # fmt: skip


def contested(name: str) -> Contested:
    return {
        "decision_id": name, "record_digest": "sha256:2", "decided_at": "2024-12-19T14:25:00.000Z", "subject": "s",
        "action_type": "refund", "amount": 5, "currency": "USD", "recorded": {"verdict": "ALLOW"},
        "would_be": {"verdict": "DENY"}, "direction": "stricter", "meaning": None,
    }  # fmt: skip


NAMES = [f"d{number}" for number in range(7)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    log = LocalLog(tmp_path / "lumyn.db")
    yield log
    log.close()


def test_it_is_written_once_however_often_and_wherever_it_was_broken_off(
    log: LocalLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", 2)
    real, left = LocalLog.append, 3

    def dying(self: LocalLog, appends: Any) -> list[Message]:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return real(self, appends)

    monkeypatch.setattr(LocalLog, "append", dying)
    with pytest.raises(KeyboardInterrupt):
        write_contested(log, begun(), map(contested, NAMES))
    half = read_ledger(log, "default")
    assert len(half.entries) == 2 and not half.backfills["backfill-1"].whole
    monkeypatch.undo()
    assert write_contested(log, begun(), map(contested, NAMES)) == 5
    end = log.end(LEDGER, 0)
    assert write_contested(log, begun(), map(contested, NAMES)) == 0
    assert log.end(LEDGER, 0) == end, "a third time writes nothing at all"
    whole = read_ledger(log, "default")
    assert [name for _, name in whole.entries] == NAMES and whole.backfills["backfill-1"].whole
    assert whole.ignored == 0


def test_states_are_added_and_the_last_one_stands(log: LocalLog) -> None:
    write_contested(log, begun(), map(contested, NAMES))
    entry = read_ledger(log, "default").entries["backfill-1", "d3"]
    mine = {"tenant": "default", "actor": "lea"}
    say_state(log, [entry], **mine, state="upheld", owner="legal", why="one")
    say_state(log, [entry], **mine, state="disclosed", owner=None, why="two")
    log.append([redriven_event(entry, **mine, new_id="new", verdict="DENY")] * 2)
    found = read_ledger(log, "default")
    now = found.entries["backfill-1", "d3"]
    assert (now.state, now.owner, now.redriven) == ("disclosed", "legal", ("new", "DENY"))
    assert [(said.state, said.why) for said in now.history] == [("upheld", "one"), ("disclosed", "two")]
    assert found.states() == {"open": 6, "disclosed": 1}


def test_another_tenant_s_word_changes_nothing(log: LocalLog) -> None:
    write_contested(log, begun(), map(contested, NAMES))
    entry = read_ledger(log, "default").entries["backfill-1", "d3"]
    say_state(log, [entry], **OTHER, state="upheld", owner=None, why="not mine")
    write_contested(log, begun(tenant="other"), [contested("d9")])
    assert read_ledger(log, "default").states() == {"open": 7}
    assert [name for _, name in read_ledger(log, "other").entries] == ["d9"]


def test_what_is_no_event_is_counted_and_passed_over(log: LocalLog) -> None:
    write_contested(log, begun(), map(contested, NAMES))
    orphan = {**begun("backfill-9"), "type": "contested", "event_id": "x", "contested": contested("d1")}
    for value in (b"\xff", b"[]", b"{}", encode({**begun(), "more": 1}), encode(orphan)):
        log.append([Append(LEDGER, value, partition=0)])
    found = read_ledger(log, "default")
    assert len(found.entries) == 7 and found.ignored == 5


EVENTS = st.one_of(
    st.builds(lambda job: begun(job), st.sampled_from("ab")),
    st.builds(
        lambda job, name: {
            "type": "contested", "event_id": f"{job}/{name}", "tenant": "default", "actor": "lea", "job": job,
            "contested": contested(name),
        },
        st.sampled_from("abc"), st.sampled_from(NAMES),
    ),
    st.builds(
        lambda job, name, state, event: {
            "type": "state", "event_id": event, "tenant": "default", "actor": "lea", "job": job, "why": "w",
            "decision_id": name, "state": state,
        },
        st.sampled_from("ab"), st.sampled_from(NAMES), st.sampled_from(STATES), st.text("xyz", min_size=1, max_size=2),
    ),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(EVENTS, max_size=30), st.lists(st.integers(0, 29), max_size=20))
def test_events_that_stand_twice_count_once(events: list[Any], again: list[int]) -> None:
    """What comes again later, as after an append whose answer was lost, changes nothing."""
    once, twice = Ledger(), Ledger()
    for number, event in enumerate(events):
        once.take(event, number)
    for number, event in enumerate(events):
        twice.take(event, number)
        for place in again:
            if place <= number and twice_seen(twice, events[place]):
                twice.take(events[place], number)
    assert {key: one.as_dict() for key, one in once.entries.items()} == {
        key: one.as_dict() for key, one in twice.entries.items()
    }


def twice_seen(ledger: Ledger, event: Any) -> bool:
    """Whether an event was accepted before: one that was refused may be accepted later."""
    return event["event_id"] in ledger._seen


def test_a_log_from_before_the_topic_reads_empty_and_gains_it_when_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "lumyn.db"
    old = LocalLog(path)
    old.append([Append("labels", b"{}", b"k")])
    old._db.execute("DROP TABLE log_ledger")
    old.close()
    reader, log, second = LocalLog(path, read_only=True), LocalLog(path), LocalLog(path)
    assert (reader.read(LEDGER, 0, 0), reader.end(LEDGER, 0), reader.begin(LEDGER, 0)) == ([], 0, 0)
    with pytest.raises(ZeroDivisionError), log.transaction() as transaction:
        transaction.append([Append(LEDGER, b"{}", partition=0)])
        raise ZeroDivisionError
    assert log.read(LEDGER, 0, 0) == []
    assert log.append([Append(LEDGER, b"1", partition=0)])[0].offset == 0
    assert second.append([Append(LEDGER, b"2", partition=0)])[0].offset == 1
    for one in (log, second, reader):
        assert [message.value for message in one.read(LEDGER, 0, 0)] == [b"1", b"2"]
        assert one.end(LEDGER, 0) == 2 and one.end("labels", 0) == 1
        one.close()
