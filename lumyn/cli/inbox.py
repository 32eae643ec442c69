"""`lumyn inbox`: what the gate sent to a person, and the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.inbox.escalations import Open
    from memory_service.record_index import IndexedRecord
    from schemas.label import LabelEvent

app = typer.Typer(help="Escalations: take and answer them.", no_args_is_help=True, rich_markup_mode=None)
_ID = typer.Argument(..., metavar="ID", help="A decision id, or a unique prefix.")
_JSON = typer.Option(False, "--json", help="Print as JSON.")


@app.command("list")
def list_(
    of: str = typer.Option("all", "--of", help="all, mine or nobody."),
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many at the most."),
    json_: bool = _JSON,
) -> None:
    """List open escalations, the oldest first, with how long they wait.

    \b
    Example: lumyn inbox list --of nobody
    How long one may wait is `inbox_sla_s` of `[runtime]` in lumyn.toml; 4 hours where it doesn't say.
    """
    from lumyn.figures import age, when
    from lumyn.inbox.escalations import open_escalations
    from lumyn.wiring import existing_home

    found = open_escalations(existing_home(), of=of, limit=limit)
    if json_:
        out_json([_as_dict(one) for one in found])
        return
    if not found:
        say("no escalation is open")
        return
    out(table(("decision_id", "created_at", "waits", "over", "action", "amount", "with", "reason_codes"), [
        (one.row.decision_id, when(one.row.created_ms), age(one.age_ms), "yes" if one.late else "", one.row.action_type,
         _amount(one.row), one.assignee, ",".join(one.row.reason_codes))
        for one in found
    ]))  # fmt: skip


@app.command("assign")
def assign(
    decision: str = _ID,
    to: str | None = typer.Option(None, "--to", help="To whom; default: to you. Empty text gives it back."),
    json_: bool = _JSON,
) -> None:
    """Give an open escalation to somebody.

    \b
    Example: lumyn inbox assign 01JBQX8P2M... --to ann
    """
    from lumyn.inbox import escalations
    from lumyn.wiring import existing_home

    home = existing_home()
    event = escalations.assign(home, decision, home.settings.actor if to is None else to)
    if json_:
        out_json({"decision_id": event.decision_id, "assignee": event.assignee, "actor": event.actor})
    else:
        out(f"{event.decision_id} is with {event.assignee or 'nobody'}")


@app.command("resolve")
def resolve(
    decision: str = _ID,
    verdict: str = typer.Option(..., "--verdict", help="ALLOW, DENY, or ESCALATE: it was right to ask."),
    reason: str = typer.Option(..., "--reason", help="A sentence; it stands in the label."),
    this_case: bool = typer.Option(False, "--this-case", help="For this case alone: the memory learns nothing."),
    json_: bool = _JSON,
) -> None:
    """Answer an open escalation. The answer becomes a label; of two people at once one wins, the other is told.

    \b
    Example: lumyn inbox resolve 01JBQX8P2M... --verdict ALLOW --reason "Known customer, receipt seen"
    """
    from lumyn.inbox import escalations
    from lumyn.wiring import existing_home

    event = escalations.resolve(existing_home(), decision, verdict.upper(), reason, again=this_case)
    _tell("resolved", event, json_)


@app.command("reopen")
def reopen(
    decision: str = _ID,
    reason: str = typer.Option(..., "--reason", help="A sentence; it stands in the label."),
    json_: bool = _JSON,
) -> None:
    """Take an answer back, as the last word over all labellers.

    \b
    Example: lumyn inbox reopen 01JBQX8P2M... --reason "Wrong customer"
    """
    from lumyn.inbox import escalations
    from lumyn.wiring import existing_home

    _tell("reopened", escalations.reopen(existing_home(), decision, reason), json_)


def _tell(what: str, event: LabelEvent, json_: bool) -> None:
    if json_:
        out_json(event)
        return
    should = f", should {event['should']}" if event["should"] else ""
    out(f"{what}: {event['decision_id']} labelled {event['label']}{should} (memory version {event['version']})")


def _as_dict(one: Open) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(one.row), "assignee": one.assignee, "age_ms": one.age_ms, "late": one.late}


def _amount(row: IndexedRecord) -> str:
    from lumyn.figures import amount

    return "" if row.amount is None else f"{amount(row.amount)} {row.currency or ''}".rstrip()
