"""`lumyn incident redact`: what people wrote, taken out for good."""

from __future__ import annotations

import typer

from lumyn.cli.incident import ID, JSON, incidents_here
from lumyn.cli.output import one_line, out, out_json, say


def redact(
    incident: str = ID,
    mentions: list[str] = typer.Option([], "--mentions", metavar="TEXT", help="Texts that hold this; many times."),
    event: list[int] = typer.Option([], "--event", metavar="N", help="All that was written in this event; many times."),
    all_: bool = typer.Option(False, "--all", help="All that was written of the incident."),
    why: str = typer.Option(..., "--why", help="The reason; it stays with the incident: name nobody in it."),
    apply: bool = typer.Option(False, "--apply", help="Do it, for good; without it what would go is only shown."),
    json_: bool = JSON,
) -> None:
    """Take what people wrote out of an incident, as where somebody is to be forgotten. The chain still verifies.

    \b
    Examples: lumyn incident redact INC-7 --mentions cust-42 --why "asked to be forgotten"
              lumyn incident redact INC-7 --mentions cust-42 --event 4 --why "asked to be forgotten" --apply
    A text that mentions somebody goes as a whole, and is shown as `[redacted]` from then on. Events, their times and
    who wrote them stay; `lumyn incident show INC-7 --json` numbers them. It can't be undone. Broken off, the same
    command goes on. Postmortems and tickets that were written to files before are not reached.
    """
    from lumyn.incidents import redaction

    incidents = incidents_here()
    chosen = redaction.redactable(incidents, incident, mentions=mentions, events=event, whole=all_)
    after = None
    if apply:
        after = redaction.redact(incidents, incident, why, mentions=mentions, events=event, whole=all_)
    if json_:
        events = [{"seq": one.seq, "kind": one.kind, "at_ms": one.at_ms, "actor": one.actor} for one in chosen]
        out_json({"incident": incidents.show(incident).id, "events": events, "applied": after is not None})
        return
    for one in chosen:
        out(one_line(f"event {one.seq} {one.kind} by {one.actor}"))
    if not chosen:
        out("nothing of it is written here")
    elif after is not None:
        out(f"{after.id}: texts of {len(chosen)} event{'s' if len(chosen) != 1 else ''} redacted")
    else:
        say("`--apply` redacts their texts; it can't be undone")
