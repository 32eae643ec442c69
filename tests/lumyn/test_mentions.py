"""Where a home names a subject beside its decisions: all of it is told, what takes it out is told, and it does."""

from __future__ import annotations

import shlex
import sqlite3
import subprocess
from typing import Any

import pytest
from inside import Inside
from test_forgetting import ANN, BEN, asked, forget, holding, private  # noqa: F401

from lumyn import sdk
from lumyn.wiring import close_homes

pytest_plugins = ("inside_plugin",)


def planned(inside: Inside, user: str = ANN, *more: object) -> dict[str, Any]:
    return dict(inside.json("memory", "forget", "--subject", f"user:{user}", "--why", "asked", "--json", *more))


def told(inside: Inside, user: str = ANN) -> set[tuple[str, str, str, int]]:
    return {(one["kind"], one["ref"], one["by"], one["count"]) for one in planned(inside, user)["mentions"]}


@pytest.fixture
def lived(private: Inside, monkeypatch: pytest.MonkeyPatch) -> Inside:  # noqa: F811
    """A home in which Ann is named, or her decisions are, wherever that can be."""
    run = private.run
    monkeypatch.setenv("LUMYN_ACTOR", "mia")
    names = [sdk.decide(asked(user, amount))["decision_id"] for user in (ANN, BEN) for amount in (100, 900)]
    sdk.label(names[0], "failure", summary=f"{ANN} wept", actor="mia")
    run("incident", "open", "--title", "Late", "--summary", f"{ANN} called", "--decision", names[0])
    run("incident", "note", "1", "all is well")
    run("incident", "open", "--title", "Hers by query", "--query", "subject_type = user")
    run("incident", "open", "--title", "Another's", "--summary", f"{BEN} called", "--decision", names[2])
    run("watch", "add", "hers", "-q", f"subject_id = '{ANN}'")
    run("watch", "add", "others", "-q", "verdict = DENY")
    run("inbox", "assign", names[1], "--to", "mia")
    run("rate", "--decision", names[0], "--runs", 2, "--command", "true", code=None)
    return private


def test_all_that_names_her_is_told_and_nothing_of_others(lived: Inside) -> None:
    found = told(lived)
    assert ("incident", "INC-1", "text", 1) in found and ("incident", "INC-1", "decision", 1) in found
    assert ("incident", "INC-2", "decision", 2) in found and ("watch", "hers", "text", 1) in found
    assert ("inbox", "inbox.db", "decision", 1) in found
    assert [kind for kind, _, by, _ in found if kind == "rate sample" and by == "decision"] == ["rate sample"]
    assert not {ref for _, ref, _, _ in found} & {"INC-3", "others", "labels", "control"}
    assert {(kind, ref) for kind, ref, by, _ in told(lived, BEN) if by == "text"} == {("incident", "INC-3")}
    assert told(lived, "nobody@mail.example") == set()


def test_what_is_told_to_take_it_out_does_and_then_she_is_nowhere(lived: Inside) -> None:
    (lived.home / "gamedays").mkdir(exist_ok=True)
    kept = f'{{"id": "gameday-0123456789ab", "tenant": "default", "at": "", "report": {{"name": "f\\u00fcr {ANN}"}}}}'
    (lived.home / "gamedays/gameday-0123456789ab.json").write_text(kept)
    before = forget(lived, ANN, code=1)
    assert before["applied"] and before["records"] == 2
    commands = [one["help"] for one in before["mentions"] if one["by"] == "text"]
    assert len(commands) == 3 and None not in commands
    for command in commands:
        words = shlex.split(command)
        if words[0] == "lumyn":
            lived.run(*words[1:])
        else:
            subprocess.run(words, check=True)
    assert planned(lived)["mentions"] == []
    close_homes()
    assert [one for one in holding(lived.home, ANN, "zander") if "policy" not in one] == []
    lived.run("verify")
    assert [note["text"] for note in lived.json("incident", "show", "1", "--json")["notes"]] == ["all is well"]


