"""Going through a runbook: each step asked, done, and recorded; what was begun can be gone on with."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import orjson

from lumyn.incidents import Incident, Incidents
from lumyn.lookup import shown
from lumyn.runbooks.book import PLACEHOLDER, Runbook, Step, filled, passes_over
from lumyn.runbooks.measures import measured
from schemas.errors import LumynError, NotFound, UsageError

Choice = Literal["yes", "no", "skip", "abort"]
State = Literal["begun", "done", "skipped", "failed", "aborted"]
OVER = ("done", "skipped")


def answer_to(step: Step, given: str, default: str) -> str:
    """An answer in one line, or the default where it is empty. Raises `UsageError` where the step can't take it."""
    told = " ".join(given.split()) or default
    if not told or told.startswith("-") or (step.choices and told not in step.choices):
        asked = f"one of {', '.join(step.choices)}" if step.choices else "some text that begins with no `-`"
        raise UsageError(f"`{shown(told)}` is no answer to `{step.id}`", help=asked)
    return told


class Person(Protocol):
    """Who goes through it: at a terminal, or answers that were given beforehand."""

    def tell(self, text: str) -> None:
        """Say something."""
        ...

    def choose(self, step: Step, question: str, /) -> Choice:
        """Whether a step is to be done."""
        ...

    def answer(self, step: Step, question: str, /) -> str | None:
        """The answer to a step's question; None: abort."""
        ...

    def may_repeat(self, step: Step, /) -> bool:
        """Whether a step that was begun, and of which the end is not known, may be done again."""
        ...


@dataclass(slots=True)
class Result:
    """How it ended, what each step came to, and the code to exit with."""

    run: str
    ended: bool
    code: int = 0
    steps: list[dict[str, str]] = field(default_factory=list)


Command: TypeAlias = Callable[[Sequence[str]], tuple[int, str]]
"""Runs words of lumyn's command line; gives the exit code and all that was printed."""


