"""`lumyn label`: say what really happened."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json


def label(
    decision: str = typer.Argument(..., metavar="ID", help="A decision id, a unique prefix, or a memory id."),
    label_: str = typer.Option(..., "--label", help="failure, success, note or retracted."),
    summary: str = typer.Option("", "--summary", help="What happened, in a sentence."),
    should: str | None = typer.Option(None, "--should", help="What would have been right: ALLOW, DENY, ESCALATE."),
    settle: bool = typer.Option(False, "--settle", help="The last word over labellers who disagree."),
    event_id: str | None = typer.Option(None, "--event-id", help="Makes a retry safe."),
    json_: bool = typer.Option(False, "--json", help="Print the event as JSON."),
) -> None:
    """Label a decision; the next similar request is decided with it. Append-only.

    \b
    Example: lumyn label 01JBQX8P2M... --label failure --summary "False positive"
    """
    from lumyn import sdk
    from lumyn.cli.remembering import wait_for_memory
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError

    if label_ not in ("failure", "success", "note", "retracted"):
        raise UsageError(f"unknown label `{label_}`", help="one of failure, success, note, retracted")
    event = sdk.label(
        decision, label_, summary=summary, should=should.upper() if should else None, event_id=event_id, settle=settle,
        wait_s=0,
    )  # fmt: skip
    if event["type"] != "note":
        wait_for_memory(existing_home(), event["version"])
    if json_:
        out_json(event)
        return
    what = "note added to" if event["type"] == "note" else f"labelled {event['label']}:"
    out(f"{what} {event['decision_id']} (memory version {event['version']})")
