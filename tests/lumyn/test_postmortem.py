"""Postmortems from evidence: every figure is the one its command gives, gaps are said, what people wrote stays."""

from __future__ import annotations

import csv
import hashlib
import hmac
import http.server
import io
import json
import re
import shlex
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from conftest_e2e import refund
from hypothesis import example, given, settings
from hypothesis import strategies as st
from inside import Inside

from lumyn import sdk
from lumyn.api.callbacks import signature
from lumyn.incidents import Incidents
from lumyn.incidents.evidence import Decisions
from lumyn.incidents.markdown import code, plain, unwritten, written
from lumyn.incidents.postmortem import _changed
from lumyn.incidents.render import as_html
from lumyn.incidents.tickets import as_csv
from lumyn.wiring import close_homes, operator_home
from streams.control_history import ControlChange
from streams.factors import rate_of

pytest_plugins = ("inside_plugin",)

QUERY = "provenance.system_fingerprint = 'fp_2' AND action_type = refund"


def history(inside: Inside) -> list[dict[str, Any]]:
    """Twelve decisions, the last six of a new fingerprint, three of which went wrong."""
    made = [
        inside.decide(refund(20 + n, user=f"usr_{n}", provenance={"model": "m-1", "system_fingerprint": f"fp_{1 + n // 6}"}))
        for n in range(12)
    ]
    for record in made[6:9]:
        sdk.label(record["decision_id"], "failure", summary="paid twice", should="DENY")
    return made


@pytest.fixture
def made(inside: Inside) -> list[dict[str, Any]]:
    made = history(inside)
    last = made[-1]["created_at"][:-1] + "999Z"  # within its millisecond
    inside.run("incident", "open", "--title", "Paid twice", "--severity", "1", "--query", QUERY, "--from",
               made[6]["created_at"], "--to", last.replace("999Z", "Z"))  # fmt: skip
    return made


def facts(inside: Inside) -> dict[str, Any]:
    return dict(inside.json("incident", "postmortem", "1", "--json"))


def test_what_is_counted_is_what_there_was(inside: Inside, made: list[dict[str, Any]]) -> None:
    told = facts(inside)
    did = told["impact"]
    assert (did["decisions"], did["subjects"], did["labels"]) == (6, 6, {"failure": 3, "none": 3})
    assert did["money"] == [{"currency": "USD", "decisions": 6, "total": 171.0, "allowed": 171.0}]
    missing = {row["what"]: row["missing"] for row in told["not_captured"]}
    assert missing["tool schema hash"] == 6 and "model" not in missing and "system fingerprint" not in missing
    unlabelled = next(gap["what"] for gap in told["unknown"] if "have no label" in gap["what"])
    assert "3 of 6 (50%)" in unlabelled and "from 50.0% to 100.0%" in unlabelled
    assert told["traffic"]["event"] == "label = failure" and told["traffic"]["during"]["events"] == 3
    assert told["uncontrolled"]["named_by_query"] == ["action_type", "provenance.system_fingerprint"]
    common = {row["factor"]: row for row in told["evidence"]["common"]}
    assert common["provenance.system_fingerprint"]["value"] == "fp_2", "what the query asks for they have in common"
    assert common["provenance.system_fingerprint"]["named_by_query"] and not common["provenance.model"]["named_by_query"]
    kinds = [moment["kind"] for moment in told["timeline"]["moments"]]
    assert kinds.count("decision") == 6 and kinds.count("label") == 3
    assert [moment["at_ms"] for moment in told["timeline"]["moments"]] == sorted(m["at_ms"] for m in told["timeline"]["moments"])


def applicant(number: int, *, gender: str, kind: str = "invite_applicant", **evidence: Any) -> dict[str, Any]:
    return {
        "subject": {"type": "user", "id": f"usr_{number}"},
        "action": {"type": kind, "channel": "mail"},
        "evidence": {"gender": gender, "name": f"Name {number}", "score": number % 17 * 1.5, **evidence},
        "context": {"mode": "inline", "inline": {"form": "a" if number % 2 else "b", "note": f"I {'am here ' * 20}{number}"}},
        "provenance": {"model": "m-1"},
    }


def hired(inside: Inside, **more: Any) -> list[dict[str, Any]]:
    """51 applicants; all seven women are rejected."""
    made = []
    for n in range(51):
        woman = n % 7 == 3 and n < 49
        kind = "reject_applicant" if woman else "invite_applicant"
        made.append(inside.decide(applicant(n, gender="f" if woman else "m", kind=kind, **more)))
    return made


