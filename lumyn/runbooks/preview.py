"""What a runbook would do with the answers given so far, step by step; nothing is run, asked or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lumyn.runbooks.book import Runbook, Step, filled, passes_over
from lumyn.runbooks.running import shell_text

Kind = Literal["ask", "confirm", "command", "wait", "say"]


@dataclass(frozen=True, slots=True)
class Shown:
    """A step as it would be gone through.

    `text`: its question, its command as one would type it, or what is waited for, with the answers in their places and
    `<name>` for those that are not known. `answer`: what was given or is taken without one; `wrong`: why it is none.
    `left_out`: the step is passed over by the answers so far. `waits`: seconds at the most.
    """

    number: int
    step: Step
    kind: Kind
    say: str
    text: str
    answer: str = ""
    wrong: str = ""
    left_out: bool = False
    waits: float = 0.0


def preview(book: Runbook, answers: Mapping[str, str], given: Mapping[str, str]) -> list[Shown]:
    """Every step in its order.

    `given`: what is known without asking: actor, tenant, and the incident where there is one. An answer that a run
    would refuse is not taken: later steps show its placeholder.
    """
    known = dict(given)
    found: list[Shown] = []
    for number, step in enumerate(book.steps, start=1):
        say = filled(step.say, known).strip()
        left_out = passes_over(step, known) or (step.with_incident and "incident" not in given)
        if step.ask is not None:
            default = filled(step.default, known) if step.default is not None else ""
            answer = " ".join(answers.get(step.id, "").split()) or default
            wrong = "" if left_out else _wrong(step, answer)
            text = filled(step.ask, known)
            if answer and not wrong and not left_out:
                known[step.id] = answer
            found.append(Shown(number, step, "ask", say, text, answer, wrong, left_out))
        elif step.confirm is not None:
            found.append(Shown(number, step, "confirm", say, filled(step.confirm, known), left_out=left_out))
        elif step.command:
            text = shell_text([filled(word, known) for word in step.command])
            found.append(Shown(number, step, "command", say, text, left_out=left_out))
        elif step.wait is not None:
            text = f"{step.wait.measure} {filled(step.wait.of, known)}"
            if step.wait.measure == "query":
                text = f"at most {step.wait.at_most} of {filled(step.wait.of, known)}"
            found.append(Shown(number, step, "wait", say, text, left_out=left_out, waits=step.wait.within_s))
        else:
            found.append(Shown(number, step, "say", say, "", left_out=left_out))
    return found


def _wrong(step: Step, answer: str) -> str:
    """Why a run would not take this answer; empty where it would, or where none was given yet."""
    if answer.startswith("-"):
        return "an answer can't begin with `-`"
    if answer and step.choices and answer not in step.choices:
        return f"one of {', '.join(step.choices)}"
    return ""


def run_command(book: Runbook, steps: list[Shown], incident: str | None) -> str | None:
    """The command that goes through it with these answers; None while an answer is missing."""
    words = ["runbook", "run", book.name]
    if incident is not None:
        words += ["--incident", incident]
    for one in steps:
        if one.kind != "ask" or one.left_out:
            continue
        if not one.answer or one.wrong:
            return None
        words += ["--answer", f"{one.step.id}={one.answer}"]
    return shell_text(words)
