"""Runbooks: each step asked, done and recorded; a dry run changes nothing, an aborted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest_e2e import refund
from inside import Inside

from lumyn import sdk
from lumyn.incidents import Incidents
from lumyn.runbooks.book import ALLOWED
from lumyn.runbooks.reading import read_runbook, runbook_named
from lumyn.wiring import existing_home, operator_home
from schemas.errors import NotFound, RunbookInvalid
from streams.taking_hold import took_hold

pytest_plugins = ("inside_plugin",)

BAD = ("--answer", "query=label=failure", "--answer", "why=bad import")


def log_state(inside: Inside) -> tuple[str, ...]:
    """Digests of all that was ever said in the log and of the incidents; and the jobs that were begun."""
    log = existing_home().log
    topics = ("requests", "records", "receipts", "labels", "control", "label-requests", "label-receipts")
    out = []
    for topic in topics:
        digest = hashlib.sha256()
        for partition in range(log.partitions(topic)):
            for message in log.read(topic, partition, 0, 10_000):
                digest.update(message.value)
        out.append(digest.hexdigest())
    out.append(str([len(one.events) for one in Incidents(operator_home()).list()]))
    return (*out, str(sorted(path.name for path in inside.home.glob("jobs/*"))))


def labelled(inside: Inside, count: int = 2) -> list[str]:
    names = [str(inside.decide(refund(20 + n))["decision_id"]) for n in range(count)]
    for name in names:
        sdk.label(name, "failure", summary="imported")
    inside.run("incident", "open", "--title", "bad import")
    return names


def steps(number: str = "INC-1") -> dict[str, str]:
    return {step.step: step.state for step in Incidents(operator_home()).show(number).steps}


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("kill-switch", ("--answer", "scope=refund", "--answer", "why=x")),
        ("policy-rollback", ("--answer", "policy=refunds", "--answer", "why=x")),
        ("bad-data", (*BAD, "--answer", "how=relabel")),
        ("bad-data", (*BAD, "--answer", "outcome=undo")),
        ("bad-data", ("--answer", "how=rollback", "--answer", "version=1")),
        ("bad-data", ()),
    ],
)
def test_a_dry_run_shows_every_step_and_changes_nothing(inside: Inside, name: str, answers: tuple[str, ...]) -> None:
    labelled(inside)
    inside.run("list")  # indexes are derived: they may be filled
    before = log_state(inside)
    done = inside.run("runbook", "run", name, "--incident", "INC-1", "--dry-run", *answers)
    assert log_state(inside) == before
    assert "(dry run: not done)" in done.stderr and "nothing was changed" in done.stdout


def test_the_kill_switch_is_put_on_measured_and_recorded(inside: Inside) -> None:
    labelled(inside)
    told = inside.json("runbook", "run", "kill-switch", "--incident", "INC-1", "--yes", "--answer", "scope=refund",
                       "--answer", "why=double refunds", "--json")  # fmt: skip
    assert told["ended"] and inside.decide(refund(30))["reason_codes"] == ["KILL_SWITCH"]
    assert inside.decide({**refund(30), "action": {"type": "reply"}})["reason_codes"] != ["KILL_SWITCH"]
    one = Incidents(operator_home()).show("INC-1")
    assert one.status == "contained" and one.refs("kill-switch")
    assert set(steps().values()) == {"done"}
    assert [step.state for step in one.steps if step.step == "stop"] == ["begun", "done"]
    contained = next(step for step in one.steps if step.step == "contained")
    assert "no decision without it" in contained.text


def test_a_policy_goes_back_and_its_last_decision_by_the_other_is_measured(inside: Inside) -> None:
    labelled(inside)
    source = (inside.folder / "policy.yml").read_text()
    inside.run("policy", "publish", "policy.yml")
    inside.run("policy", "activate", "refunds@4.1.0")
    inside.write("new.yml", source.replace("4.1.0", "4.2.0").replace("gt: 250", "gt: 5"))
    inside.run("policy", "publish", "new.yml")
    inside.run("policy", "activate", "refunds@4.2.0")
    inside.run("runbook", "run", "policy-rollback", "--incident", "1", "--yes", "--answer", "policy=refunds",
               "--answer", "why=too strict")  # fmt: skip
    control = existing_home().agent.control()
    assert control.active_policy("refunds").version == "4.1.0"  # type: ignore[union-attr]
    one = Incidents(operator_home()).show("1")
    assert one.refs("policy") == ["refunds@4.1.0"]
    assert "refunds@4.1.0, active since" in next(step.text for step in one.steps if step.step == "reached")
    inside.run("runbook", "run", "policy-rollback", "--incident", "1", "--yes", "--answer", "policy=refunds",
               "--answer", "why=x", "--answer", "version=4.2.0")  # fmt: skip
    assert existing_home().agent.control().active_policy("refunds").version == "4.2.0"  # type: ignore[union-attr]


def test_decisions_by_another_version_after_an_activation_are_counted_with_the_last_ones_time(inside: Inside) -> None:
    first = inside.decide(refund(20))
    time.sleep(0.005)
    second = inside.decide(refund(21))
    log = existing_home().log
    from schemas.ids import time_ms_of

    since = time_ms_of(first["created_at"]) - 1
    figure = took_hold(log, "refunds", "sha256:another", since)
    assert (figure.by_other, figure.by_it, figure.last) == (2, 0, second["decision_id"])
    assert figure.seconds == pytest.approx((time_ms_of(second["created_at"]) - since) / 1000, abs=0.05)
    assert took_hold(log, "refunds", second["policy"]["hash"], since).by_it == 2
    assert took_hold(log, "other", "x", since).by_other == 0


@pytest.mark.parametrize("how", ["relabel", "quarantine", "rollback"])
def test_bad_data_is_found_taken_back_and_undone(inside: Inside, how: str) -> None:
    labelled(inside)
    assert inside.decide(refund(20))["verdict"] == "DENY", "the wrong labels block"
    run = ("runbook", "run", "bad-data", "--yes", *BAD, "--answer", f"how={how}", "--answer", "version=0",
           "--incident", "1")  # fmt: skip
    inside.run(*run, "--answer", "outcome=undo")
    assert inside.decide(refund(20))["verdict"] == "DENY", "undone, it is as before"
    inside.run(*run)
    assert inside.decide(refund(20))["verdict"] == "ALLOW"
    jobs = Incidents(operator_home()).show("1").refs("job")
    assert [job.partition("-")[0] for job in jobs] == [how, "undo", how]


def test_a_run_whose_step_fails_stops_there_and_goes_on_where_it_stopped(inside: Inside) -> None:
    labelled(inside)
    inside.write("mine.yml", MINE)
    done = inside.run("runbook", "run", "mine.yml", "--incident", "1", "--yes", "--answer", "name=nobody", code=2)
    assert "stopped at look: failed exit 2" in done.stdout and steps()["look"] == "failed"
    inside.run("policy", "publish", "policy.yml")
    (inside.folder / "mine.yml").write_text(MINE.replace('"{name}"', "refunds"))
    told = inside.json("runbook", "run", "mine.yml", "--incident", "1", "--yes", "--resume", "--json",
                       "--answer", "name=nobody")  # fmt: skip
    assert [step["step"] for step in told["steps"]] == ["look", "last"], "what was done is not done again"
    assert [note.text for note in Incidents(operator_home()).show("1").notes] == ["first", "of nobody"]
    inside.refused("runbook", "run", "mine.yml", "--incident", "1", "--yes", "--resume", "--answer", "name=x", code=2)


MINE = """\
runbook: mine
title: mine
steps:
  - id: first
    command: [incident, note, "1", first]
  - id: name
    ask: Which?
  - id: look
    command: [policy, show, "{name}"]
  - id: last
    command: [incident, note, "1", "of {name}"]