@pytest.mark.parametrize("by", ["query", "links"])
def test_what_sets_the_bad_decisions_apart_in_what_was_asked_is_told(inside: Inside, by: str) -> None:
    made = hired(inside)
    bad = [word for one in made if one["request"]["action"]["type"] == "reject_applicant" for word in ("--decision", one["decision_id"])]
    given = ["--query", "action_type = reject_applicant"] if by == "query" else bad
    inside.run("incident", "open", "--title", "All women rejected", *given, "--from", made[0]["created_at"], "--to", made[-1]["created_at"])
    told = facts(inside)
    factors = {row["factor"]: row for row in told["uncontrolled"]["factors"]}
    first = told["uncontrolled"]["factors"][0] if by == "query" else factors["evidence.gender"]
    assert first["factor"] == "evidence.gender" and first["separates"]["association"] > 0.95
    assert first["sets_apart"] == {"value": "f", "bad": 7, "of_bad": 7, "others": 0, "of_others": 44}
    assert {"evidence.score", "context.form"} <= set(factors) and factors["evidence.score"]["median"]
    assert told["uncontrolled"]["not_compared"] == ["context.note", "evidence.name"], "names are no explanation"
    assert ("action_type" in factors) == (by == "links")
    assert told["uncontrolled"]["named_by_query"] == (["action_type"] if by == "query" else [])
    row = {"factor": "evidence.gender", "value": "f", "others": 0, "of": 44, "named_by_query": False}
    assert row in told["evidence"]["common"][:2]
    text = inside.run("incident", "postmortem", "1").stdout
    recur = text.partition("## What would have to be true")[2].partition("## Action items")[0]
    assert "`evidence.gender = f` (0 of the 44 others of the time)" in recur and "= mail`" not in recur
    then = text.partition("Why then, and not before?")[2].partition("###")[0]
    assert "`evidence.gender` tells these" in then and "`f`: 7 of 7; of the others 0 of 44" in then
    assert ("`action_type` tells" in then) == (by == "links")
    assert ("Left out, since the incident's query names them: `action_type`." in text) == (by == "query")
    assert not re.search(r"Name \d|I am here", text), "a name or a text is not shown"


def test_what_is_redacted_is_compared_nowhere(inside: Inside) -> None:
    inside.write("lumyn.toml", '[privacy]\nredact = ["evidence.gender", "context.inline.form"]\n')
    made = hired(inside, **{"gender.of": "x", "order": {"gender": "kept"}})
    inside.run("incident", "open", "--title", "x", "--query", "action_type = reject_applicant", "--from", made[0]["created_at"])
    told = facts(inside)
    assert not any(row["factor"] in ("evidence.gender", "context.form") for row in told["uncontrolled"]["factors"])
    assert not any("gender" in row["factor"] for row in told["evidence"]["common"])
    assert "`evidence.gender" not in inside.run("incident", "postmortem", "1").stdout
    shown = inside.json("rate", "changes", "--from", made[20]["created_at"], "--bad", "action_type = reject_applicant", "--json")
    assert "evidence.gender" not in {row["factor"] for row in shown["factors"]} | set(shown["not_compared"])


def test_hostile_fields_of_a_request_are_bounded_and_stay_text(inside: Inside) -> None:
    for n in range(12):
        many = {f"k{n}_{at}": at for at in range(300)}
        evil = {PRINTABLE[:100]: PRINTABLE[:60] if n > 7 else "good", "z": {"a": {"b": {"c": {"d": 1}}}}}
        made = inside.decide({**refund(20, user=f"usr_{n}"), "evidence": evil | many, "context": {"mode": "inline", "inline": many}})
        if n > 7:
            sdk.label(made["decision_id"], "failure", actor="ann")
    inside.run("incident", "open", "--title", "x", "--query", "label = failure", "--from", "00:00")
    inside.run("incident", "postmortem", "1", "--out", "p.md", "--html", "p.html")
    told = facts(inside)["uncontrolled"]
    assert told["too_many_fields"] > 0 and len(told["factors"]) <= 8
    body = (inside.folder / "p.html").read_text().partition("<main>")[2]
    assert "script" in body and not re.search(r"<(script|img)", body) and not re.search('href="(?!https?:)', body)


