"""What an incident did: how many decisions, whose, how much money, how often, and what its labels reach."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from lumyn import blast
from lumyn.home import Home
from lumyn.incidents.evidence import Decisions, compared_from, within
from lumyn.incidents.model import Incident
from lumyn.label_jobs import known, sign
from lumyn.searching import understood
from lumyn.traffic import rate_by_subject
from memory_service.record_index import IndexedRecord
from schemas.errors import LumynError
from schemas.query import And, Expression, Field, Not, OneOf, Query, Range, describe
from streams.factors import Observed, rate_of
from streams.index_sync import fetcher
from streams.label_jobs import Decided
from streams.label_jobs import relabel as relabelled
from streams.local_log import wall_clock_ms
from streams.topics import LABELS
from streams.versions import last_version

MOST_NAMED = 40
"""A query that names more ids than this is no command for people."""
MOST_ASKED = 20_000
"""Past decisions that are asked again for a postmortem; more are left to the command."""
MOST_BY_SUBJECT = 20_000
"""Decisions whose subjects are told apart for an interval; more are taken as independent."""
_CREATED = Field("created_at", "time")
_LABEL = Field("label", "label")


def shell(text: str) -> str:
    """A query as one word for a shell; in double quotes where they do, for queries hold single ones."""
    return f'"{text}"' if not set('"$`\\!') & set(text.replace("!=", "")) else shlex.quote(text)


def asked_text(incident: Incident) -> str | None:
    """The incident's query within its window; None: it has none."""
    if incident.asked is None:
        return None
    window = [describe(Query("", one)) for one in within(incident)]
    return " AND ".join([f"({incident.asked})", *window]) if window else incident.asked


def query_text(incident: Incident, found: Decisions) -> str | None:
    """The query that finds the incident's decisions; None: too many are named one by one, or there are none."""
    asked = asked_text(incident)
    parts = [asked] if asked is not None else []
    if incident.decisions and found.by_query < len(found.rows):
        if len(incident.decisions) > MOST_NAMED:
            return None
        named = ", ".join(incident.decisions)
        parts.append(f"decision_id IN ({named})")
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else " OR ".join(f"({part})" for part in parts)


def list_command(incident: Incident, found: Decisions, condition: str | None = None) -> str:
    """The command that lists the incident's decisions, or those of which a condition holds."""
    text = query_text(incident, found)
    if text is None:
        return f"lumyn incident show {incident.id} --json"
    return f"lumyn list --limit 1000000 --query {shell(text if condition is None else f'({text}) AND {condition}')}"


def impact(incident: Incident, found: Decisions) -> dict[str, Any]:
    """Counts, subjects and money of the incident's decisions, from the index."""
    rows = found.rows
    labels = Counter(row.label or "none" for row in rows)
    return {
        "decisions": len(rows),
        "linked": len(incident.decisions),
        "by_query": found.by_query,
        "verdicts": dict(sorted(Counter(row.verdict for row in rows).items())),
        "action_types": dict(Counter(row.action_type for row in rows).most_common(10)),
        "policies": dict(Counter(f"{row.policy}@{row.version}" for row in rows).most_common(10)),
        "reasons": dict(Counter(code for row in rows for code in row.reason_codes).most_common(10)),
        "subjects": len({row.subject_id for row in rows if row.subject_id}),
        "labels": dict(sorted(labels.items())),
        "money": _money(rows),
        "first_ms": rows[0].created_ms if rows else None,
        "last_ms": rows[-1].created_ms if rows else None,
        "command": list_command(incident, found),
    }


def _money(rows: Sequence[IndexedRecord]) -> list[dict[str, Any]]:
    """Amounts by currency: of all, and of what was allowed; decisions without an amount are in neither."""
    totals: dict[str, tuple[list[Decimal], list[Decimal]]] = {}
    for row in rows:
        if row.amount is None:
            continue
        every, allowed = totals.setdefault(row.currency or "", ([], []))
        amount = Decimal(str(row.amount))  # as it is written in the record: sums of floats drift
        every.append(amount)
        if row.verdict == "ALLOW":
            allowed.append(amount)
    return [
        {"currency": name, "decisions": len(every), "total": float(sum(every)), "allowed": float(sum(allowed))}
        for name, (every, allowed) in sorted(totals.items())
    ]