"""


def test_a_step_that_was_begun_and_may_have_been_done_is_not_done_again_unasked(inside: Inside) -> None:
    labelled(inside)
    inside.write("mine.yml", MINE)
    incidents = Incidents(operator_home())
    incidents.step("1", run="run-1", runbook="mine", step="first", state="begun")
    run = ("runbook", "run", "mine.yml", "--incident", "1", "--yes", "--resume", "--answer", "name=refunds")
    done = inside.run(*run, code=1)
    assert "--answer first=again" in done.stdout and incidents.show("1").notes == ()
    inside.run("policy", "publish", "policy.yml")
    inside.run(*run, "--answer", "first=again")
    assert [note.text for note in incidents.show("1").notes] == ["first", "of refunds"]


def test_without_a_terminal_yes_and_all_answers_are_needed_before_anything_is_done(inside: Inside) -> None:
    labelled(inside)
    before = log_state(inside)
    assert "no terminal" in inside.refused("runbook", "run", "kill-switch", "--incident", "1", code=2)
    assert "no answer to scope, why" in inside.refused("runbook", "run", "kill-switch", "--yes", code=2)
    inside.refused("runbook", "run", "kill-switch", "--yes", "--answer", "none=x", code=2)
    inside.refused("runbook", "run", "kil-switch", "--yes", code=2)
    assert log_state(inside) == before


@pytest.mark.parametrize(("name", "told"), [("outcome", "maybe"), ("outcome", "-x"), ("how", "burn")])
def test_an_answer_that_a_later_step_can_t_take_is_refused_before_anything_is_done(
    inside: Inside, name: str, told: str
) -> None:
    labelled(inside)
    before = log_state(inside)
    run = ("runbook", "run", "bad-data", "--yes", *BAD, "--answer", "how=relabel", "--answer", f"{name}={told}")
    assert f"`{told}` is no answer to `{name}`" in inside.refused(*run, code=2)
    assert log_state(inside) == before


@pytest.mark.parametrize("scope", ["--help", "-x", "  ", "\x1b[2J"])
def test_an_answer_can_be_no_option_and_no_escape(inside: Inside, scope: str) -> None:
    labelled(inside)
    done = inside.run("runbook", "run", "kill-switch", "--yes", "--answer", f"scope={scope}", "--answer", "why=x", code=None)
    assert "\x1b" not in done.stdout + done.stderr
    if scope != "\x1b[2J":
        assert done.code == 2 and not existing_home().agent.control().switches


def test_an_answer_within_a_querys_quotes_stays_there(inside: Inside) -> None:
    labelled(inside)
    done = inside.run("runbook", "run", "kill-switch", "--dry-run", "--answer", "scope=x' OR verdict='ALLOW", "--answer", "why=y")
    assert "query: action_type = 'x'' OR verdict=''ALLOW'" in done.stderr and "no decisions found" in done.stderr


def test_at_a_terminal_each_step_is_asked_and_an_aborted_run_can_be_gone_on_with(inside: Inside) -> None:
    labelled(inside)
    command = [sys.executable, "-m", "lumyn", "runbook", "run", "kill-switch", "--incident", "1"]
    told, code = at_terminal(command, inside.folder, ["y", "refund", "s", "a reason", "n"])
    assert code == 1 and "[y]es, [n]o, [s]kip, [a]bort" in told
    assert steps() == {"look": "done", "scope": "done", "seen": "skipped", "why": "done", "stop": "aborted"}
    assert not existing_home().agent.control().switches
    told, code = at_terminal([*command, "--resume"], inside.folder, ["y", "y"])
    assert code == 0, told
    assert [switch.why for switch in existing_home().agent.control().switches] == ["a reason"]


def at_terminal(command: list[str], folder: Path, lines: list[str]) -> tuple[str, int]:
    """Run a command at a pseudo-terminal, each line given when a question stands there."""
    parent, child = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, cwd=folder, env=environment)
    os.close(child)
    seen, waiting = "", list(lines)
    while True:
        try:
            data = os.read(parent, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data.decode(errors="replace")
        if seen.endswith(": ") and waiting:
            os.write(parent, waiting.pop(0).encode() + b"\n")
            seen += " "
    os.close(parent)
    return seen, process.wait(timeout=60)


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "r.yml"
    path.write_text(text)
    with pytest.raises(RunbookInvalid) as raised:
        read_runbook(path)
    return [problem.removeprefix(f"{tmp_path}/") for problem in raised.value.problems]


def test_all_that_is_wrong_with_a_runbook_is_said_with_its_place(tmp_path: Path) -> None:
    assert problems(tmp_path, """\
