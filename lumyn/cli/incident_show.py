"""`lumyn incident show` and `search`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.incident import ID, JSON, incidents_here
from lumyn.cli.output import clean, one_line, out, out_json, say, table
from lumyn.figures import plain

if TYPE_CHECKING:
    from lumyn.incidents import Incident

_SHOWN = 20


def show(incident: str = ID, json_: bool = JSON) -> None:
    """Show an incident: what belongs to it, what was written, what is to be done. `--json` has every event.

    \b
    Example: lumyn incident show INC-7
    """
    incidents = incidents_here()
    found = incidents.show(incident)
    if json_:
        out_json(found.as_dict())
        return
    _show(found)


def _show(one: Incident) -> None:
    from schemas.ids import iso_time

    def at(ms: int | None) -> str:
        return "…" if ms is None else iso_time(ms)[:19] + "Z"

    out(one_line(f"{one.id} {one.severity} {one.status}: {one.title}"))
    closed = "" if one.closed_ms is None else f", closed {at(one.closed_ms)}"
    out(one_line(f"opened {at(one.opened_ms)} by {one.opened_by}{closed}"))
    if one.start_ms is not None or one.end_ms is not None:
        out(f"window {at(one.start_ms)} to {at(one.end_ms)}")
    if one.query:
        out(one_line(f"query {one.query}"))
    if one.summary:
        out("\n" + clean(one.summary))
    if one.links:
        out("")
        rows = [(k.kind, k.ref, _seen(k.detail), one_line(k.note)) for k in one.links[:_SHOWN]]
        out(table(("linked", "", "as it was then", "note"), rows))
        if len(one.links) > _SHOWN:
            say(f"and {len(one.links) - _SHOWN} more; `--json` has all")
    if one.actions:
        out("")
        items = [
            (a.id, a.state, a.owner, a.due or "", (a.target or {}).get("text", ""), a.watch or "", one_line(a.text))
            for a in one.actions
        ]
        out(table(("action", "state", "owner", "due", "target", "watch", ""), items))
    if one.notes:
        out("")
        for note in sorted(one.notes, key=lambda n: n.when_ms)[-_SHOWN:]:
            out(f"{at(note.when_ms)} {one_line(note.actor)}: {one_line(note.text)}")
    if one.steps:
        out("")
        for step in one.steps[-_SHOWN:]:
            out(one_line(f"{at(step.at_ms)} runbook {step.runbook} ({step.run}), {step.step}: {step.told}"))
    if gone := [event.seq for event in one.events if event.redacted]:
        say(f"redacted: texts of event {', '.join(map(str, gone))}")
    if one.sections:
        say(f"written: {', '.join(one.sections)}")


def _seen(detail: object) -> str:
    """What was seen of a link, in short."""
    if not isinstance(detail, dict):
        return ""
    told = [
        plain(value) for name, value in detail.items() if name not in ("digest", "hash") and value not in (None, {})
    ]
    return one_line(", ".join(told))[:80]


def search(
    words: list[str] | None = typer.Argument(None, metavar="[WORD]...", help="Words that people wrote of it."),
    near: str | None = typer.Option(None, "--near", metavar="REQUEST.json", help="Near this request; `-` reads stdin."),
    near_text: str | None = typer.Option(None, "--near-text", metavar="TEXT", help="Near what is planned, in words."),
    least: float | None = typer.Option(None, "--least", min=0.0, max=1.0, help="How alike, with `--near`; 0.2."),
    limit: int = typer.Option(10, "--limit", "-n", min=1, help="How many at the most."),
    json_: bool = JSON,
) -> None:
    """What went wrong before near this? By words, or by likeness to a request or to a feature that is planned.

    \b
    Examples: lumyn incident search refund hours
              lumyn incident search --near request.json
              lumyn incident search --near-text "the agent may answer medical questions"
    Likeness is measured as the memory does it: a request with the requests of incidents' decisions, in all their facts;
    a text with what people wrote of incidents and with the texts of their decisions.
    """
    from lumyn.incidents.search import LEAST_ALIKE, by_words, near_request
    from lumyn.incidents.search import near_text as near_description
    from schemas.errors import UsageError

    if sum((bool(words), near is not None, near_text is not None)) != 1:
        raise UsageError("give words, `--near` or `--near-text`: one of them")
    incidents = incidents_here()
    alike = LEAST_ALIKE if least is None else least
    if near is not None:
        found = near_request(incidents, _request(near), least=alike, limit=limit)
    elif near_text is not None:
        found = near_description(incidents, near_text, least=alike, limit=limit)
    else:
        found, all_words = by_words(incidents, " ".join(words or ()), limit=limit)
        if not all_words:
            say("no incident has all of these words; these have some")
    if json_:
        out_json([one.as_dict() for one in found])
        return
    if not found:
        say("no incident found" + ("" if words else f" that is at least {alike:g} alike"))
        return
    for one in found:
        alike_by = "" if words else f"{one.score:.2f} "
        of = one.incident
        out(one_line(f"{of.id} {alike_by}{of.severity} {of.status}: {of.title}"))
        out(one_line(f"  {one.why}"))


def _request(given: str) -> dict[str, object]:
    """The one request of a file, checked as if it were to be decided. Raises `BadRequest`, `NotFound`, `UsageError`."""
    from lumyn.cli.decide import requests_in
    from schemas.errors import UsageError
    from schemas.request import parse_request

    name, bodies = "stdin" if given == "-" else given, requests_in(given)
    if len(bodies) != 1:
        raise UsageError(f"there are {len(bodies)} requests in it, and one is compared", where=name)
    return parse_request(bodies[0], where=name).value
