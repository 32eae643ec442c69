"""Redacting what people wrote of an incident: nothing of it is left in the file, and the chain still shows changes."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from hypothesis import given
from hypothesis import strategies as st
from inside import Inside
from test_forgetting import holding

from lumyn.incidents import Incidents
from lumyn.incidents.redaction import mentioning
from lumyn.wiring import close_homes, operator_home
from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import IntegrityError

pytest_plugins = ("inside_plugin",)
ANN = "ann.zander@mail.example"


@pytest.fixture
def told(inside: Inside) -> Inside:
    """A home with an incident in which Ann is named wherever somebody can be, and one more."""
    name = inside.decide(refund(20))["decision_id"]
    run = inside.run
    run("incident", "open", "--title", f"{ANN} was told 7 hours", "--summary", f"Ann ({ANN}) wrote.", "--decision", name,
        "--query", f"subject_id = '{ANN}'")  # fmt: skip
    run("incident", "note", "1", f"called {ANN.upper()}: Philomena wept")
    run("incident", "note", "1", "the switch is on")
    run("incident", "write", "1", "--section", "why1", "--text", f"The page of {ANN} was cached.")
    run("incident", "action", "1", "--text", f"Write to {ANN}", "--owner", "mia", "--target", "from 10% to under 1%")
    run("incident", "add", "1", "--ticket", "OPS-12", "--note", f"by {ANN}")
    run("incident", "status", "1", "contained", "--why", f"{ANN} was answered")
    run("incident", "open", "--title", "Another", "--summary", "quite another matter")
    return inside


def redact(inside: Inside, *more: object, code: int = 0) -> Any:
    return inside.json("incident", "redact", "1", "--why", "asked to be forgotten", *more, "--json", code=code)


def test_it_is_shown_first_and_nothing_is_changed(told: Inside) -> None:
    before = told.json("incident", "show", "1", "--json")
    shown = redact(told, "--mentions", ANN)
    assert [event["seq"] for event in shown["events"]] == [1, 3, 5, 6, 7, 8] and not shown["applied"]
    assert told.json("incident", "show", "1", "--json") == before
    assert "can't be undone" in told.run("incident", "redact", "1", "--why", "w", "--mentions", ANN).stderr


def test_nothing_of_it_is_left_in_the_home_and_it_is_shown_as_redacted_everywhere(told: Inside) -> None:
    told.run("incident", "postmortem", "1", "--out", "before.md")
    before = told.json("incident", "show", "1", "--json")
    assert redact(told, "--mentions", ANN, "--apply")["applied"]
    close_homes()
    assert holding(told.home, ANN, ANN.upper(), "Philomena", "zander") == []
    after = told.json("incident", "show", "1", "--json")
    assert after["title"] == after["summary"] == after["query"] == "[redacted]"
    assert [note["text"] for note in after["notes"]] == ["[redacted]", "the switch is on"]
    assert after["sections"]["why1"]["text"] == after["actions"][0]["text"] == "[redacted]"
    assert after["actions"][0]["owner"] == "mia" and after["actions"][0]["target"] == before["actions"][0]["target"]
    assert [(link["kind"], link["note"]) for link in after["links"]] == [("decision", ""), ("ticket", "[redacted]")]
    assert [event["digest"] for event in after["events"]][:-1] == [event["digest"] for event in before["events"]]
    assert [event["redacted"] for event in after["events"]] == [n in (1, 3, 5, 6, 7, 8) for n in range(1, 10)]
    assert after["events"][-1]["kind"] == "redacted" and after["events"][-1]["data"]["why"] == "asked to be forgotten"
    assert "[redacted]" in told.run("incident", "list").stdout
    shown = told.run("incident", "show", "1")
    assert ANN not in shown.stdout and "redacted: texts of event 1, 3, 5, 6, 7, 8" in shown.stderr
    told.run("incident", "postmortem", "1", "--out", "before.md", "--html", "after.html")
    for name in ("before.md", "after.html"):
        text = (told.folder / name).read_text()
        assert ANN not in text and "Texts of event 1, 3, 5, 6, 7, 8 were redacted" in text
        assert "it was redacted, so what it found is not known any more" in text
    assert told.json("incident", "search", "zander", "--json") == []
    assert [one["id"] for one in told.json("incident", "search", "switch", "--json")] == ["INC-1"]
    assert [one["id"] for one in told.json("incident", "search", "matter", "--json")] == ["INC-2"]
    assert ANN not in told.run("incident", "export", "1", "--tickets", "json").stdout
    told.run("incident", "note", "1", "one more")
    assert redact(told, "--mentions", ANN, "--apply")["events"] == []


def test_events_and_whole_incidents_are_redacted_without_anybody_named(told: Inside) -> None:
    assert [event["seq"] for event in redact(told, "--event", 4, "--apply")["events"]] == [4]
    assert told.json("incident", "show", "1", "--json")["notes"][1]["text"] == "[redacted]"
    assert told.json("incident", "show", "1", "--json")["summary"].startswith("Ann")
    redact(told, "--all", "--apply")
    whole = told.json("incident", "show", "1", "--json")
    assert (whole["status"], whole["severity"], whole["title"]) == ("contained", "sev3", "[redacted]")
    assert whole["actions"][0]["text"] == "[redacted]" and whole["actions"][0]["target"]["bound"] == 0.01
    assert whole["events"][8]["data"]["why"] == "asked to be forgotten"
    close_homes()
    assert holding(told.home, ANN, "switch is on", "wept") == []
    told.run("incident", "postmortem", "1")


def test_what_makes_no_sense_is_refused(told: Inside) -> None:
    refused = told.refused
    assert "nothing is to be redacted" in refused("incident", "redact", "1", "--why", "w", code=2)
    assert "empty text" in refused("incident", "redact", "1", "--why", "w", "--mentions", " ", code=2)
    assert "has no event 44" in refused("incident", "redact", "1", "--why", "w", "--event", 44, code=2)
    assert "no incident" in refused("incident", "redact", "7", "--why", "w", "--all", "--apply", code=2)
    named = refused("incident", "redact", "1", "--why", f"for {ANN}", "--mentions", ANN, "--apply", code=2)
    assert "the reason names" in named
    assert "`--why` is empty" in refused("incident", "redact", "1", "--why", " ", "--all", "--apply", code=2)


def test_another_tenant_can_t_redact_it(told: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUMYN_TENANT", "other")
    close_homes()
    assert "no incident" in told.refused("incident", "redact", "1", "--why", "w", "--all", "--apply", code=2)


def changed(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as db:
        db.execute("DROP TRIGGER IF EXISTS events_are_as_said")
        for statement in statements:
            db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET data = replace(data, '[redacted]', 'all was well') WHERE seq = 3",
        "UPDATE events SET actor = 'eve' WHERE seq = 3",
        "UPDATE events SET data = replace(data, 'the switch is on', 'off'), salt = NULL WHERE seq = 4",
        "UPDATE events SET data = replace(data, 'the switch is on', 'off'), salt = NULL, said = NULL WHERE seq = 4",
        "UPDATE events SET said = replace(said, 'sha256:', 'sha256:0') WHERE seq = 4",
        "UPDATE events SET data = replace(data, 'asked to', 'not') WHERE seq = 9",
        "UPDATE events SET salt = zeroblob(32) WHERE seq = 3",
    ],
)
def test_a_change_still_shows_after_a_redaction(told: Inside, statement: str) -> None:
    redact(told, "--mentions", ANN, "--apply")
    told.json("incident", "show", "1", "--json")
    close_homes()
    changed(told.home / "incidents.db", statement)
    with pytest.raises(IntegrityError, match="is not as it was said"):
        Incidents(operator_home()).show("1")
    refused = told.refused("incident", "redact", "1", "--why", "w", "--all", "--apply", code=3)
    assert "is not as it was said" in refused, "what was changed isn't made right by redacting it"


def old_incidents(path: Path, texts: list[str]) -> None:
    """A file as the first layout was: digests over the texts themselves."""
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=1")
        db.execute(
            "CREATE TABLE events (tenant TEXT NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, at_ms INTEGER "
            "NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL, digest TEXT NOT NULL, "
            "PRIMARY KEY (tenant, number, seq)) WITHOUT ROWID"
        )
        db.execute(
            "CREATE TRIGGER events_are_as_said BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never "
            "changed'); END"
        )
        db.execute("CREATE VIRTUAL TABLE words USING fts5(tenant UNINDEXED, number UNINDEXED, title, text)")
        before = None
        opened = {"title": texts[0], "severity": "sev3", "summary": "", "query": None, "start_ms": None, "end_ms": None}
        for seq, (kind, data) in enumerate([("opened", opened), *(("noted", {"text": t}) for t in texts[1:])], start=1):
            said = {"tenant": "default", "number": 1, "seq": seq, "at_ms": 5, "actor": "mia", "kind": kind, "data": data}
            told = digest(encode({**said, "before": before}))
            row = ("default", 1, seq, 5, "mia", kind, encode(data), told)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            before = told
        db.execute("INSERT INTO words VALUES ('default', 1, ?, ?)", (texts[0], "\n".join(texts)))
    db.close()


def test_incidents_of_the_first_layout_are_read_added_to_and_redacted(inside: Inside) -> None:
    inside.decide(refund(20))
    old_incidents(inside.home / "incidents.db", ["Late", "one", f"called {ANN}", "three"])
    before = inside.json("incident", "show", "1", "--json")
    assert [note["text"] for note in before["notes"]] == ["one", f"called {ANN}", "three"]
    inside.run("incident", "note", "1", "four")
    before = inside.json("incident", "show", "1", "--json")
    redact(inside, "--mentions", ANN, "--apply")
    after = inside.json("incident", "show", "1", "--json")
    assert [note["text"] for note in after["notes"]] == ["one", "[redacted]", "three", "four"]
    digests = [[event["digest"] for event in one["events"]] for one in (before, after)]
    assert digests[0][:2] == digests[1][:2] and digests[0][2] not in digests[1], "it could be guessed against"
    assert after["events"][-1]["data"]["digests_anew_from"] == 3
    close_homes()
    held = (inside.home / "incidents.db").read_bytes()
    assert ANN.encode() not in held and digests[0][2].encode() not in held
    changed(inside.home / "incidents.db", "UPDATE events SET data = replace(data, 'three', 'six') WHERE seq = 4")
    assert "event 4 is not as it was said" in inside.refused("incident", "show", "1", code=3)


def test_nothing_is_left_that_a_guess_could_be_tried_against(told: Inside) -> None:
    """The same text in two incidents, redacted in one: no digest of the other's is the one that was."""
    store = told.home / "incidents.db"
    told.run("incident", "note", "1", "Philomena")
    redact(told, "--mentions", "Philomena", "--apply")
    close_homes()
    with sqlite3.connect(store) as db:
        rows = db.execute("SELECT salt, said FROM events WHERE number = 1 AND seq IN (3, 9)").fetchall()
    db.close()
    assert [salt for salt, _ in rows] == [None, None]
    guesses = {digest(encode({"text": text})) for text in ("Philomena", f"called {ANN.upper()}: Philomena wept")}
    assert not guesses & {said for _, said in rows}