def test_people_read_what_is_left_and_what_to_do(lived: Inside) -> None:
    done = lived.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply", code=1)
    assert "named in incident INC-1: 1 (event 1)" in done.stdout
    assert "linked in incident INC-1: 1 (its decisions)" in done.stdout
    assert f"lumyn incident redact INC-1 --mentions {ANN} --why WHY --apply" in done.stderr
    again = lived.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply", code=1)
    assert "named in incident INC-1" in again.stdout, "also once her key is gone"
    lived.run("incident", "redact", "1", "--mentions", ANN, "--why", "asked", "--apply")
    lived.run("watch", "remove", "hers", "--redact")
    lived.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply")


def test_what_stands_in_the_log_is_told_and_stays(private: Inside) -> None:  # noqa: F811
    sdk.decide(asked(ANN))
    private.run("kill-switch", "on", "--action-type", "payout", "--why", f"{ANN} was paid twice")
    private.run("memory", "hold", "--subject", f"user:{ANN}", "--why", f"case of {ANN}")
    private.run("memory", "hold", "--subject", f"user:{ANN}", "--why", "closed", "--release")
    assert told(private) == {("log", "control", "text", 1), ("log", "labels", "text", 1)}
    assert all(one["help"] is None for one in forget(private, ANN, code=1)["mentions"])


def test_who_is_called_alike_in_another_tenant_is_another(
    private: Inside, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    sdk.decide(asked(ANN))
    private.run("incident", "open", "--title", f"{ANN} called")
    (private.home / "rates").mkdir()
    (private.home / "rates/rate-0123456789ab.jsonl").write_text(f'{{"tenant": "other"}}\n{{"run": "{ANN}"}}\n')
    (private.home / "reports/other").mkdir(parents=True)
    (private.home / "reports/other/r.html").write_text(ANN)
    assert told(private) == {("incident", "INC-1", "text", 1)}
    other = {(one["kind"], one["ref"]) for one in planned(private, ANN, "--tenant", "other")["mentions"]}
    assert other == {("rate sample", "rates/rate-0123456789ab.jsonl"), ("report", "reports/other/r.html")}


def test_an_escaped_name_is_found(private: Inside) -> None:  # noqa: F811
    sdk.decide(asked("Jos\u00e9 <7>"))
    (private.home / "reports/default").mkdir(parents=True)
    (private.home / "reports/default/r.html").write_text("<p>Jos\u00e9 &lt;7&gt;</p>")
    (private.home / "jobs").mkdir()
    (private.home / "jobs/relabel-0123456789ab.jsonl").write_text('{"summary": "Jos\\u00e9 <7> called"}\n')
    assert {ref for _, ref, _, _ in told(private, "Jos\u00e9 <7>")} == {
        "reports/default/r.html", "jobs/relabel-0123456789ab.jsonl",
    }  # fmt: skip


def test_what_can_t_be_read_keeps_nobody_from_being_forgotten_and_is_told(lived: Inside) -> None:
    close_homes()
    with sqlite3.connect(lived.home / "incidents.db") as db:
        db.execute("DROP TRIGGER events_are_as_said")
        db.execute("UPDATE events SET actor = 'eve' WHERE number = 2")
    db.close()
    for name in ("watches.db-wal", "watches.db-shm"):
        (lived.home / name).unlink(missing_ok=True)
    (lived.home / "watches.db").write_bytes(b"this is no database" * 500)
    done = lived.run("memory", "forget", "--subject", f"user:{ANN}", "--why", "asked", "--apply", code=1)
    assert "forgotten as of memory version" in done.stdout
    assert "perhaps named in incident INC-2: (can't be looked at: event 1 is not as it was said" in done.stdout
    assert "perhaps named in watch watches.db: (can't be looked at: the watches can't be used" in done.stdout
    assert "named in incident INC-1: 1 (event 1)" in done.stdout, "the others are looked at all the same"
