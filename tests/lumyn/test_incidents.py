"""Incidents: opened, added to, found again; nothing said is ever lost, and no tenant sees another's."""

from __future__ import annotations

import json
import sqlite3
import threading
from typing import Any

import pytest
from conftest_e2e import refund
from hypothesis import given, settings
from hypothesis import strategies as st
from inside import Inside

from lumyn import sdk
from lumyn.config import LumynConfig
from lumyn.incidents import Incidents
from lumyn.incidents.target import parse_target
from lumyn.wiring import operator_home
from schemas.errors import IntegrityError, LumynError, NotFound, UsageError

pytest_plugins = ("inside_plugin",)


def opened(inside: Inside, *more: object) -> dict[str, Any]:
    return dict(inside.json("incident", "open", "--title", "Refund in 7 hours", *more, "--json"))


def test_an_incident_has_the_decisions_named_and_those_that_its_query_finds_in_its_window(inside: Inside) -> None:
    from lumyn.incidents.evidence import decisions_of

    names = [inside.decide(refund(20 + n))["decision_id"] for n in range(4)]
    other = inside.decide(refund(900))["decision_id"]
    made = opened(inside, "--query", "action_type=refund AND amount_usd < 22", "--decision", other[:20])
    assert made["id"] == "INC-1" and [link["ref"] for link in made["links"]] == [other]
    home = operator_home()
    incident = Incidents(home).show("inc-1")
    found = decisions_of(home, incident)
    assert [row.decision_id for row in found.rows] == sorted([*names[:2], other]) and found.by_query == 2
    Incidents(home).change("1", end_ms=1000, start_ms=1)
    later = decisions_of(home, Incidents(home).show("1"))
    assert [row.decision_id for row in later.rows] == [other], "a linked one counts wherever it lies"


def test_the_times_of_a_query_stay_those_of_the_day_it_was_written(inside: Inside) -> None:
    inside.decide(refund(20))
    assert opened(inside, "--query", "created_at > '14:25'")["query"].endswith("T14:25:00.000Z'")


def test_a_minute_as_the_end_is_in_the_window_also_one_to_come(inside: Inside) -> None:
    inside.decide(refund(20))
    for command in (("open", "--title", "x"), ("edit", "1")):
        told = inside.json("incident", *command, "--from", "2024-12-19 14:00", "--to", "23:59", "--json")
        assert told["end_ms"] % 86_400_000 == 0 and told["end_ms"] > told["start_ms"]


def test_all_that_is_said_is_kept_in_order_with_who_said_it(inside: Inside) -> None:
    name = inside.decide(refund(20))["decision_id"]
    sdk.label(name, "failure", summary="wrong", actor="ann")
    opened(inside, "--severity", "1")
    inside.run("incident", "add", "INC-1", "--decision", name, "--label", name, "--ticket", "OPS-12", "--note", "it")
    inside.run("incident", "note", "1", "called", "--at", "2024-01-01 10:00")
    inside.run("incident", "note", "1", "-", stdin="two\nlines")
    inside.run("incident", "edit", "1", "--severity", "3", "--summary", "what happened")
    inside.run("incident", "remove", "1", "ticket", "OPS", "--why", "another one's")
    inside.run("incident", "status", "1", "contained", "--why", "switch")
    inside.run("incident", "close", "1", "--why", "learnt")
    assert "is closed" in inside.refused("incident", "status", "1", "open", code=2)
    inside.run("incident", "reopen", "1", "--why", "again")
    told = inside.json("incident", "show", "INC-1", "--json")
    assert [event["kind"] for event in told["events"]] == [
        "opened", "added", "added", "added", "noted", "noted", "changed", "removed", "status", "closed", "reopened",
    ]  # fmt: skip
    assert {event["actor"] for event in told["events"]} == {operator_home().settings.actor}
    assert (told["status"], told["severity"], told["closed_ms"]) == ("open", "sev3", None)
    assert [(link["kind"], link["ref"]) for link in told["links"]] == [("decision", name), ("label", f"{name}@1")]
    assert told["notes"][0]["when_ms"] == 1704103200000
    text = inside.run("incident", "show", "INC-1").stdout
    assert "2024-01-01T10:00:00Z" in text and "two\\nlines" in text


