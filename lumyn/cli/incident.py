"""`lumyn incident`: what went wrong, kept with what belongs to it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import one_line, out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.incidents import Incident, Incidents

app = typer.Typer(
    help="Keep what went wrong: decisions, rates, jobs and notes of an incident, its postmortem, what is to be done.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
ID = typer.Argument(..., metavar="INC-N", help="The incident.")
JSON = typer.Option(False, "--json", help="Print as JSON.")
_NAMED = 10
WHY = typer.Option(..., "--why", help="The reason; it stays with the incident.")


def incidents_here(*, begin: bool = False) -> Incidents:
    """The home's incidents. A home is made only to `begin` one. Raises `NotFound`."""
    from lumyn.config import resolve
    from lumyn.incidents import Incidents
    from lumyn.incidents.store import FILE
    from lumyn.wiring import existing_home, operator_home

    if begin or (resolve().home / FILE).exists():
        return Incidents(operator_home())
    return Incidents(existing_home())


def moment(text: str | None, option: str, *, whole: bool = False) -> int | None:
    """A time that a user gave, in ms; `whole`: the end of the day or minute that it is. Raises `UsageError`."""
    from schemas.errors import UsageError
    from streams.local_log import wall_clock_ms
    from streams.span import parse_span, parse_time

    if text is None:
        return None
    help, now_ms = "UTC: '2024-12-19 14:00', '14:25' (today)", wall_clock_ms()
    try:
        span = parse_span(None, text, now_ms=now_ms)
        if span.partition is None:
            return span.end if whole else parse_time(text, option, now_ms=now_ms)
    except UsageError:
        raise UsageError(f"`{option}`: `{text}` is not a time", help=help) from None
    raise UsageError(f"`{option}` is a time", help=help)


def told(incident: Incident, what: str, json_: bool) -> None:
    """What was done, in a line, or the incident as it is then."""
    if json_:
        out_json(incident.as_dict())
    else:
        out(one_line(f"{incident.id}: {what}"))


@app.command("open")
def open_(
    title: str = typer.Option(..., "--title", "-t", help="What went wrong, in a line."),
    severity: str = typer.Option("sev3", "--severity", "-s", help="sev1 (the worst) to sev4."),
    summary: str = typer.Option("", "--summary", help="What is known so far."),
    query: str | None = typer.Option(None, "--query", "-q", help="Which decisions belong to it."),
    decision: list[str] = typer.Option([], "--decision", "-d", metavar="ID", help="A decision of it; many times."),
    start: str | None = typer.Option(None, "--from", metavar="T", help="When it began (UTC)."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="When it ended (UTC; a day or minute is included)."),
    json_: bool = JSON,
) -> None:
    """Open an incident: what the query finds in the window, and the decisions named, belong to it.

    \b
    Examples: lumyn incident open --title "Refund promised in 7 hours" --severity 2 --decision 01JBQX8P2M...
              lumyn incident open --title "Double refunds" --query "action_type=refund" --from 14:00 --to 15:00
    """
    from lumyn.incidents.evidence import decisions_of
    from streams.local_log import wall_clock_ms
    from streams.span import parse_span

    incidents = incidents_here(begin=True)
    span = parse_span(start, end, now_ms=wall_clock_ms())
    if span.partition is not None:
        moment(start or end, "--from")
    made = incidents.open(
        title, severity=severity, summary=summary, query=query, decisions=decision, start_ms=span.start,
        end_ms=span.end,
    )  # fmt: skip
    found = decisions_of(incidents.home, made)
    told(made, f"opened, {len(found.rows)} decision{'' if len(found.rows) == 1 else 's'}", json_)
    if made.query is not None:
        say(f"query: {made.query} ({found.by_query} found now)")


@app.command("add")
def add(
    incident: str = ID,
    decision: list[str] = typer.Option([], "--decision", "-d", metavar="ID", help="A decision."),
    label: list[str] = typer.Option([], "--label", metavar="ID[@VERSION]", help="A decision's label; the latest."),
    rate: list[str] = typer.Option([], "--rate", metavar="RATE", help="A sample of `lumyn rate`."),
    job: list[str] = typer.Option([], "--job", metavar="JOB", help="A relabelling, quarantine, rollback or undo."),
    policy: list[str] = typer.Option([], "--policy", metavar="NAME@V", help="A published policy."),
    kill_switch: list[str] = typer.Option([], "--kill-switch", metavar="ID", help="A kill switch that is or was on."),
    watch: list[str] = typer.Option([], "--watch", metavar="NAME", help="A saved query."),
    gameday: list[str] = typer.Option([], "--gameday", metavar="ID", help="A game day that was held."),
    pack: list[str] = typer.Option([], "--pack", metavar="FILE", help="A pack."),
    backtest: list[str] = typer.Option([], "--backtest", metavar="FILE", help="A backtest's report."),
    ticket: list[str] = typer.Option([], "--ticket", metavar="URL|KEY", help="A ticket elsewhere."),
    like: list[str] = typer.Option([], "--incident", metavar="INC-N", help="Another incident: the same again."),
    note: str = typer.Option("", "--note", help="Why it belongs to it."),
    json_: bool = JSON,
) -> None:
    """Link what belongs to an incident. Each thing is looked up: a link to nothing is refused, and then none is made.

    \b
    Examples: lumyn incident add INC-7 --decision 01JBQX8P2M... --rate rate-0123456789ab
              lumyn incident add INC-7 --ticket https://tickets.example/OPS-12 --note "the customer's"
    """
    from schemas.errors import UsageError

    given = {
        "decision": decision, "label": label, "rate": rate, "job": job, "policy": policy, "kill-switch": kill_switch,
        "watch": watch, "gameday": gameday, "pack": pack, "backtest": backtest, "ticket": ticket, "incident": like,
    }  # fmt: skip
    links = [(kind, ref, note) for kind, refs in given.items() for ref in refs]
    if not links:
        raise UsageError("nothing is given to be linked", help="`lumyn incident add --help` lists what can be")
    told(incidents_here().add(incident, links), f"{len(links)} linked", json_)