def traffic(home: Home, incident: Incident, found: Decisions) -> dict[str, Any] | None:
    """How often it happened among decisions of the same action types: before the window, in it and since.

    The event is the incident's query; the label failure, where there is none or it finds all of them. None where there
    is no decision. Intervals are those of `lumyn rate --query`; `by_subject`: whether they reckon with subjects.
    """
    rows = found.rows
    if not rows:
        return None
    start = incident.start_ms if incident.start_ms is not None else rows[0].created_ms
    end = incident.end_ms if incident.end_ms is not None else rows[-1].created_ms + 1
    start, end = min(start, end - 1), max(end, start + 1)
    types = tuple(sorted({row.action_type for row in rows}))
    base: list[Expression] = [OneOf(Field("action_type", "text"), types)]
    event: Expression = OneOf(_LABEL, ("failure",))
    said = "label = failure"
    index, tenant, fetch = home.index(), home.settings.tenant, fetcher(home.log)

    def count(*parts: Expression) -> int:
        return index.count(Query("", And((*base, *parts))), tenant=tenant, fetch=fetch)

    def rate(span: Expression, event: Expression) -> dict[str, Any]:
        among, of_event = (Query("", And((*base, span, *more))) for more in ((), (event,)))
        n = index.count(among, tenant=tenant, fetch=fetch)
        if n > MOST_BY_SUBJECT:
            return {**rate_of(index.count(of_event, tenant=tenant, fetch=fetch), n), "by_subject": False}
        events = {row.decision_id for row in index.find(of_event, tenant=tenant, fetch=fetch)}
        observed = [
            Observed(row.created_ms, row.subject_id or row.decision_id, row.decision_id in events, {})
            for row in index.find(among, tenant=tenant, fetch=fetch)
        ]
        return {**rate_by_subject(observed), "by_subject": True}

    spans = {
        "before": Range(_CREATED, compared_from(incident, start, end), start, below=True),
        "during": Range(_CREATED, start, end, below=True),
        "since": Range(_CREATED, end, wall_clock_ms() + 1, below=True),
    }
    if incident.asked is not None:
        asked = understood(home, incident.asked, lambda text: None).expression
        if count(spans["during"], asked) < count(spans["during"]):  # else it says which decisions, not which went wrong
            event, said = asked, incident.asked
    out: dict[str, Any] = {"event": said, "of": describe(Query("", base[0])), "start_ms": start, "end_ms": end}
    for name, span in spans.items():
        text = shell(describe(Query("", And((base[0], span)))))
        out[name] = {
            **rate(span, event),
            "command": f"lumyn rate --query {text} --bad {shell(said)}",
        }
    labelled = count(spans["during"], Not(OneOf(_LABEL, ("none", "retracted"))))
    failed = count(spans["during"], OneOf(_LABEL, ("failure",)))
    out["labelled"] = {"of": out["during"]["n"], "labelled": labelled, "failures": failed}
    return out


def reach(home: Home, incident: Incident, found: Decisions) -> dict[str, Any] | None:
    """The blast radius of what was said of the incident's decisions: which past decisions their labels made otherwise.

    None where none of them is labelled; without figures where the log is large (the command gives them).
    """
    labelled = [row for row in found.rows if row.label in ("failure", "success")]
    if not labelled:
        return None
    text = query_text(incident, found)
    command = None
    if text is not None:
        query = shell(f"({text}) AND label != none")
        command = f"lumyn relabel --query {query} --label retracted --why reach"
    out: dict[str, Any] = {"labelled": len(labelled), "command": command, "why_not": None}
    if blast.places(home) > MOST_ASKED:
        return out | {"why_not": f"more than {MOST_ASKED} past decisions: run the command"}
    try:
        until = last_version(home.log, LABELS)
        histories = known(home)
        decided = [Decided(row.decision_id, row.verdict) for row in labelled]  # type: ignore[arg-type]
        plan = relabelled(sign(home, "relabel", "what they reach"), decided, histories, "retracted", None)
        radius = blast.of_plan(home, plan, histories, until, lambda count: None)
    except LumynError as error:
        return out | {"why_not": error.message}
    flips = {f"{new} -> {old}": count for (old, new), count in sorted(radius.table.items()) if old != new}
    return out | {"compared": radius.compared, "made_otherwise": len(radius.flips), "flips": flips}