@pytest.mark.parametrize(
    ("option", "ref"),
    [
        ("--decision", "01JBQX8P2M4T5V6W7X8Y9Z0A1B"), ("--label", "01JBQX8P2M4T5V6W7X8Y9Z0A1B"),
        ("--rate", "rate-0123456789ab"), ("--rate", "../../etc/passwd"), ("--job", "relabel-0123456789ab"),
        ("--policy", "none@1"), ("--kill-switch", "abc"), ("--watch", "none"), ("--incident", "INC-9"),
        ("--pack", "none.zip"), ("--backtest", "none.html"), ("--ticket", "javascript:alert(1)"),
        ("--ticket", "https://a.example/<script>"), ("--ticket", "https://"),
    ],
)  # fmt: skip
def test_a_link_to_nothing_is_refused_and_none_is_made(inside: Inside, option: str, ref: str) -> None:
    name = inside.decide(refund(20))["decision_id"]
    opened(inside)
    inside.refused("incident", "add", "INC-1", "--decision", name, option, ref, code=2)
    assert inside.json("incident", "show", "1", "--json")["links"] == []


def test_what_is_linked_is_what_there_is(inside: Inside) -> None:
    name = inside.decide(refund(20))["decision_id"]
    sdk.label(name, "failure", summary="wrong")
    job = inside.json("relabel", "--query", "label=failure", "--label", "success", "--why", "x", "--apply", "--json")
    switch = inside.json("kill-switch", "on", "--why", "x", "--action-type", "wire", "--json")["switch_id"]
    inside.run("kill-switch", "off", switch)
    inside.run("export", name, "--pack", "--out", "p.zip")
    inside.write("agent.py", "import json; print(json.dumps({'action': {'type': 'refund'}}))")
    rate = inside.json("rate", "--decision", name, "--runs", 2, "--command", "python3 agent.py", "--json")
    opened(inside)
    told = inside.json(
        "incident", "add", "1", "--job", job["job"], "--kill-switch", switch[:5], "--policy", "refunds", "--pack",
        "p.zip", "--rate", rate["rate_id"], "--json",
    )  # fmt: skip
    links = {link["kind"]: link for link in told["links"]}
    assert links["kill-switch"]["ref"] == switch and links["policy"]["ref"] == "refunds@4.1.0"
    assert links["job"]["detail"]["labels"] == 1 and links["pack"]["detail"]["decision_id"] == name
    assert links["rate"]["detail"]["decision_id"] == name


def test_no_tenant_sees_what_another_has(inside: Inside) -> None:
    name = inside.decide(refund(20))["decision_id"]
    opened(inside, "--decision", name)
    other = Incidents(operator_home(), tenant="other", actor="eve")
    assert other.list() == [] and other.store.matching("other", '"refund"', 10) == []
    for asked in (lambda: other.show("INC-1"), lambda: other.note("INC-1", "x"), lambda: other.close("1", "x")):
        with pytest.raises(NotFound):
            asked()
    with pytest.raises(NotFound):
        other.open("mine", decisions=[name])
    assert other.open("mine").id == "INC-1" and other.open("mine too").id == "INC-2"
    assert [one.title for one in Incidents(operator_home()).list()] == ["Refund in 7 hours"]