def test_every_command_beside_a_figure_gives_it_again(inside: Inside, made: list[dict[str, Any]]) -> None:
    told = facts(inside)

    def again(command: str) -> Any:
        words = shlex.split(command)
        assert words[0] == "lumyn"
        return inside.json(*words[1:], "--json", code=None)

    assert len(again(told["impact"]["command"])) == 6
    for row in told["not_captured"]:
        assert len(again(row["command"])) == row["missing"]
    for name in ("before", "during", "since"):
        row, found = told["traffic"][name], again(told["traffic"][name]["command"])["event"]
        assert [row[key] for key in ("n", "events", "rate", "lower", "upper")] == [found[key] for key in ("n", "events", "rate", "lower", "upper")]
    changes = again(told["uncontrolled"]["command"])
    assert [one["factor"] for one in changes["factors"]][: len(told["uncontrolled"]["factors"])] == [
        one["factor"] for one in told["uncontrolled"]["factors"]
    ]
    reach = again(told["impact"]["reach"]["command"])
    assert reach["blast_radius"]["compared"] == told["impact"]["reach"]["compared"]
    assert len(reach["blast_radius"]["changes"]) == told["impact"]["reach"]["made_otherwise"]


def test_more_decisions_than_a_query_names_are_compared_by_the_incident(inside: Inside) -> None:
    made = [inside.decide(refund(20 + n, provenance={"system_fingerprint": f"fp_{n // 45}"})) for n in range(90)]
    late = [word for record in made[45:] for word in ("--decision", record["decision_id"])]
    times = ("--from", made[0]["created_at"], "--to", made[-1]["created_at"])
    inside.run("incident", "open", "--title", "Paid twice", *late, *times)
    told = facts(inside)["uncontrolled"]
    assert told["command"].endswith(" --incident INC-1")
    assert told["factors"][0]["factor"] == "provenance.system_fingerprint"
    assert told["factors"][0]["sets_apart"] == {"value": "fp_1", "bad": 45, "of_bad": 45, "others": 0, "of_others": 45}
    words = shlex.split(told["command"])[1:]
    for again in (words, ["rate", "changes", "--incident", "INC-1"], [*words, "--query", "action_type = refund"]):
        assert inside.json(*again, "--json")["factors"] == told["factors"]
    inside.run("incident", "edit", "1", "--query", "provenance.system_fingerprint = fp_9")  # finds none
    told = facts(inside)["uncontrolled"]
    assert told["linked"] == 45 and told["named_by_query"] == ["provenance.system_fingerprint"]
    assert told["window"]["events"] == 45 and told["window"]["n"] == 90
    assert "both say what is bad" in inside.refused("rate", "changes", "--incident", "1", "--bad", "label=failure", code=2)
    assert "`--from` is missing" in inside.refused("rate", "changes", code=2)
    assert "`--from` is missing" in inside.refused("rate", "changes", "--incident", "1", "--since", "2020-01-01", code=2)
    inside.run("incident", "open", "--title", "None yet")
    assert "INC-2 has no decisions" in inside.refused("rate", "changes", "--incident", "2", code=2)


