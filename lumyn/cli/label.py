"""`lumyn label`: say what really happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import one_line, out, out_json, say

if TYPE_CHECKING:
    from lumyn.home import Home


_TAUGHT = {
    "harmful": "this says that allowing it is wrong, and counts against allowing what is like it",
    "fine": "this says that allowing it is right, and counts for allowing what is like it",
    "neutral": "this says neither that allowing it is right nor that it is wrong",
}


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
    from schemas.label import meaning_of

    if label_ not in ("failure", "success", "note", "retracted"):
        raise UsageError(f"unknown label `{label_}`", help="one of failure, success, note, retracted")
    event = sdk.label(
        decision, label_, summary=summary, should=should.upper() if should else None, event_id=event_id, settle=settle,
        wait_s=0,
    )  # fmt: skip
    if event["type"] != "note":
        wait_for_memory(existing_home(), event["version"])
        _say_if_held(existing_home(), event["actor"])
    if json_:
        out_json(event)
        return
    what = "note added to" if event["type"] == "note" else f"labelled {event['label']}:"
    out(f"{what} {event['decision_id']} (memory version {event['version']})")
    name = event["label"]
    if event["decision"] is not None and name in ("failure", "success"):
        meaning = meaning_of(event["decision"]["verdict"], name, event["should"])
        out(f"it was {event['decision']['verdict']}: {_TAUGHT[meaning]}")


def _say_if_held(home: Home, actor: str) -> None:
    """Tell a labeller whose words count for nothing; embedded only, as brokers keep no index by labeller."""
    from schemas.label import labeller_key, trust_of
    from streams.label_agent import events_of
    from streams.reading import is_embedded

    if not is_embedded(home.log):
        return
    told = events_of(home.log, labeller_key(home.settings.tenant, actor))
    if told and trust_of(told[-1]) == 0:
        since = told[-1]["version"]
        say(
            f"lumyn: `{one_line(actor)}` is held (memory version {since}), so this label counts for nothing\n"
            "  help: `lumyn memory trust` shows who is held and why"
        )