@app.command("remove")
def remove(
    incident: str = ID,
    kind: str = typer.Argument(..., help="The kind of link, such as decision."),
    ref: str = typer.Argument(..., help="What is linked, or a unique prefix."),
    why: str = WHY,
    json_: bool = JSON,
) -> None:
    """Take a link off. That it was there, and why it is not, stays in the incident's history.

    \b
    Example: lumyn incident remove INC-7 decision 01JBQX8P2M... --why "another customer"
    """
    told(incidents_here().remove(incident, kind, ref.rstrip(".…"), why), f"{kind} taken off", json_)


@app.command("note")
def note(
    incident: str = ID,
    text: str = typer.Argument(..., help="What happened, or was found; `-` reads stdin."),
    at: str | None = typer.Option(None, "--at", metavar="T", help="When it happened, if not now (UTC)."),
    json_: bool = JSON,
) -> None:
    """Add a line to an incident's timeline.

    \b
    Examples: lumyn incident note INC-7 "called the customer" --at 14:05
              lumyn incident note INC-7 - < minutes.txt
    """
    given = stdin_text() if text == "-" else text
    told(incidents_here().note(incident, given, when_ms=moment(at, "--at")), "noted", json_)


def stdin_text() -> str:
    """What stands on stdin. Raises `BadInput` for what is not UTF-8."""
    from schemas.errors import BadInput

    try:
        return sys.stdin.buffer.read(4 * 1024 * 1024).decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput("this is not UTF-8", where="stdin") from None


@app.command("status")
def status(
    incident: str = ID,
    new: str = typer.Argument(..., metavar="STATUS", help="open, contained or monitoring."),
    why: str = typer.Option("", "--why", help="What makes it so."),
    json_: bool = JSON,
) -> None:
    """Say where an incident stands.

    \b
    Example: lumyn incident status INC-7 contained --why "kill switch on"
    """
    told(incidents_here().status(incident, new, why), new, json_)


@app.command("edit")
def edit(
    incident: str = ID,
    title: str | None = typer.Option(None, "--title", "-t", help="Another title."),
    severity: str | None = typer.Option(None, "--severity", "-s", help="Another severity."),
    summary: str | None = typer.Option(None, "--summary", help="Another summary."),
    query: str | None = typer.Option(None, "--query", "-q", help="Another query."),
    start: str | None = typer.Option(None, "--from", metavar="T", help="When it began."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="When it ended (a day or minute is included)."),
    json_: bool = JSON,
) -> None:
    """Say an incident's title, severity, summary, query or window anew; what was said before is kept.

    \b
    Example: lumyn incident edit INC-7 --severity 1 --to 15:30
    """
    said = {"title": title, "severity": severity, "summary": summary, "query": query}
    times = {"start_ms": moment(start, "--from"), "end_ms": moment(end, "--to", whole=True)}
    told(incidents_here().change(incident, **said, **times), "changed", json_)


@app.command("close")
def close(incident: str = ID, why: str = WHY, json_: bool = JSON) -> None:
    """Close an incident. Open action items stay open: how many, and with whom, is said.

    \b
    Example: lumyn incident close INC-7 --why "the rate is under 0.1% for a week"
    """
    closed = incidents_here().close(incident, why)
    left = [f"{one.id} ({one.owner or 'nobody yet'})" for one in closed.unfinished]
    what = "closed"
    if left:
        items = f"{len(left)} of {len(closed.actions)} action items still open"
        what = f"closed, with {items}"
        more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
        say(one_line(f"{items}: {', '.join(left[:_NAMED])}{more}"))
    told(closed, what, json_)


@app.command("reopen")
def reopen(incident: str = ID, why: str = WHY, json_: bool = JSON) -> None:
    """Open a closed incident again.

    \b
    Example: lumyn incident reopen INC-7 --why "it happened again"
    """
    told(incidents_here().reopen(incident, why), "open again", json_)


@app.command("list")
def list_(
    status: str | None = typer.Option(None, "--status", help="unclosed, open, contained, monitoring or closed."),
    limit: int = typer.Option(50, "--limit", "-n", min=1, help="How many at the most."),
    json_: bool = JSON,
) -> None:
    """List incidents, newest first.

    \b
    Example: lumyn incident list --status unclosed
    """
    from schemas.ids import iso_time

    found = incidents_here().list(status=status, limit=limit)
    if json_:
        out_json([_short(one) for one in found])
        return
    if not found:
        say("no incidents found")
        return
    rows = [
        (
            one.id, one.severity, one.status, iso_time(one.opened_ms)[:16] + "Z", str(len(one.decisions)),
            f"{len(one.unfinished)} open of {len(one.actions)}" if one.actions else "none", one.title,
        )
        for one in found
    ]  # fmt: skip
    out(table(("incident", "severity", "status", "opened", "linked", "action items", "title"), rows))


def _short(one: Incident) -> dict[str, object]:
    whole = one.as_dict()
    return {
        **{name: whole[name] for name in ("id", "title", "severity", "status", "opened_ms", "opened_by", "closed_ms")},
        "decisions": len(one.decisions),
        "actions": len(one.actions),
        "actions_open": len(one.unfinished),
    }
