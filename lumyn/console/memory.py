"""Memory hygiene: what the memory holds, what is near a decision, which labels are doubtful, and relabelling in bulk.

A bulk change is shown before it is done: which memories change, and every past decision that would have come out
otherwise. What is then applied is what was shown: where anything has changed since, nothing is done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final, cast

from starlette.responses import RedirectResponse, Response

from lumyn import blast, label_jobs, memory_views, suspecting
from lumyn.cli.blast_radius import as_dict
from lumyn.console import render
from lumyn.console.neighbours import picture
from lumyn.console.page import Page
from lumyn.console.policies import confirmed
from lumyn.console.visit import Visit
from lumyn.label_jobs import standing_text
from schemas.digests import digest_of
from schemas.errors import BadInput, LumynError, UsageError
from schemas.label import FULL_TRUST, LabelName, Should
from streams.label_history import Histories
from streams.label_jobs import Plan
from streams.label_jobs import relabel as plan_of
from streams.topics import LABELS
from streams.versions import last_version

_SHOWN: Final = 50
_SUSPECTS: Final = 50
_NEAR: Final = 10
_LABELS: Final = ("failure", "success", "retracted")
_SHOULDS: Final = ("", "ALLOW", "DENY", "ESCALATE")


def show(visit: Visit) -> Response:
    """What the memory holds, and what is near a decision."""
    near, error, status = None, None, 200
    name = visit.query.get("near", "").strip()
    try:
        stats = memory_views.stats(visit.home)
    except LumynError as failed:
        stats, error, status = None, failed, 503
    if name and error is None:
        try:
            recall = memory_views.near_decision(visit.home, name, _NEAR)
            near = picture({"risk_signals": recall.signals, "memory": {"counted": [], "settings": None}})
        except LumynError as failed:
            error, status = failed, 422
    return render.html(
        "memory", status, visit=visit, here="memory", stats=stats, near=near, name=name, error=error,
        contested=memory_views.contested(visit.home)[:_SHOWN], trusts=memory_views.trusts(visit.home),
        done=visit.query.get("done") == "relabelled", job=visit.query.get("job", ""), full=FULL_TRUST,
    )  # fmt: skip


def suspects(visit: Visit) -> Response:
    """The labels that are probably wrong. It reads every record, unless nothing is new since."""
    found = suspecting.kept(visit.home)
    return render.html("suspects", visit=visit, here="memory", found=suspecting.as_dict(found, _SUSPECTS))


def relabel(visit: Visit) -> Response:
    """The form."""
    return render.html(
        "relabel", visit=visit, here="memory", typed=dict(visit.query), shown=None, error=None, labels=_LABELS,
        shoulds=_SHOULDS,
    )  # fmt: skip


def preview(visit: Visit) -> Response:
    """What a change would do. Nothing is changed."""
    try:
        shown = _previewed(visit)
    except (BadInput, UsageError) as error:
        return render.html(
            "relabel", 422, visit=visit, here="memory", typed=visit.form, shown=None, error=error, labels=_LABELS,
            shoulds=_SHOULDS,
        )  # fmt: skip
    return render.html(
        "relabel", visit=visit, here="memory", typed=visit.form, shown=shown, error=None, labels=_LABELS,
        shoulds=_SHOULDS,
    )  # fmt: skip


def apply(visit: Visit) -> Response:
    """Do what was shown."""
    confirmed(visit)
    home = visit.home
    plan, _, _ = _plan(visit)
    if fingerprint(plan) != visit.form.get("shown"):
        raise BadInput("nothing was changed: the memory is not any more as it was shown", help="look at it again")
    label_jobs.save(home, plan)
    sent = label_jobs.send(home, list(plan.requests), lambda count: None)
    home.remembers(sent.version, 3.0)
    return RedirectResponse(
        render.url("memory", done="relabelled", job=plan.job), 303, headers=dict(render.HEADERS)
    )


def undo(visit: Visit) -> Response:
    """Take a whole job back."""
    why = confirmed(visit)
    home = visit.home
    plan = label_jobs.undo(home, label_jobs.known(home), visit.form.get("job", "").strip(), why)
    label_jobs.save(home, plan)
    sent = label_jobs.send(home, list(plan.requests), lambda count: None)
    home.remembers(sent.version, 3.0)
    return RedirectResponse(
        render.url("memory", done="relabelled", job=plan.job), 303, headers=dict(render.HEADERS)
    )


def _plan(visit: Visit) -> tuple[Plan, Histories, int]:
    """The change that the form says, the labelled decisions, and up to which version these are whole."""
    home, form = visit.home, visit.form
    label, should = form.get("label", ""), form.get("should", "")
    if label not in _LABELS:
        raise UsageError("choose the label", help=f"one of {', '.join(_LABELS)}")
    if should not in _SHOULDS:
        raise UsageError(f"unknown verdict `{should}`")
    if not form.get("query", "").strip():
        raise UsageError("a query is missing", help="such as `label=failure AND action_type=refund`")
    until = last_version(home.log, LABELS)  # before they are read: decisions may go on meanwhile
    known = label_jobs.known(home)
    signed = label_jobs.sign(home, "relabel", form.get("why", ""))
    found = label_jobs.found(home, form["query"], lambda said: None)
    plan = plan_of(signed, found, known, cast(LabelName, label), cast(Should, should) if should else None)
    return plan, known, until


def _previewed(visit: Visit) -> Mapping[str, Any]:
    plan, known, until = _plan(visit)
    radius = blast.of_plan(visit.home, plan, known, until, lambda count: None, may_fork=False)
    counts = Counter((standing_text(step.before), standing_text(step.after)) for step in plan.changes)
    told = as_dict(radius)
    return {
        "requests": len(plan.requests),
        "changes": sorted(counts.items()),
        "rows": [(c.decision_id, standing_text(c.before), standing_text(c.after)) for c in plan.changes[:_SHOWN]],
        "of": len(plan.changes),
        "refused": [(name, error.message) for name, error in plan.refused[:_SHOWN]],
        "refused_of": len(plan.refused),
        "radius": told,
        "flips": told["changes"][:_SHOWN],
        "fingerprint": fingerprint(plan),
    }


def fingerprint(plan: Plan) -> str:
    """What a plan says and does, without its name: two of the same fingerprint are the same change."""
    said = [{**request, "event_id": "", "job": None} for request in plan.requests]
    stands = [
        [one.decision_id, *(asdict(at) | {"at": ""} if at is not None else None for at in (one.before, one.after))]
        for one in plan.reached
    ]
    return digest_of({"said": said, "stands": stands})


PAGES: Final = (
    Page("/memory", "read", show),
    Page("/memory/suspects", "read", suspects),
    Page("/memory/relabel", "admin", relabel),
    Page("/memory/relabel/preview", "admin", preview, "POST"),
    Page("/memory/relabel/apply", "admin", apply, "POST"),
    Page("/memory/undo", "admin", undo, "POST"),
)
