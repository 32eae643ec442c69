"""`lumyn relabel`: clean the memory up in bulk."""

from __future__ import annotations

import typer

from lumyn.cli.output import say


def relabel(
    query: str | None = typer.Option(None, "--query", "-q", help="Which decisions, such as `label=failure`."),
    label: str | None = typer.Option(None, "--label", help="What really happened: failure, success or retracted."),
    should: str | None = typer.Option(None, "--should", help="What would have been right: ALLOW, DENY, ESCALATE."),
    why: str | None = typer.Option(None, "--why", help="Stands in every event of the job."),
    apply: bool = typer.Option(False, "--apply", help="Do it; without it the change is only shown."),
    undo: str | None = typer.Option(None, "--undo", metavar="JOB", help="Take a whole job back."),
    resume: str | None = typer.Option(None, "--resume", metavar="JOB", help="Go on with a job that was broken off."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Label many decisions as one job, as the last word over all labellers; the job can be taken back as a whole.

    \b
    Examples: lumyn relabel --query "label=failure AND action_type=refund" --label success --why "wrong import"
              lumyn relabel --query "label=failure AND action_type=refund" --label success --why "wrong import" --apply
              lumyn relabel --undo relabel-0123456789ab
    What others say of a decision after a job stays when the job is undone, and an undo can be undone, too.
    """
    from lumyn.cli.label_job import carry_out
    from lumyn.cli.label_job import resume as go_on
    from lumyn.label_jobs import found, known, sign
    from lumyn.label_jobs import undo as take_back
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.label_jobs import relabel as plan_of

    home = existing_home()
    if resume is not None:
        return go_on(home, resume, json_=json_, command="lumyn relabel")
    if undo is not None:
        return carry_out(home, take_back(home, undo, why), apply=True, json_=json_, command="lumyn relabel")
    if query is None or label is None or why is None:
        raise UsageError("a job needs `--query`, `--label` and `--why`", help="or `--undo JOB`, or `--resume JOB`")
    if label not in ("failure", "success", "retracted"):
        raise UsageError(f"unknown label `{label}`", help="one of failure, success, retracted")
    if should is not None and should.upper() not in ("ALLOW", "DENY", "ESCALATE"):
        raise UsageError(f"unknown verdict `{should}`", help="one of ALLOW, DENY, ESCALATE")
    right = should.upper() if should is not None else None
    plan = plan_of(sign(home, "relabel", why), found(home, query, say), known(home), label, right)  # type: ignore[arg-type]
    return carry_out(home, plan, apply=apply, json_=json_, command="lumyn relabel")
