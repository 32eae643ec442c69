"""`lumyn relabel`: clean the memory up in bulk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.label_job import APPLY, JSON, RESUME, UNDO, WHY, run
from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.home import Home
    from streams.label_history import Histories
    from streams.label_jobs import Plan


def relabel(
    query: str | None = typer.Option(None, "--query", "-q", help="Which decisions, such as `label=failure`."),
    label: str | None = typer.Option(None, "--label", help="What really happened: failure, success or retracted."),
    should: str | None = typer.Option(None, "--should", help="What would have been right: ALLOW, DENY, ESCALATE."),
    why: str | None = WHY,
    apply: bool = APPLY,
    undo: str | None = UNDO,
    resume: str | None = RESUME,
    json_: bool = JSON,
) -> int:
    """Label many decisions as one job, as the last word over all labellers; the job can be taken back as a whole.

    \b
    Examples: lumyn relabel --query "label=failure AND action_type=refund" --label success --why "wrong import"
              lumyn relabel --query "label=failure AND action_type=refund" --label success --why "wrong import" --apply
              lumyn relabel --undo relabel-0123456789ab
    What others say of a decision after a job stays when the job is undone, and an undo can be undone, too.
    """

    def plan(home: Home, labelled: Histories) -> Plan:
        from lumyn.label_jobs import found, sign
        from schemas.errors import UsageError
        from streams.label_jobs import relabel as plan_of

        if query is None or label is None or why is None:
            raise UsageError("a job needs `--query`, `--label` and `--why`", help="or `--undo JOB`, or `--resume JOB`")
        if label not in ("failure", "success", "retracted"):
            raise UsageError(f"unknown label `{label}`", help="one of failure, success, retracted")
        right = should.upper() if should is not None else None
        if right not in (None, "ALLOW", "DENY", "ESCALATE"):
            raise UsageError(f"unknown verdict `{should}`", help="one of ALLOW, DENY, ESCALATE")
        return plan_of(sign(home, "relabel", why), found(home, query, say), labelled, label, right)  # type: ignore[arg-type]

    return run("lumyn relabel", plan, why=why, apply=apply, undo=undo, resume=resume, json_=json_)