runbook: Mine
titel: x
steps:
  - id: one
    command: [sh, -c, "rm -rf /"]
  - id: one
    comand: [list]
  - id: two
    command: [list, --query, "{nothing}"]
  - id: three
    ask: a
    confirm: b
  - id: four
    command: [kill-switch, status]
    keep: {x: y}
  - id: five
    wait_until: {measure: policy}
  - say: hello
""") == [
        "r.yml:1:1: `title` is missing",
        "r.yml:1:10: `runbook` `Mine` is not small letters, digits and `-`",
        "r.yml:2:1: unknown key `titel`; did you mean `title`?",
        "r.yml:5:14: a runbook can't run `lumyn sh -c`" + allowed(),
        "r.yml:6:5: a step has `say` or one of `ask`, `confirm`, `command` or `wait_until`",
        "r.yml:6:5: `one` is taken already",
        "r.yml:7:5: unknown key `comand`; did you mean `command`?",
        "r.yml:9:30: `command`: nothing before this step gives `{nothing}`",
        "r.yml:12:5: a step does one thing: `ask` or `confirm`",
        "r.yml:15:5: `keep` reads the command's JSON: give the command `--json`",
        "r.yml:17:17: `of` is missing: which switch or policy",
        "r.yml:18:5: a step has an `id`",
    ]  # fmt: skip


def allowed() -> str:
    from streams.policy.suggest import listed

    return f"; allowed: {listed([' '.join(name) for name in ALLOWED])}"


@pytest.mark.parametrize("number", ["1.5", "1e12", "soon", "[1]"])
def test_a_count_is_a_whole_number(tmp_path: Path, number: str) -> None:
    (said,) = problems(tmp_path, f"runbook: x\ntitle: y\nsteps:\n  - {{id: a, command: [list], expect: [{number}]}}\n")
    assert said.startswith("r.yml:4:") and "`expect`" in said
    (said,) = problems(tmp_path, f"""\
