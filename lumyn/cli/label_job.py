"""What the commands that change many labels have in common: options, the dry run, doing it, resuming and undoing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.blast_radius import as_dict, show_radius
from lumyn.cli.output import error_text, one_line, out, out_json, progress, say, table

if TYPE_CHECKING:
    from lumyn.home import Home
    from schemas.label import LabelRequest
    from streams.label_history import Histories
    from streams.label_jobs import Plan

WHY = typer.Option(None, "--why", help="Stands in every event of the job.")
APPLY = typer.Option(False, "--apply", help="Do it; without it the change is only shown.")
UNDO = typer.Option(None, "--undo", metavar="JOB", help="Take a whole job back.")
RESUME = typer.Option(None, "--resume", metavar="JOB", help="Go on with a job that was broken off.")
JSON = typer.Option(False, "--json", help="Print as JSON.")

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled decisions by id, and up to which memory version they are surely whole."""

    decisions: Histories
    until: int


def run(
    command: str,
    plan_of: Callable[[Home, Histories], Plan],
    *,
    why: str | None,
    apply: bool,
    undo: str | None,
    resume: str | None,
    json_: bool,
) -> int:
    """Resume a job, take one back, or else plan one and show or do it. `command` is what resumes or undoes it."""
    from lumyn.label_jobs import known, load
    from lumyn.label_jobs import undo as take_back
    from lumyn.wiring import existing_home
    from streams.topics import LABELS
    from streams.versions import last_version

    home = existing_home()
    if resume is not None:
        return _do(home, resume, load(home, resume), [], json_, command)
    until = last_version(home.log, LABELS)  # before they are read: decisions may go on meanwhile
    labelled = Labelled(known(home), until)
    if undo is not None:
        return _carry_out(home, take_back(home, labelled.decisions, undo, why), labelled, True, json_, command)
    return _carry_out(home, plan_of(home, labelled.decisions), labelled, apply, json_, command)


def _carry_out(home: Home, plan: Plan, labelled: Labelled, apply: bool, json_: bool, command: str) -> int:
    from lumyn.label_jobs import save

    if not apply or not plan.requests:
        _show(home, plan, labelled, json_)
        return 0
    save(home, plan)
    say(f"job {plan.job}: `{command} --resume {plan.job}` goes on with it should it be broken off")
    return _do(home, plan.job, list(plan.requests), _changes(plan), json_, command)


def _do(home: Home, job: str, requests: list[Any], changes: list[Any], json_: bool, command: str) -> int:
    from lumyn.cli.remembering import wait_for_memory
    from lumyn.label_jobs import send

    with progress("labelling", len(requests)) as tick:
        sent = send(home, requests, tick)
    wait_for_memory(home, sent.version)
    for name, error in sent.refused[:_SHOWN]:
        say(f"{name}: {error_text(error)}")
    if json_:
        told = {"job": job, "applied": True, "accepted": sent.accepted, "changes": changes}
        out_json({**told, "refused": [{"decision_id": name, "error": e.as_dict()} for name, e in sent.refused]})
    else:
        out(f"job {job}: {sent.accepted} labels accepted, {len(sent.refused)} refused")
        say(f"`{command} --undo {job}` takes it back")
    return max((error.exit_code for _, error in sent.refused), default=0)


def _trusts(plan: Plan, known: Histories) -> list[tuple[str, float, float]]:
    """Each labeller of a plan, the trust in him now and then."""
    from schemas.label import FULL_TRUST, trust_of

    now = known.trusts.now()
    names: list[tuple[str, LabelRequest]] = [(str(request.get("labeller")), request) for request in plan.trusts]
    return [
        (name, now.get(name, FULL_TRUST) / FULL_TRUST, trust_of(request) / FULL_TRUST) for name, request in names
    ]


def _changes(plan: Plan) -> list[dict[str, Any]]:
    from lumyn.label_jobs import standing_text

    counts = Counter((standing_text(step.before), standing_text(step.after)) for step in plan.changes)
    return [{"from": a, "to": b, "count": n} for (a, b), n in sorted(counts.items())]


def _show(home: Home, plan: Plan, labelled: Labelled, json_: bool) -> None:
    from lumyn import blast
    from lumyn.label_jobs import standing_text

    with progress("asking past decisions again", blast.places(home)) as tick:
        radius = blast.of_plan(home, plan, labelled.decisions, labelled.until, tick)
    changes = _changes(plan)
    rows = [(one.decision_id, standing_text(one.before), standing_text(one.after)) for one in plan.changes]
    trusts = _trusts(plan, labelled.decisions)
    if json_:
        out_json(
            {
                "job": None,
                "applied": False,
                "memories": len(rows),
                "trust": [dict(zip(("labeller", "from", "to"), row, strict=True)) for row in trusts],
                "changes": changes,
                "decisions": [dict(zip(("decision_id", "before", "after"), row, strict=True)) for row in rows],
                "refused": [{"decision_id": name, "error": e.as_dict()} for name, e in plan.refused],
                "blast_radius": as_dict(radius),
            }
        )
        return
    for labeller, before, after in trusts:
        out(one_line(f"trust in {labeller}: {before:g} -> {after:g}"))
    for change in changes:
        out(f"{change['from']} -> {change['to']}: {change['count']}")
    if rows:
        out("")
        out(table(("decision_id", "now", "then"), rows[:_SHOWN]))
        out("")
    if plan.requests:  # also where only the past would differ
        show_radius(radius, _SHOWN)
    for name, error in plan.refused[:_SHOWN]:
        say(one_line(f"{name} can't be labelled so: {error.message}"))
    more = f", {len(plan.refused)} can't be" if plan.refused else ""
    say(f"{len(rows)} memories would change{more}" + ("; `--apply` does it" if plan.requests else ""))
