"""The inbox of escalations: what is open, who has it, what an answer becomes, and two who answer at once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from lumyn.home import Home
from lumyn.inbox import escalations
from lumyn.inbox.escalations import Taken
from lumyn.inbox.store import InboxStore
from lumyn.wiring import existing_home, home_as
from schemas.errors import BadInput, LumynError, NotFound, StorageUnavailable

pytest_plugins = ("inside_plugin",)


def home(actor: str = "oncall", tenant: str = "default") -> Home:
    return home_as(existing_home(), tenant, actor)


def ids(of: str = "all", **more: Any) -> list[str]:
    return [one.row.decision_id for one in escalations.open_escalations(home(), of=of, **more)]


def test_escalations_are_open_until_they_are_labelled_whoever_does_it(inside: Inside) -> None:
    names = [inside.decide(refund(amount))["decision_id"] for amount in (300, 310, 320, 330)]
    inside.decide(refund(10))
    assert ids() == names and ids(limit=2) == names[:2] and ids(after=names[1]) == names[2:]
    escalations.resolve(home(), names[0], "ALLOW", "known customer")
    sdk.label(names[1], "failure", should="DENY")
    sdk.label(names[2], "note", summary="looked at it")
    assert ids() == names[2:]
    sdk.label(names[1], "retracted", settle=True)
    assert ids() == names[1:]


@pytest.mark.parametrize(
    ("verdict", "again", "label", "should"),
    [("ALLOW", False, "failure", "ALLOW"), ("DENY", False, "failure", "DENY"), ("ESCALATE", False, "success", None),
     ("ALLOW", True, "success", None), ("DENY", True, "success", None)],
)  # fmt: skip
def test_an_answer_becomes_a_label(
    inside: Inside, verdict: str, again: bool, label: str, should: str | None
) -> None:
    name = inside.decide(refund(300))["decision_id"]
    escalations.resolve(home("ann"), name, verdict, "  because  ", again=again)
    event = home().events(name)[-1]
    assert (event["label"], event["should"], event["summary"], event["actor"]) == (label, should, "because", "ann")
    now = inside.decide(refund(300))
    assert now["verdict"] == ("DENY" if verdict == "DENY" and not again else "ESCALATE")
    resolved = escalations.store_of(home()).resolved("default", 5)
    assert [(e.verdict, bool(e.again)) for e in resolved] == [(verdict, should is None)]


def test_of_many_at_once_one_wins_and_the_others_are_told(inside: Inside) -> None:
    name = inside.decide(refund(300))["decision_id"]
    home()
    start, told = threading.Barrier(6), []

    def answer(number: int) -> None:
        start.wait()
        try:
            escalations.resolve(home(f"person-{number}"), name, ("ALLOW", "DENY")[number % 2], "me")
            told.append("won")
        except Taken as error:
            told.append(error.message)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told)[-1] == "won" and told.count("won") == 1
    events = home().events(name)
    assert len(events) == 1
    assert all(events[0]["actor"] in text for text in told if text != "won")
    assert [e.type for e in escalations.store_of(home()).of("default", name)] == ["resolved"]


def test_two_processes_stores_wait_for_each_other(tmp_path: Path) -> None:
    one, other = InboxStore(tmp_path), InboxStore(tmp_path)
    entered, left = threading.Event(), []

    def second() -> None:
        entered.wait()
        with other.alone():
            left.append(len(other.of("t", "x")))

    thread = threading.Thread(target=second)
    thread.start()
    with one.alone():
        one.add("t", "x", "assigned", "ann", assignee="ann")
        entered.set()
        thread.join(0.2)
        assert not left
    thread.join(5)
    assert left == [1]


def test_who_saw_an_older_state_is_told(inside: Inside) -> None:
    name = inside.decide(refund(300))["decision_id"]
    escalations.assign(home("ann"), name, "ann", seen=0)
    with pytest.raises(Taken, match="given to ann by ann"):
        escalations.assign(home("bob"), name, "bob", seen=0)
    with pytest.raises(Taken):
        escalations.resolve(home("bob"), name, "DENY", "me", seen=0)
    assert home().events(name) == []
    seen = escalations.open_escalations(home())[0].seen
    escalations.resolve(home("bob"), name, "DENY", "me", seen=seen)


def test_mine_and_nobody_s(inside: Inside) -> None:
    names = [inside.decide(refund(amount))["decision_id"] for amount in (300, 310, 320)]
    escalations.assign(home("ann"), names[0], "ann")
    escalations.assign(home("ann"), names[1], "bob")
    for who, has in (("ann", names[:1]), ("bob", names[1:2]), ("eve", [])):
        assert [one.row.decision_id for one in escalations.open_escalations(home(who), of="mine")] == has
    assert ids("nobody") == names[2:]
    escalations.assign(home("ann"), names[0], "")
    assert ids("nobody") == [names[0], names[2]]
    escalations.resolve(home("bob"), names[1], "ALLOW", "x")
    escalations.reopen(home("eve"), names[1], "wrong customer")
    assert ids("nobody") == names


def test_a_reopened_one_is_as_if_nothing_was_said(inside: Inside) -> None:
    name = inside.decide(refund(300))["decision_id"]
    with pytest.raises(LumynError, match="is open"):
        escalations.reopen(home(), name, "x")
    escalations.resolve(home("ann"), name, "DENY", "fraud")
    assert inside.decide(refund(300))["verdict"] == "DENY"
    escalations.reopen(home("bob"), name, "not fraud")
    assert inside.decide(refund(300))["verdict"] == "ESCALATE"
    assert name in ids()
    assert [e["label"] for e in home().events(name)] == ["failure", "retracted"]


def test_age_and_how_long_it_may_wait(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    name = inside.decide(refund(300))["decision_id"]
    row = escalations.open_escalations(home())[0].row
    inside.write("lumyn.toml", "[runtime]\ninbox_sla_s = 60\n")
    for waited, late in ((59_000, False), (60_000, False), (60_001, True)):
        monkeypatch.setattr(escalations, "wall_clock_ms", lambda waited=waited: row.created_ms + waited)
        one = escalations.open_escalations(home())[0]
        assert (one.row.decision_id, one.age_ms, one.late) == (name, waited, late)


def test_another_tenant_has_an_inbox_of_its_own(inside: Inside) -> None:
    name = inside.decide(refund(300))["decision_id"]
    other = home("eve", "other")
    assert escalations.open_escalations(other) == []
    for act in (lambda: escalations.assign(other, name, "eve"), lambda: escalations.resolve(other, name, "ALLOW", "x"),
                lambda: escalations.reopen(other, name, "x")):  # fmt: skip
        with pytest.raises(NotFound):
            act()
    escalations.assign(home("ann"), name, "ann")
    store = escalations.store_of(home())
    assert store.of("other", name) == [] and store.assigned("other") == [] and store.last("other", [name]) == {}


def test_what_is_no_answer_is_refused(inside: Inside) -> None:
    name, allowed = (inside.decide(refund(amount))["decision_id"] for amount in (300, 10))
    for verdict, reason in (("ABSTAIN", "x"), ("allow", "x"), ("", "x"), ("ALLOW", " "), ("ALLOW", "x" * 5000)):
        with pytest.raises(BadInput):
            escalations.resolve(home(), name, verdict, reason)
    with pytest.raises(BadInput, match="no escalation"):
        escalations.resolve(home(), allowed, "ALLOW", "x")
    with pytest.raises(BadInput):
        escalations.assign(home(), name, "a\x1b[31m")
    assert ids() == [name] and escalations.store_of(home()).of("default", name) == []


def test_the_events_are_only_added_to_and_another_layout_is_refused(inside: Inside) -> None:
    import sqlite3

    name = inside.decide(refund(300))["decision_id"]
    escalations.assign(home("ann"), name, "ann")
    with sqlite3.connect(inside.home / "inbox.db") as db:
        for change in ("UPDATE events SET actor = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                db.execute(change)
        db.execute("PRAGMA user_version=9")
    with pytest.raises(StorageUnavailable, match="the escalations are of layout 9, and this version knows 1"):
        InboxStore(inside.home).of("default", name)


def test_what_was_said_is_not_kept_in_the_inbox(inside: Inside) -> None:
    name = inside.decide(refund(300))["decision_id"]
    escalations.resolve(home("ann"), name, "ALLOW", "Erika Mustermann called")
    assert not [path for path in inside.home.glob("inbox.db*") if b"Mustermann" in path.read_bytes()]


def test_from_the_command_line(inside: Inside) -> None:
    name = inside.decide(refund(300, user="<b>"))["decision_id"]
    assert name in inside.run("inbox", "list").stdout
    assert inside.json("inbox", "list", "--json")[0]["decision_id"] == name
    assert inside.json("inbox", "assign", name, "--json") == {"decision_id": name, "assignee": "oncall", "actor": "oncall"}
    assert inside.json("inbox", "list", "--of", "mine", "--json")[0]["assignee"] == "oncall"
    assert inside.json("inbox", "list", "--of", "nobody", "--json") == []
    assert "should ALLOW" in inside.run("inbox", "resolve", name[:20], "--verdict", "allow", "--reason", "fine").stdout
    assert "was resolved by oncall" in inside.refused("inbox", "resolve", name, "--verdict", "DENY", "--reason", "x", code=2)
    assert inside.json("inbox", "list", "--json") == []
    inside.run("inbox", "reopen", name, "--reason", "again")
    event = inside.json("inbox", "resolve", name, "--verdict", "DENY", "--reason", "x", "--this-case", "--json")
    assert (event["label"], event["should"]) == ("success", None)