def test_an_event_that_was_edited_or_taken_out_shows(inside: Inside) -> None:
    inside.decide(refund(20))
    opened(inside)
    for text in ("one", "two"):
        inside.run("incident", "note", "1", text)
    path = inside.home / "incidents.db"
    with sqlite3.connect(path) as db:
        for statement in ("UPDATE events SET actor = 'eve'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                db.execute(statement)
        db.execute("DROP TRIGGER events_are_as_said")
        db.execute("UPDATE events SET data = replace(data, 'one', 'six') WHERE seq = 2")
    db.close()
    assert "event 2 is not as it was said" in inside.refused("incident", "show", "1", code=3)
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER events_stay")
        db.execute("DELETE FROM events WHERE seq = 2")
    db.close()
    with pytest.raises(IntegrityError):
        Incidents(operator_home()).show("1")


def test_many_at_once_get_numbers_of_their_own_and_lose_nothing(inside: Inside) -> None:
    inside.decide(refund(20))
    home = operator_home()
    Incidents(home).open("first")

    def work(number: int) -> None:
        incidents = Incidents(home)
        incidents.open(f"by {number}")
        for turn in range(5):
            incidents.note("INC-1", f"{number} {turn}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.number for one in Incidents(home).list()) == list(range(1, 8))
    assert len({note.text for note in Incidents(home).show("INC-1").notes}) == 30


HOSTILE = st.text(st.characters(codec="utf-8"), max_size=40) | st.sampled_from(
    ['<script>alert(1)</script>', "\x1b]0;x\x07", "](javascript:x)", "'; DROP TABLE events; --", '" OR *', "‮", "a\x00b"]
)


@settings(max_examples=25)
@given(texts=st.lists(HOSTILE, min_size=4, max_size=4))
def test_whatever_is_written_is_found_as_it_was_written_or_refused(texts: list[str]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        home = operator_home(LumynConfig(home=folder))
        incidents = Incidents(home)
        incidents.open("one")
        title, note, section, words = texts
        for said in (
            lambda: incidents.change("1", title=title), lambda: incidents.note("1", note),
            lambda: incidents.write("1", "why1", section), lambda: incidents.action("1", text=note, owner=title),
        ):  # fmt: skip
            try:
                said()
            except LumynError as error:
                assert error.exit_code == 2
        one = incidents.show("1")
        assert one.title in ("one", " ".join(title.split()))
        assert [n.text for n in one.notes] == ([note.strip()] if note.strip() else [])
        assert json.dumps(one.as_dict(), default=str)
        from lumyn.incidents.search import by_words

        try:
            by_words(incidents, words)
        except UsageError as error:
            assert "no word" in error.message
        home.close()


def test_words_are_found_whatever_their_endings_and_titles_count_more(inside: Inside) -> None:
    inside.decide(refund(20))
    incidents = Incidents(operator_home())
    incidents.open("Card payments fail")
    incidents.open("Refunds are late", summary="a payment")
    incidents.open("Other")
    assert [row["id"] for row in inside.json("incident", "search", "payment", "--json")] == ["INC-1", "INC-2"]
    done = inside.run("incident", "search", "payment", "zebra")
    assert "no incident has all of these words" in done.stderr and "INC-1" in done.stdout
    assert "no incident found" in inside.run("incident", "search", "zebra").stderr
    incidents.note("INC-3", "a zebra")
    assert [row["id"] for row in inside.json("incident", "search", "zebra", "--json")] == ["INC-3"]


BEFORE = {
    "Refund promised in 7 hours instead of 7 days": "told a paying customer the wrong time",
    "Medical advice without a disclaimer": "recommended a dose of ibuprofen",
    "Hallucinated court case": "retrieved a satirical article from the web",
    "All female applicants rejected": "the hiring bot learnt from old decisions",
    "Account closed": "instead of a 30-day grace period",
}


@pytest.mark.parametrize(
    ("planned", "before"),
    [
        ("the agent may answer medical questions", "Medical"),
        ("let the agent tell customers when their refund arrives", "Refund"),
        ("screen CVs of job candidates automatically", "All female"),
        ("the agent can delete accounts on request", "Account"),
    ],
)
def test_what_went_wrong_near_a_planned_feature_comes_first(inside: Inside, planned: str, before: str) -> None:
    inside.decide(refund(20))
    incidents = Incidents(operator_home())
    for title, summary in BEFORE.items():
        incidents.open(title, summary=summary)
    first, *rest = inside.json("incident", "search", "--near-text", planned, "--json", "--least", 0)
    assert first["title"].startswith(before) and all(first["score"] >= one["score"] for one in rest)
    assert first["why"].startswith("its ")


def test_a_request_finds_the_incident_whose_decision_it_is_like(inside: Inside) -> None:
    like = {"chargeback_risk": 0.2}
    one = inside.decide(refund(20, action={"type": "refund", "amount": {"value": 20, "currency": "USD"}}, evidence=like))
    two = inside.decide({**refund(20), "action": {"type": "close_account", "intent": "close it"}, "evidence": {"age": 9}})
    opened(inside, "--decision", one["decision_id"])
    opened(inside, "--decision", two["decision_id"])
    asked = {name: one["request"][name] for name in ("subject", "action", "evidence", "context")}
    inside.write("r.json", json.dumps(asked))
    first = inside.json("incident", "search", "--near", "r.json", "--json")[0]
    assert (first["id"], first["decision_id"], first["score"]) == ("INC-1", one["decision_id"], pytest.approx(1, abs=1e-3))
    assert "of the same action type" in first["why"] and first["score_by_block"]
    inside.refused("incident", "search", "--near", "none.json", code=2)
    inside.refused("incident", "search", "--near", "r.json", "word", code=2)


def test_a_target_is_read_as_it_is_written() -> None:
    assert parse_target("from 0.4% to under 0.1%") == {
        "text": "from 0.4% to under 0.1%", "was": 0.004, "bound": 0.001, "below": True,
    }  # fmt: skip
    assert parse_target("at least 99%")["below"] is False
    for wrong in ("fix it", "from 0.1% to under 0.4%", "under 120%", "under -1%", "from 4 to under 1", ""):
        with pytest.raises(UsageError):
            parse_target(wrong)


def test_an_action_about_a_rate_has_a_watch_that_checks_it(inside: Inside) -> None:
    from lumyn.watches import check, watch_named

    name = inside.decide(refund(20))["decision_id"]
    sdk.label(name, "failure", summary="wrong")
    opened(inside)
    inside.run("incident", "action", "1", "--text", "lower it", "--owner", "mia", "--due", "2099-01-31", "--target",
               "from 40% to under 10%", "--query", "label=failure", "--of", "action_type=refund")  # fmt: skip
    watch = watch_named(operator_home(), "inc-1.a1").watch
    assert (watch.target, watch.by, watch.of, watch.incident) == ("rate < 10%", "2099-01-31", "action_type=refund", "INC-1")
    assert check(operator_home(), "inc-1.a1")["target_state"] == "not_met"
    told = inside.json("incident", "action", "1", "a1", "--state", "done", "--json")
    assert told["actions"][0]["state"] == "done" and told["actions"][0]["watch"] == "inc-1.a1"
    inside.refused("incident", "action", "1", "A2", "--state", "done", code=2)
    inside.refused("incident", "action", "1", "--text", "x", "--query", "label=failure", code=2)
    assert len(inside.json("incident", "show", "1", "--json")["actions"]) == 1


def test_the_watch_of_an_action_follows_its_target_and_its_day(inside: Inside) -> None:
    from lumyn.watches import check, history, watch_named

    def watch(name: str = "inc-1.a1") -> Any:
        return watch_named(operator_home(), name).watch

    inside.decide(refund(20))
    opened(inside)
    inside.run("incident", "action", "1", "--text", "lower it", "--due", "2099-01-31", "--target", "from 40% to under 10%",
               "--query", "label=failure", "--of", "action_type=refund")  # fmt: skip
    check(operator_home(), "inc-1.a1")
    inside.run("incident", "action", "1", "A1", "--target", "from 40% to under 5%", "--due", "2099-03-31")
    assert (watch().target, watch().by, watch().query, watch().of) == ("rate < 5%", "2099-03-31", "label=failure", "action_type=refund")
    assert len(history(operator_home(), "inc-1.a1", limit=9)) == 1, "what was measured stays"
    inside.run("incident", "action", "1", "A1", "--target", "from 40% to under 5%", "--query", "verdict=DENY")
    assert (watch().query, watch().target) == ("verdict=DENY", "rate < 5%")
    inside.run("incident", "action", "1", "A1", "--state", "doing")
    assert watch().target == "rate < 5%"
    inside.run("watch", "add", "shared", "--query", "verdict=DENY", "--target", "rate < 50%")
    inside.run("incident", "action", "1", "--text", "other", "--target", "under 50%", "--watch", "shared")
    done = inside.run("incident", "action", "1", "A2", "--target", "under 20%")
    assert "`shared` is not its own" in done.stderr and watch("shared").target == "rate < 50%"
    assert "`lumyn watch remove inc-1.a1` ends that" in inside.run("incident", "action", "1", "A1", "--state", "dropped").stderr
    inside.run("watch", "remove", "inc-1.a1")
    inside.run("incident", "action", "1", "A1", "--target", "under 2%")


def test_closing_says_what_is_still_open_and_with_whom(inside: Inside) -> None:
    inside.run("incident", "open", "--title", "x")
    inside.run("incident", "close", "1", "--why", "nothing to do")
    inside.run("incident", "reopen", "1", "--why", "there is")
    for owner in ("mia", "\x1b[2Jben", None):
        inside.run("incident", "action", "1", "--text", "fix it", *(["--owner", owner] if owner else []))
    inside.run("incident", "action", "1", "A1", "--state", "doing")
    assert "3 open of 3" in inside.run("incident", "list").stdout
    done = inside.run("incident", "close", "1", "--why", "enough")
    assert "INC-1: closed, with 3 of 3 action items still open" in done.stdout
    assert "A1 (mia)" in done.stderr and "A3 (nobody yet)" in done.stderr and "\x1b" not in done.stderr
    assert "3 open of 3" in inside.run("incident", "list").stdout, "closed is not done"
    for item in ("A1", "A2", "A3"):
        inside.run("incident", "action", "1", item, "--state", "done")
    assert "0 open of 3" in inside.run("incident", "list").stdout
    inside.run("incident", "reopen", "1", "--why", "again")
    assert inside.run("incident", "close", "1", "--why", "done").stdout.strip() == "INC-1: closed"


def test_a_due_day_that_is_past_is_told(inside: Inside) -> None:
    inside.run("incident", "open", "--title", "x")
    done = inside.run("incident", "action", "1", "--text", "fix it", "--due", "2020-01-31")
    assert "A1 is due on 2020-01-31, which is past" in done.stderr and "A1 open" in done.stdout
    assert "past" not in inside.run("incident", "action", "1", "A1", "--due", "2999-01-31").stderr
    assert "past" not in inside.run("incident", "action", "1", "A1", "--due", "2020-01-31", "--state", "done").stderr