def test_more_decisions_than_are_compared_are_said_with_the_command(
    inside: Inside, made: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lumyn.incidents.postmortem._MOST_COMPARED", 5)
    told = facts(inside)
    (gap,) = [gap for gap in told["unknown"] if "not compared here" in gap["what"]]
    assert gap["what"].startswith("With 6 decisions") and told["uncontrolled"] is None
    assert inside.json(*shlex.split(gap["command"])[1:], "--json")["window"]["events"] == 6


def test_an_interval_reckons_with_decisions_that_share_a_subject(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """All failures are one subject's: the interval is the wide one that the command beside it gives."""
    made = [inside.decide(refund(20 + n, user=f"usr_{n % 5}")) for n in range(20)]
    for record in made[::5]:
        sdk.label(record["decision_id"], "failure", summary="paid twice", should="DENY")
    inside.run("incident", "open", "--title", "x", "--query", "action_type = refund", "--from", made[0]["created_at"])
    row = facts(inside)["traffic"]["during"]
    found = inside.json(*shlex.split(row["command"])[1:], "--json", code=None)["event"]
    assert (row["lower"], row["upper"]) == (found["lower"], found["upper"]) and found["subjects"] == 5
    alone = rate_of(4, 20)
    assert row["lower"] < alone["lower"] and row["upper"] > alone["upper"] + 0.1
    assert "Decisions of one subject count as alike" in inside.run("incident", "postmortem", "1").stdout
    monkeypatch.setattr("lumyn.incidents.impact.MOST_BY_SUBJECT", 10)
    row = facts(inside)["traffic"]["during"]
    assert (row["lower"], row["upper"]) == (alone["lower"], alone["upper"]) and not row["by_subject"]
    text = inside.run("incident", "postmortem", "1").stdout
    assert "taken for independent" in text and "count as alike" not in text


def test_an_incident_without_decisions_says_what_is_missing(inside: Inside) -> None:
    inside.run("incident", "open", "--title", "Something odd")
    text = inside.run("incident", "postmortem", "INC-1").stdout
    assert "No decision belongs to this incident" in text and "was not run again" in text
    assert "Nothing watches for the second instance" in text and "None yet." in text
    assert "(when it was opened: it has no decisions, and none was given)" in text
    assert "its first decision, which" not in text and "is taken from when it was opened" in text
    inside.decide(refund(20))
    text = inside.run("incident", "postmortem", "INC-1").stdout
    assert "No decision was made since" not in text, "there is one; it has nothing to be compared with"
    assert not re.search(r"\bnan\b|None\b(?! yet)|Undefined", text)


def test_a_rate_is_told_with_its_interval_and_what_it_leaves_open(inside: Inside, made: list[dict[str, Any]]) -> None:
    inside.write("agent.py", "import json; print(json.dumps({'action': {'type': 'wait'}, 'provenance': {'model': 'm-2'}}))")
    name = made[6]["decision_id"]
    rate = inside.json("rate", "--decision", name, "--runs", 8, "--command", "python3 agent.py", "--json")
    inside.run("incident", "add", "1", "--rate", rate["rate_id"])
    told = facts(inside)
    assert told["rates"][0]["event"]["upper"] == rate["event"]["upper"] < 1
    gaps = " ".join(gap["what"] for gap in told["unknown"])
    assert "It was not reproduced: `refund` did not come in 8 runs" in gaps and "model differ" in gaps
    assert "was not run again" not in gaps
    needed, text = rate["event"]["needed"], inside.run("incident", "postmortem", "1").stdout
    assert needed["basis"] == "upper bound" and "runs are needed" not in text, "8 runs did not show it, and fewer would?"
    assert f"It was not seen; {needed['runs']} runs would show it with a chance of 95% if its rate were as high as" in text
    path = next((inside.home / "rates").glob("*.jsonl"))
    path.write_bytes(path.read_bytes().replace(b'"wait"', b'"refu"'))
    assert any("can't be used" in gap["what"] for gap in facts(inside)["unknown"]), "an edited sample is no evidence"


def test_a_linked_pack_that_was_changed_is_said(inside: Inside, made: list[dict[str, Any]]) -> None:
    inside.run("export", made[6]["decision_id"], "--pack", "--out", "p.zip")
    inside.run("incident", "add", "1", "--pack", "p.zip")
    assert not any("pack" in gap["what"] for gap in facts(inside)["unknown"])
    inside.write("p.zip", "other")
    assert any("is not the file that was linked" in gap["what"] for gap in facts(inside)["unknown"])


def test_what_was_changed_since_and_captured_since_is_told(inside: Inside, made: list[dict[str, Any]]) -> None:
    inside.run("kill-switch", "on", "--why", "stop it", "--action-type", "wire")
    inside.run("incident", "action", "1", "--text", "guard rail", "--state", "done")
    inside.run("incident", "monitor", "1", "--query", "label=failure", "--of", "action_type=refund", "--alert", "rate > 1%")
    inside.decide(refund(20, provenance={"model": "m-1", "tool_schema_hash": "sha256:aa"}))
    told = facts(inside)
    capture = told["capture"]
    assert (capture["new"], capture["lost"], capture["shifted"]) == (["tool_schema_hash"], ["system_fingerprint"], [])
    text = inside.run("incident", "postmortem", "1").stdout
    changed = text.partition("## What We Changed Anyway")[2].partition("## What would")[0]
    assert "kill switch" in changed and "stop it" in changed and "A1: guard rail" in changed and "inc-1.monitor1" in changed
    assert told["watches"][0]["alert"] == "rate > 1%" and "Nothing watches" not in text


def test_what_is_captured_no_more_or_less_often_is_told(inside: Inside, made: list[dict[str, Any]]) -> None:
    for n in range(30):
        model = {"model": "m-1"} if n % 6 == 0 else {}
        inside.decide(refund(20, provenance={**model, "system_fingerprint": "fp_3"}))
    capture = facts(inside)["capture"]
    assert (capture["later"], capture["new"], capture["lost"]) == (30, [], [])
    (row,) = capture["shifted"]
    assert (row["field"], row["then"], row["since"]) == ("model", [6, 6], [5, 30]) and 0 < row["p_adjusted"] < 0.01
    text = inside.run("incident", "postmortem", "1").stdout
    assert "| `model` | 6 of 6 | 5 of 30 | 0.00" in text and "as hard to investigate" in text


def test_one_decision_without_a_window_is_compared_with_the_day_before(inside: Inside) -> None:
    for n in range(20):
        inside.decide(applicant(n, gender="m"))
    bad = inside.decide(applicant(20, gender="f", kind="invite_applicant"))
    inside.run("incident", "open", "--title", "x", "--decision", bad["decision_id"])
    told = facts(inside)
    assert told["traffic"]["before"]["n"] == told["uncontrolled"]["before"]["n"] == 20
    assert told["window"]["compared_with"] == "the day before"
    start, since = (datetime.fromisoformat(told["window"][name]) for name in ("from", "compared_from"))
    assert start - since == timedelta(days=1) and told["uncontrolled"]["since"] == told["window"]["compared_from"]
    assert told["uncontrolled"]["factors"][0]["factor"] == "evidence.gender"
    text = inside.run("incident", "postmortem", "1").stdout
    assert "| the day before | 20 |" in text and "of the day before it (no window was given)" in text
    inside.run("incident", "edit", "1", "--from", bad["created_at"])
    assert facts(inside)["traffic"]["before"]["n"] == 0
    assert "| as long before | 0 |" in inside.run("incident", "postmortem", "1").stdout


@pytest.mark.parametrize("window", [[], ["--from", "2020-01-01"]])
def test_what_was_there_at_its_first_decision_was_not_changed_anyway(inside: Inside, window: list[str]) -> None:
    def changed() -> str:
        return inside.run("incident", "postmortem", "1").stdout.partition("## What We Changed Anyway")[2].partition("## What would")[0]

    inside.run("kill-switch", "on", "--why", "long before", "--action-type", "wire")
    name = inside.decide(refund(20))["decision_id"]
    inside.run("incident", "open", "--title", "x", "--decision", name, *window)
    assert "Nothing that the log or this incident knows of" in changed()
    inside.write("policy.yml", (inside.folder / "policy.yml").read_text().replace("4.1.0", "4.2.0"))
    close_homes()
    inside.decide(refund(20))
    assert "refunds&#64;4.2.0 first used, from a file" in changed() and "4.1.0" not in changed() and "long before" not in changed()


def test_a_first_use_that_was_noted_after_its_decision_was_asked_for_is_no_change() -> None:
    row = SimpleNamespace(policy="refunds", version="4.1.0", created_ms=1000)
    found = Decisions((row,), 0, None)  # type: ignore[arg-type]

    def since(version: str, origin: str, at_ms: int) -> bool:
        said = {"name": "refunds", "policy_version": version, "origin": origin}
        return bool(_changed(ControlChange(1, at_ms, "policy_published", "ann", "", said), found, 1000)["since"])

    assert not since("4.1.0", "file", 1005) and since("4.2.0", "file", 1005) and since("4.1.0", "publish", 1005)
    assert not since("4.2.0", "file", 999) and not since("4.2.0", "publish", 1000)


def test_decisions_of_one_millisecond_stand_in_the_order_of_the_log(inside: Inside) -> None:
    made = sdk.decide_many([refund(20 + n) for n in range(40)])
    assert len({one["created_at"] for one in made}) < 40, "else this shows nothing"
    inside.run("incident", "open", "--title", "x", "--query", "action_type = refund")

    def shown() -> list[str]:
        return [one["command"].split()[-1] for one in facts(inside)["timeline"]["moments"] if one["kind"] == "decision"]

    assert shown() == [one["decision_id"] for one in (*made[:29], made[-1])]
    sdk.label(made[37]["decision_id"], "failure", summary="paid twice")
    inside.run("incident", "add", "1", "--decision", made[35]["decision_id"])
    assert shown() == [one["decision_id"] for one in (*made[:27], made[35], made[37], made[-1])], "what it is about is there"
    assert facts(inside)["timeline"]["left_out"] == ["10 of 40 decisions"]
    for one in made[3:37]:
        sdk.label(one["decision_id"], "failure", summary="x")
    assert facts(inside)["timeline"]["left_out"][0] == "10 of 40 decisions, linked or labelled ones among them"


def test_what_a_runbook_measured_is_told(inside: Inside, made: list[dict[str, Any]]) -> None:
    answers = ("--answer", "scope=wire", "--answer", "why=double wires")
    inside.run("runbook", "run", "kill-switch", "--incident", "INC-1", "--yes", *answers)
    for text in (inside.run("incident", "show", "1").stdout, inside.run("incident", "postmortem", "1").stdout):
        assert re.search(r"kill-switch( \(run-\w+\))?, contained: done: kill switch .* no decision without it, 0 denied", text)
        assert re.search(r"kill-switch( \(run-\w+\))?, why: done: double wires", text)


def test_money_is_added_up_as_it_is_written(inside: Inside) -> None:
    for amount in (0.1, 0.2, 0.0004, 1234):
        inside.decide(refund(amount))
    inside.run("incident", "open", "--title", "x", "--query", "action_type = refund")
    (row,) = facts(inside)["impact"]["money"]
    assert (row["decisions"], row["total"]) == (4, 1234.3004)
    assert "| USD | 4 | 1,234.3004 | " in inside.run("incident", "postmortem", "1").stdout


def test_a_target_that_nothing_checks_is_said(inside: Inside, made: list[dict[str, Any]]) -> None:
    inside.run("incident", "action", "1", "--text", "fewer", "--target", "from 5% to under 1%")
    assert "| from 5% to under 1% | nothing yet |" in inside.run("incident", "postmortem", "1").stdout


def test_what_was_written_in_the_file_or_by_command_stays(inside: Inside, made: list[dict[str, Any]]) -> None:
    inside.run("incident", "write", "1", "--section", "why1", "--text", "The provider changed.\n\n\n- it <b>did</b>")
    inside.run("incident", "postmortem", "1", "--out", "p.md")
    path = inside.folder / "p.md"
    first = path.read_text()
    assert "The provider changed.\n\n\n- it &lt;b>did&lt;/b>" in first
    path.write_text(first.replace("_What happened, in a few", "We paid twice, in <i>a</i> few").replace("Why?_", "Why?_", 1))
    done = inside.run("incident", "postmortem", "1", "--out", "p.md")
    assert "kept from p.md: summary" in done.stderr
    sections = Incidents(operator_home()).show("1").sections
    assert sections["summary"].text.startswith("We paid twice, in <i>a</i> few") and set(sections) == {"why1", "summary"}
    second = path.read_text()
    inside.run("incident", "postmortem", "1", "--out", "p.md")
    steady = [line for line in path.read_text().splitlines() if "made |" not in line and "| since |" not in line]
    assert steady == [line for line in second.splitlines() if "made |" not in line and "| since |" not in line]
    assert "We paid twice" in second and "The provider changed." in second

    path.write_text(second.replace("The provider changed.", "By hand."))
    inside.run("incident", "write", "1", "--section", "why1", "--text", "By command.")
    assert "edited in the file and written" in inside.refused("incident", "postmortem", "1", "--out", "p.md", code=2)
    inside.run("incident", "postmortem", "1", "--out", "p.md", "--keep", "file")
    assert Incidents(operator_home()).show("1").sections["why1"].text.startswith("By hand.")
    for broken in (second.replace("<!-- lumyn:end why1 -->", ""), second.replace("INC-1 why1", "INC-2 why1")):
        path.write_text(broken)
        inside.refused("incident", "postmortem", "1", "--out", "p.md", code=2)
        assert path.read_text() == broken, "a file that is not understood is not written over"


HOSTILE = "<script>alert(1)</script> [x](javascript:alert(1)) ![y](http://e.example/z) | `a` **b** <!-- lumyn:end why1 --> \x1b[2J ‮ <img src=x onerror=alert(1)>"
PRINTABLE = "".join(filter(str.isprintable, HOSTILE))


def test_hostile_text_in_every_field_stays_text(inside: Inside) -> None:
    name = inside.decide(
        {**refund(20, user=PRINTABLE, provenance={"model": HOSTILE, HOSTILE[:60]: HOSTILE}), "action": {"type": PRINTABLE, "intent": HOSTILE}}
    )["decision_id"]
    sdk.label(name, "failure", summary=HOSTILE, actor=HOSTILE)
    incidents = Incidents(operator_home(), actor=HOSTILE)
    incidents.open(HOSTILE[:150], summary=HOSTILE, decisions=[name], query=f"subject_id = '{PRINTABLE}'")
    incidents.note("1", HOSTILE)
    incidents.action("1", text=HOSTILE, owner=HOSTILE)
    incidents.write("1", "cause", HOSTILE.replace("<!-- lumyn:end why1 -->", "") + "\n[ok](https://ok.example)")
    inside.run("kill-switch", "on", "--why", HOSTILE, "--action-type", "wire")
    done = inside.run("incident", "postmortem", "1", "--out", "p.md", "--html", "p.html")
    inside.run("incident", "postmortem", "1", "--out", "p.md")
    page, text = (inside.folder / "p.html").read_text(), (inside.folder / "p.md").read_text()
    body = page.partition("<main>")[2]
    assert set(re.findall(r"<(\w+)", body)) <= {
        "h1", "h2", "h3", "p", "em", "strong", "code", "table", "thead", "tbody", "tr", "th", "td", "div", "ul", "li", "a",
    }  # fmt: skip
    assert set(re.findall(r'href="([^"]*)"', body)) == {"https://ok.example", "http://e.example/z"}, "links that somebody wrote, no image"
    assert not re.search(r"<(script|img)", text.replace("`", "")) or "<script" not in re.sub(r"`+[^`]*`+", "", text)
    for told in (done.stdout, done.stderr, page, text, inside.run("incident", "show", "1").stdout):
        assert "\x1b" not in told and "\u202e" not in told
    inside.run("incident", "list")
    assert "alert" in inside.run("incident", "search", "script").stdout


@settings(max_examples=80)
@given(st.text(max_size=60))
@example("[x](https://e.example)")
@example("https://e.example <a@e.example>")
def test_any_text_is_one_cell_without_tags_or_links(text: str) -> None:
    for told in (plain(text), code(text)):
        assert "\n" not in told
        body = as_html(f"| a | b |\n|---|---|\n| {told} | end |\n", "t").partition("<main>")[2]
        assert body.count("<td") == 2 and '<td data-h="b">end</td>' in body
        assert set(re.findall(r"<(\w+)", body)) <= {"div", "table", "thead", "tbody", "tr", "th", "td", "code"}
    kept = text.replace("&lt;", "").replace("\t", " ")
    if kept.isprintable():
        assert unwritten(written(kept)) == kept


def test_tickets_are_the_action_items_and_no_formula_comes_out_of_them(inside: Inside, made: list[dict[str, Any]]) -> None:
    texts = ["=HYPERLINK(\"http://e\")", "+1", "-1+2", "@SUM(A1)", "plain, \"quoted\"\nline", " =1"]
    for text in texts:
        inside.run("incident", "action", "1", "--text", text, "--owner", text)
    rows = inside.json("incident", "export", "1", "--tickets", "json")
    assert [row["key"] for row in rows] == [f"INC-1/A{n}" for n in range(1, 7)]
    inside.run("incident", "export", "1", "--tickets", "csv", "--out", "t.csv")
    cells = list(csv.reader(io.StringIO((inside.folder / "t.csv").read_bytes().decode(), newline="")))
    assert len(cells) == 7 and {len(row) for row in cells} == {11}
    assert not any(cell.lstrip().startswith(("=", "+", "-", "@")) for row in cells for cell in row)
    assert cells[5][4].startswith('plain, "quoted"') and as_csv(rows)


@pytest.fixture
def hook() -> Iterator[Any]:
    """A receiver that keeps what it got, and answers what it is told to."""

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.got.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            code = server.answers.pop(0) if server.answers else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server: Any = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.answers = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_signed_tickets_once_more_where_that_helps_and_no_redirect_is_followed(
    inside: Inside, made: list[dict[str, Any]], hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lumyn.incidents import tickets

    monkeypatch.setattr(tickets.time, "sleep", lambda seconds: None)
    inside.run("incident", "action", "1", "--text", "fix it")
    url = f"http://127.0.0.1:{hook.server_port}/t?x=1"
    send = ("incident", "export", "1", "--tickets", "webhook", "--url", url)
    assert "LUMYN_WEBHOOK_SECRET" in inside.refused(*send, code=2)
    monkeypatch.setenv("LUMYN_WEBHOOK_SECRET", "s3cret")
    hook.answers[:] = [503]
    assert inside.json(*send, "--json") == {"sent": 1, "tries": 2}
    (first, body), (second, again) = hook.got
    assert body == again and first["Idempotency-Key"] == second["Idempotency-Key"]
    time_s = second["X-Lumyn-Signature"].partition(",")[0][2:]
    mac = hmac.new(b"s3cret", f"{time_s}.".encode() + body, hashlib.sha256).hexdigest()
    assert second["X-Lumyn-Signature"] == f"t={time_s},v1={mac}" == signature("s3cret", int(time_s), body)
    assert json.loads(body)["tickets"][0]["key"] == "INC-1/A1"
    for answers, tries in (([302], 1), ([400], 1), ([500, 500, 500], 3)):
        hook.got.clear()
        hook.answers[:] = answers
        inside.run(*send, code=4)
        assert len(hook.got) == tries
    for wrong in ("http://example.com/x", "https://u:p@example.com/", "ftp://x/", "https://", "https://a b/"):
        inside.refused("incident", "export", "1", "--tickets", "webhook", "--url", wrong, code=2)


def test_bad_cases_become_samples_with_what_the_agent_was_given_and_what_was_right(inside: Inside, made: list[dict[str, Any]]) -> None:
    chat = [{"role": "user", "content": "where is my money"}]
    talked = inside.decide(refund(25, context={"mode": "inline", "inline": {"messages": chat}}))
    sdk.label(talked["decision_id"], "success", summary="right")
    inside.run("incident", "add", "1", "--decision", talked["decision_id"])
    told = inside.json("incident", "export", "1", "--eval", "e.jsonl", "--json")
    assert (told["samples"], told["unlabelled"]) == (4, 3)
    lines = [json.loads(line) for line in (inside.folder / "e.jsonl").read_text().splitlines()]
    by_id = {line["id"]: line for line in lines}
    bad = by_id[made[6]["decision_id"]]
    assert bad["target"] == "DENY" and bad["metadata"]["target_from"] == "should"
    assert json.loads(bad["input"]) == {name: made[6]["request"][name] for name in ("subject", "evidence", "context")}
    assert by_id[talked["decision_id"]]["input"] == chat and by_id[talked["decision_id"]]["target"] == talked["verdict"]
    assert all(set(line) == {"id", "input", "target", "metadata"} for line in lines)


def test_no_sample_says_what_nobody_said(inside: Inside) -> None:
    """A bare failure of an ESCALATE may mean either; with `should`, or as a success, it is a sample."""
    waited, asked, right = (inside.decide(refund(900, user=f"u{n}")) for n in range(3))
    assert {one["verdict"] for one in (waited, asked, right)} == {"ESCALATE"}
    sdk.label(waited["decision_id"], "failure", summary="waited for nothing, or should have been denied")
    sdk.label(asked["decision_id"], "failure", summary="no need to ask", should="ALLOW")
    sdk.label(right["decision_id"], "success", summary="good that it asked")
    inside.run("incident", "open", "--title", "x", "--query", "action_type = refund")
    done = inside.run("incident", "export", "1", "--eval", "e.jsonl", "--json")
    assert json.loads(done.stdout)["unsaid"] == 1 and "nobody said what would have been right" in done.stderr
    lines = [json.loads(line) for line in (inside.folder / "e.jsonl").read_text().splitlines()]
    assert {line["id"]: line["target"] for line in lines} == {asked["decision_id"]: "ALLOW", right["decision_id"]: "ESCALATE"}


def test_a_forgotten_subjects_words_are_in_no_postmortem_and_no_eval_set(
    inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUMYN_ENCRYPT_SUBJECTS", "true")
    made = inside.decide({**refund(20, user="usr_gone"), "action": {"type": "refund", "intent": "my secret word is xyzzy"}})
    sdk.label(made["decision_id"], "failure", summary="xyzzy again", should="DENY")
    inside.run("incident", "open", "--title", "sealed", "--decision", made["decision_id"])
    inside.run("incident", "postmortem", "1", "--out", "p.md")
    assert "usr_gone" not in (inside.home / "incidents.db").read_bytes().decode("latin-1")
    done = inside.run("incident", "export", "1", "--eval", "e.jsonl")
    assert "forgetting will not reach this file" in done.stderr
    inside.run("memory", "forget", "--subject", "user:usr_gone", "--why", "asked", "--apply", code=None)
    told = facts(inside)
    if any("forgotten" in gap["what"] for gap in told["unknown"]):
        assert "xyzzy" not in json.dumps(told) and told["uncontrolled"]["unreadable"] == 1
        assert inside.json("incident", "export", "1", "--eval", "e.jsonl", "--json")["samples"] == 0
    else:
        pytest.fail(f"the subject was not forgotten: {[gap['what'] for gap in told['unknown']]}")