class Running:
    """One run. With an incident every step is recorded there as it happens; a dry run records and changes nothing."""

    def __init__(
        self,
        book: Runbook,
        person: Person,
        incidents: Incidents,
        incident: Incident | None,
        *,
        command: Command,
        dry: bool,
        run: str | None = None,
    ) -> None:
        """`command` runs the words of a step; `run` names a run that was broken off, to go on with.

        Raises `NotFound`, `UsageError`.
        """
        self._book, self._person, self._dry = book, person, dry
        self._incidents, self._incident, self._called = incidents, incident, command
        self.run = run or f"run-{uuid.uuid4().hex[:8]}"
        self._known: dict[str, str] = {"actor": incidents.actor, "tenant": incidents.tenant}
        if incident is not None:
            self._known["incident"] = incident.id
        self._before: dict[str, str] = {}
        if run is not None:
            self._take_up(run)

    def _take_up(self, run: str) -> None:
        steps = [step for step in (self._incident.steps if self._incident else ()) if step.run == run]
        if not steps:
            raise NotFound(f"no run `{shown(run)}` of this incident", help="`lumyn incident show` lists its runs")
        if steps[0].runbook != self._book.name:
            raise UsageError(f"`{run}` is a run of {steps[0].runbook}")
        for step in steps:
            self._before[step.step] = step.state
            self._known |= dict(step.kept)

    def go(self) -> Result:
        """Go through the steps. Raises `LumynError` where the incident can't be written: then nothing more is done."""
        result = Result(self.run, ended=True)
        for number, step in enumerate(self._book.steps, start=1):
            if self._passes_over(step):
                continue
            before = self._before.get(step.id)
            if before in OVER:
                self._person.tell(f"[{number}/{len(self._book.steps)}] {step.id}: {before} before")
                continue
            self._person.tell(f"[{number}/{len(self._book.steps)}] {step.id}")
            if step.say:
                self._person.tell(filled(step.say, self._known).rstrip())
            state, text, code = self._do(step, before)
            result.steps.append({"step": step.id, "state": state, "text": text})
            if state not in OVER:
                result.ended, result.code = False, code or 1
                break
        return result

    def _passes_over(self, step: Step) -> bool:
        if step.with_incident and self._incident is None:
            return True
        return passes_over(step, self._known)

    def _do(self, step: Step, before: str | None) -> tuple[State, str, int]:
        if step.ask is not None:
            return self._ask(step)
        if step.confirm is not None:
            return self._confirm(step)
        if step.wait is not None:
            return self._wait(step)
        if step.command:
            return self._command(step, before)
        return self._record(step, "done", ""), "", 0

    def _ask(self, step: Step) -> tuple[State, str, int]:
        question = filled(step.ask or "", self._known)
        given = self._person.answer(step, question)
        if given is None and self._dry:
            self._person.tell("(dry run: not answered)")
            return "skipped", "", 0
        if given is None:
            return self._record(step, "aborted", ""), "", 1
        default = filled(step.default, self._known) if step.default is not None else ""
        told = answer_to(step, given, default)
        self._known[step.id] = told
        return self._record(step, "done", told, kept={step.id: told}), told, 0

    def _confirm(self, step: Step) -> tuple[State, str, int]:
        chosen: Choice = "yes" if self._dry else self._person.choose(step, filled(step.confirm or "", self._known))
        if chosen == "yes":
            return self._record(step, "done", "yes"), "yes", 0
        if chosen == "skip":
            return self._record(step, "skipped", ""), "", 0
        return self._record(step, "aborted", chosen), chosen, 1

    def _command(self, step: Step, before: str | None) -> tuple[State, str, int]:
        words = [filled(word, self._known) for word in step.command]
        text = shell_text(words)
        self._person.tell(f"$ {text}")
        if self._dry and step.changes:
            self._person.tell("(dry run: not done)")
            return "skipped", text, 0
        if lacking := sorted(_placeholders(step) - self._known.keys()):
            if self._dry:
                self._person.tell("(dry run: it needs what a step before would give)")
                return "skipped", text, 0
            why = f"it needs `{lacking[0]}`, which no step gave"
            return self._record(step, "failed", why), why, 1
        if before == "begun" and step.changes and not self._dry:
            self._person.tell("this step was begun before, and how it ended is not known: look before it is done again")
            if not self._person.may_repeat(step):
                return "failed", f"`--answer {step.id}=again` does it again, `{step.id}=skip` goes on without it", 1
        if not self._dry:
            chosen = self._person.choose(step, "run it?")
            if chosen != "yes":
                state: State = "skipped" if chosen == "skip" else "aborted"
                return self._record(step, state, text), text, 1
        if step.changes:
            self._record(step, "begun", text)
        code, output = self._called(words)
        self._person.tell(output.rstrip() or "(nothing printed)")
        if code not in step.expect:
            self._record(step, "failed", f"{text}: exit {code}", output)
            return "failed", f"exit {code}", code
        kept = self._kept(step, output)
        if step.keep.keys() - kept.keys():
            why = f"`{text}` did not say {', '.join(sorted(step.keep.keys() - kept.keys()))}"
            return self._record(step, "failed", why, output), why, 1
        self._record(step, "done", text, output, kept)
        self._link(step)
        return "done", text, 0

    def _kept(self, step: Step, output: str) -> dict[str, str]:
        """What later steps need of a command's JSON."""
        if not step.keep:
            return {}
        start = output.find("{")
        try:
            found = orjson.loads(output[start : output.rfind("}") + 1])
        except orjson.JSONDecodeError:
            found = {}
        kept = {name: str(found[key]) for name, key in step.keep.items() if isinstance(found.get(key), str | int)}
        self._known |= kept
        return kept

    def _link(self, step: Step) -> None:
        if self._dry or self._incident is None:
            return
        for kind, ref in step.link.items():
            told = filled(ref, self._known)
            try:
                self._incidents.add(self._incident.id, [(kind, told, f"runbook {self._book.name}")])
            except LumynError as error:
                self._person.tell(f"not linked: {error.message}")

    def _wait(self, step: Step) -> tuple[State, str, int]:
        wait = step.wait
        assert wait is not None
        of = filled(wait.of, self._known)
        if self._dry:
            self._person.tell(f"(dry run: would wait until {wait.measure} {of} holds, at most {wait.within_s:g} s)")
            return "skipped", "", 0
        until = time.monotonic() + wait.within_s
        while True:
            holds, text = measured(self._incidents.home, wait, of)
            if holds or time.monotonic() >= until:
                break
            time.sleep(0.5)
        self._person.tell(text)
        if holds:
            return self._record(step, "done", text), text, 0
        return self._record(step, "failed", text), text, 1

    def _record(
        self, step: Step, state: State, text: str, output: str = "", kept: Mapping[str, str] | None = None
    ) -> State:
        if not self._dry and self._incident is not None:
            self._incidents.step(
                self._incident.id, run=self.run, runbook=self._book.name, step=step.id, state=state, text=text,
                output=output, kept=kept,
            )  # fmt: skip
        return state


def _placeholders(step: Step) -> set[str]:
    return {found[1] for word in step.command for found in PLACEHOLDER.finditer(word)}


def shell_text(words: Sequence[str]) -> str:
    """A command as a person would type it."""
    from lumyn.incidents.impact import shell

    return " ".join(["lumyn", *(word if word and word.replace("-", "").isalnum() else shell(word) for word in words)])


def broken_off(incident: Incident, book: str) -> str | None:
    """The newest run of a runbook in this incident that did not come to its end."""
    last: dict[str, str] = {}
    for step in incident.steps:
        if step.runbook == book:
            last.pop(step.run, None)
            last[step.run] = step.state
    return next((run for run, state in reversed(last.items()) if state not in OVER), None)