runbook: x
title: y
steps:
  - id: a
    wait_until: {{query: "verdict = DENY", at_most: {number}}}
""")
    assert said.startswith("r.yml:5:") and "`at_most`" in said


@pytest.mark.parametrize(
    "command", ["[dev]", "[rate, --command, 'rm -rf /']", "[memory, forget, x]", "[keys, create]", "[lumyn, list]", "[policy, '{x}']",
                "[decide, x]", "['']", "[]", "['list; rm']", "[runbook, run, x]", "[export, x]"],
)  # fmt: skip
def test_no_runbook_runs_what_is_not_allowed(tmp_path: Path, command: str) -> None:
    path = tmp_path / "r.yml"
    path.write_text(f"runbook: x\ntitle: y\nsteps:\n  - {{id: x, ask: which}}\n  - {{id: a, command: {command}}}\n")
    with pytest.raises(RunbookInvalid):
        read_runbook(path)


def test_every_allowed_command_is_one_that_there_is() -> None:
    import typer

    from lumyn.cli.app import app

    root: Any = typer.main.get_command(app)
    for name in ALLOWED:
        found = root
        for word in name:
            found = found.commands[word]
        assert not hasattr(found, "commands") or found.invoke_without_command, name


def test_shipped_runbooks_read_and_a_teams_own_come_first(inside: Inside) -> None:
    for name in ("kill-switch", "policy-rollback", "bad-data"):
        assert runbook_named(name, inside.home).name == name
    (inside.home / "runbooks").mkdir(parents=True)
    (inside.home / "runbooks" / "kill-switch.yml").write_text(MINE.replace("mine", "kill-switch", 1))
    assert runbook_named("kill-switch", inside.home).title == "mine"
    assert [row["name"] for row in inside.json("runbook", "list", "--json")] == ["bad-data", "kill-switch", "policy-rollback"]
    with pytest.raises(NotFound):
        runbook_named("none", inside.home)
    assert "changes lumyn" in inside.run("runbook", "show", "bad-data").stdout
    assert json.loads(json.dumps(inside.json("runbook", "show", "bad-data", "--json")))["name"] == "bad-data"
