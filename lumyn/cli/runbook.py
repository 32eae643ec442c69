"""`lumyn runbook`: what to do at 3 AM, step by step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import clean, one_line, out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.runbooks.book import Runbook, Step
    from lumyn.runbooks.running import Choice

app = typer.Typer(
    help="Go through what is to be done in an incident, step by step.", no_args_is_help=True, rich_markup_mode=None
)
_JSON = typer.Option(False, "--json", help="Print as JSON.")
_NAME = typer.Argument(..., metavar="NAME | FILE.yml", help="A runbook, or a file of your own.")


@app.command("list")
def list_(json_: bool = _JSON) -> None:
    """List the runbooks: the shipped ones, and those in `runbooks/` of LUMYN_HOME.

    \b
    Example: lumyn runbook list
    """
    from lumyn.config import resolve
    from lumyn.runbooks.reading import read_runbook, runbooks

    found = [(name, read_runbook(path)) for name, path in runbooks(resolve().home)]
    if json_:
        out_json([{"name": name, "title": book.title, "steps": len(book.steps)} for name, book in found])
    else:
        out(table(("runbook", "steps", ""), [(name, str(len(book.steps)), book.title) for name, book in found]))


@app.command("show")
def show(name: str = _NAME, json_: bool = _JSON) -> None:
    """Show a runbook's steps; a file is checked: all errors at once, with line and column.

    \b
    Example: lumyn runbook show bad-data
    """
    from dataclasses import asdict

    book = _book(name)
    if json_:
        out_json(asdict(book))
        return
    out(one_line(f"{book.name}: {book.title}"))
    for number, step in enumerate(book.steps, start=1):
        what = step.ask or step.confirm or " ".join(("lumyn", *step.command) if step.command else ())
        if step.wait is not None:
            what = f"wait until {step.wait.measure} {step.wait.of}, at most {step.wait.within_s:g} s"
        mark = "changes " if step.changes else ""
        when = "".join(f" (when {key} is {value})" for key, value in step.when.items())
        when += "".join(f" (unless {key} is {value})" for key, value in step.unless.items())
        out(one_line(f"{number:>2}. {step.id}{when}: {mark}{what or step.say.strip()}"))


def _book(name: str) -> Runbook:
    from lumyn.config import resolve
    from lumyn.runbooks.reading import runbook_named

    return runbook_named(name, resolve().home)


@app.command("run")
def run(
    name: str = _NAME,
    incident: str | None = typer.Option(None, "--incident", metavar="INC-N", help="Where each step is recorded."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Show what would be done; nothing is changed or recorded."),
    yes: bool = typer.Option(False, "--yes", help="Do every step without asking."),
    answer: list[str] = typer.Option([], "--answer", metavar="STEP=TEXT", help="The answer to a step's question."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the incident's run that was broken off."),
    json_: bool = _JSON,
) -> int:
    """Go through a runbook. On a terminal each step is asked: y does it, n and a abort, s skips it.

    \b
    Examples: lumyn runbook run kill-switch --incident INC-7
              lumyn runbook run bad-data --dry-run --answer query="label=failure" --answer why="bad import"
              lumyn runbook run policy-rollback --incident INC-7 --yes --answer policy=refunds --answer why="too strict"
    A run that was aborted, or whose step failed, can be gone on with: `--resume`. Exit 0: gone through to its end;
    otherwise the exit code of the step that failed, or 1 where it was aborted.
    """
    from lumyn.cli.in_process import run_in_process
    from lumyn.incidents import Incidents
    from lumyn.runbooks.running import Running, broken_off
    from lumyn.wiring import existing_home
    from schemas.errors import NotFound, UsageError

    book = _book(name)
    answers = _answers(answer, book)
    present = sys.stdin.isatty() and not yes
    if not present and not dry_run:
        if not yes:
            raise UsageError("there is no terminal to ask at", help="`--yes` does every step, `--dry-run` shows them")
        _check_answered(book, answers, incident is not None)
    incidents = Incidents(existing_home())
    one = incidents.show(incident) if incident is not None else None
    before = None
    if resume:
        if one is None:
            raise UsageError("`--resume` needs the `--incident` that the run is recorded in")
        before = broken_off(one, book.name)
        if before is None:
            raise NotFound(f"no run of {book.name} was broken off in {one.id}")
    elif one is None and not dry_run:
        say("without --incident nothing is recorded, and an aborted run can't be gone on with")
    person = _Terminal(answers) if present else _Given(answers)
    running = Running(book, person, incidents, one, command=run_in_process, dry=dry_run, run=before)
    say(one_line(f"{book.title}{' (dry run)' if dry_run else ''}"))
    result = running.go()
    if json_:
        out_json({"run": result.run, "ended": result.ended, "dry_run": dry_run, "steps": result.steps})
    elif not result.ended:
        last = result.steps[-1]
        out(one_line(f"{result.run}: stopped at {last['step']}: {last['state']} {last['text']}".rstrip()))
        if one is not None and not dry_run:
            say(f"`lumyn runbook run {book.name} --incident {one.id} --resume` goes on")
    else:
        out(f"{result.run}: done" if not dry_run else "dry run: nothing was changed")
    return result.code


def _answers(given: list[str], book: Runbook) -> dict[str, str]:
    from schemas.errors import UsageError

    names = {step.id for step in book.steps}
    answers: dict[str, str] = {}
    for one in given:
        name, is_there, text = one.partition("=")
        if not is_there or name not in names:
            raise UsageError(f"`--answer {one[:60]}`: {book.name} has no step `{name[:40]}`", help="STEP=TEXT")
        answers[name] = text
    return answers


def _check_answered(book: Runbook, answers: Mapping[str, str], with_incident: bool) -> None:
    """Before anything is done: whether every question that will come has an answer that it can take."""
    from lumyn.runbooks.book import passes_over
    from lumyn.runbooks.running import answer_to
    from schemas.errors import UsageError

    known: dict[str, str] = {}
    missing = []
    for step in book.steps:
        if passes_over(step, known) or (step.with_incident and not with_incident) or step.ask is None:
            continue
        told = answers.get(step.id) or step.default
        if told is None:
            missing.append(step.id)
        elif step.id in answers:
            told = answer_to(step, told, step.default or "")
        known[step.id] = told or ""
    if missing:
        asked = " ".join(f"--answer {name}=..." for name in missing)
        raise UsageError(f"no answer to {', '.join(missing)}", help=asked)


class _Terminal:
    """Somebody at a terminal; talk goes to stderr."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def tell(self, text: str) -> None:
        say(text)

    def choose(self, _step: Step, question: str, /) -> Choice:
        choices: tuple[Choice, ...] = ("yes", "no", "skip", "abort")
        known = {word: choice for choice in choices for word in (choice, choice[0])}
        while True:
            told = _read(f"{question} [y]es, [n]o, [s]kip, [a]bort: ")
            if told is None:
                return "abort"
            if told.strip().lower() in known:
                return known[told.strip().lower()]

    def answer(self, step: Step, question: str, /) -> str | None:
        if step.id in self._answers:
            say(f"{question} {self._answers[step.id]}")
            return self._answers[step.id]
        hint = f" ({', '.join(step.choices)})" if step.choices else ""
        default = f" [{step.default}]" if step.default is not None else ""
        while True:
            told = _read(f"{question}{hint}{default}: ")
            if told is None:
                return None
            text = " ".join(told.split()) or step.default or ""
            if text and not text.startswith("-") and (not step.choices or text in step.choices):
                return text

    def may_repeat(self, _step: Step, /) -> bool:
        return True


class _Given:
    """Nobody: what was answered beforehand. In a dry run, what was not is left open."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def tell(self, text: str) -> None:
        say(text)

    def choose(self, step: Step, _question: str, /) -> Choice:
        return "skip" if self._answers.get(step.id) == "skip" else "yes"

    def answer(self, step: Step, question: str, /) -> str | None:
        told = self._answers.get(step.id) or step.default
        say(f"{question} {told or ''}".rstrip())
        return told

    def may_repeat(self, step: Step, /) -> bool:
        return self._answers.get(step.id) in ("again", "skip")


def _read(question: str) -> str | None:
    """A line from the terminal; None at its end."""
    sys.stderr.write(clean(question))
    sys.stderr.flush()
    line = sys.stdin.readline()
    return line if line else None
