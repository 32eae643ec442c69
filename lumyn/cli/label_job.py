"""What the commands that change many labels have in common: the dry run, doing it, resuming it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from lumyn.cli.output import error_text, one_line, out, out_json, progress, say, table

if TYPE_CHECKING:
    from lumyn.wiring import Home
    from memory_service.fold import Standing
    from streams.label_jobs import Plan

_SHOWN = 10


def carry_out(home: Home, plan: Plan, *, apply: bool, json_: bool, command: str) -> int:
    """Show a plan, or do it. `command` is what resumes or undoes it."""
    if not apply:
        _show(plan, json_)
        return 0
    if not plan.steps:
        _show(plan, json_)
        return 0
    from lumyn.label_jobs import save

    save(home, plan)
    say(f"job {plan.job}: `{command} --resume {plan.job}` goes on with it should it be broken off")
    return _do(home, plan.job, [step.request for step in plan.steps], json_, command, changes=_changes(plan))


def resume(home: Home, job: str, *, json_: bool, command: str) -> int:
    """Go on with a job that was broken off."""
    from lumyn.label_jobs import load

    return _do(home, job, load(home, job), json_, command, changes=None)


def _do(home: Home, job: str, requests: list[Any], json_: bool, command: str, *, changes: Any) -> int:
    from lumyn.label_jobs import send

    with progress("labelling", len(requests)) as tick:
        sent = send(home, requests, tick)
    for name, error in sent.refused[:_SHOWN]:
        say(f"{name}: {error_text(error)}")
    if json_:
        told = {"job": job, "applied": True, "accepted": sent.accepted, "changes": changes or []}
        out_json({**told, "refused": [{"decision_id": name, "error": e.as_dict()} for name, e in sent.refused]})
    else:
        out(f"job {job}: {sent.accepted} labels accepted, {len(sent.refused)} refused")
        say(f"`{command} --undo {job}` takes it back")
    return max((error.exit_code for _, error in sent.refused), default=0)


def _name(standing: Standing | None) -> str:
    if standing is None:
        return "not in memory"
    return standing.meaning + (" (contested)" if standing.contested else "")


def _changes(plan: Plan) -> list[dict[str, Any]]:
    counts = Counter((_name(step.before), _name(step.after)) for step in plan.changes)
    return [{"from": a, "to": b, "count": n} for (a, b), n in sorted(counts.items())]


def _show(plan: Plan, json_: bool) -> None:
    if json_:
        out_json(
            {
                "job": None,
                "applied": False,
                "memories": len(plan.changes),
                "changes": _changes(plan),
                "decisions": [
                    {"decision_id": s.request["decision_id"], "before": _name(s.before), "after": _name(s.after)}
                    for s in plan.changes
                ],
                "refused": [{"decision_id": name, "error": e.as_dict()} for name, e in plan.refused],
            }
        )
        return
    for change in _changes(plan):
        out(f"{change['from']} -> {change['to']}: {change['count']}")
    if plan.changes:
        rows = [(s.request["decision_id"], _name(s.before), _name(s.after)) for s in plan.changes[:_SHOWN]]
        out("")
        out(table(("decision_id", "now", "then"), rows))
    for name, error in plan.refused[:_SHOWN]:
        say(one_line(f"{name} can't be labelled so: {error.message}"))
    more = f", {len(plan.refused)} can't be" if plan.refused else ""
    say(f"{len(plan.changes)} memories would change{more}; `--apply` does it")