@pytest.mark.parametrize(
    ("name", "text", "is_named"),
    [
        ("usr_20", "usr_20's page", True), ("usr_20", "usr_200", False), ("usr_20", "of_USR_20_too", True),
        ("ann@mail.example", "<Ann@Mail.Example>", True), ("straße 7", "STRASSE 7", True), ("7", "17 hours", False),
        ("7", "7 hours", True), ("a.b", "aXb", False), ("José", "Jose\u0301 wrote", True), ("ann", "Hannah", False),
    ],
)  # fmt: skip
def test_a_name_is_found_as_a_word_of_its_own(name: str, text: str, is_named: bool) -> None:
    assert mentioning([name])(text) is is_named


@given(st.text(min_size=1, max_size=12), st.text(max_size=20), st.text(max_size=20))
def test_whatever_a_subject_is_called_it_is_found_between_spaces(name: str, before: str, after: str) -> None:
    if name.strip():
        assert mentioning([name])(f"{before} {name.strip()} {after}")


def test_redactions_of_two_people_one_after_the_other(told: Inside) -> None:
    told.run("incident", "note", "1", f"{ANN} and ben@mail.example", "--at", "2024-01-01 10:00")
    told.run("incident", "note", "1", "ben@mail.example alone")
    redact(told, "--mentions", "ben@mail.example", "--apply")
    redact(told, "--mentions", ANN, "--mentions", "Philomena", "--apply")
    shown = told.json("incident", "show", "1", "--json")
    assert ANN not in json.dumps(shown) and "ben@" not in json.dumps(shown)
    assert [event["kind"] for event in shown["events"]][-2:] == ["redacted", "redacted"]
    redact(told, "--event", 11, "--apply")
    assert told.json("incident", "show", "1", "--json")["events"][10]["data"]["why"] == "[redacted]"


@pytest.mark.parametrize("notes", [1, 2, 3, 14])
def test_no_word_of_it_is_left_in_the_index_of_words(inside: Inside, notes: int) -> None:
    """The index keeps a deleted word in its pages until it happens to merge them."""
    inside.decide(refund(20))
    inside.run("incident", "open", "--title", "Late")
    for number in range(notes):
        inside.run("incident", "note", "1", f"philomena called {number}")
    redact(inside, "--mentions", "Philomena", "--apply")
    close_homes()
    assert holding(inside.home, "philomena", "hilomena") == []
