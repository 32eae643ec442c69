"""`lumyn incident write` and `action`: what people add to a postmortem."""

from __future__ import annotations

import typer

from lumyn.cli.incident import ID, JSON, incidents_here, stdin_text, told
from lumyn.cli.output import out, say


def write(
    incident: str = ID,
    section: str | None = typer.Option(None, "--section", help="The part, such as why1; without it, they are listed."),
    text: str | None = typer.Option(None, "--text", help="What is to stand there, in Markdown; `-` reads stdin."),
    json_: bool = JSON,
) -> None:
    """Write a part of the postmortem. It is kept with the incident, and stands in every postmortem made from then on.

    \b
    Examples: lumyn incident write INC-7 --section why1 --text "It took the SLA from a cached page."
              lumyn incident write INC-7 --section summary - < summary.md
    """
    from lumyn.incidents.sections import SECTIONS, section_named
    from schemas.errors import UsageError

    incidents = incidents_here()
    if section is None:
        written = incidents.show(incident).sections
        for one in SECTIONS:
            out(f"{one.name:<12} {'written' if one.name in written else 'open   '}  {one.asks}")
        return
    if text is None:
        raise UsageError("`--text` is what is to stand there", help="`--text -` reads it from stdin")
    name = section_named(section).name
    told(incidents.write(incident, name, stdin_text() if text == "-" else text), f"{name} written", json_)


def action(
    incident: str = ID,
    item: str | None = typer.Argument(None, metavar="[A-N]", help="The action item to change; without it, a new one."),
    text: str | None = typer.Option(None, "--text", help="What is to be done."),
    owner: str | None = typer.Option(None, "--owner", help="Who does it."),
    state: str | None = typer.Option(None, "--state", help="open, doing, done or dropped."),
    due: str | None = typer.Option(None, "--due", metavar="DAY", help="Until when, such as 2025-01-31."),
    target: str | None = typer.Option(None, "--target", help="Of a rate: 'from 0.4% to under 0.1%'."),
    query: str | None = typer.Option(None, "--query", "-q", help="What the target's rate counts; a watch is saved."),
    of: str | None = typer.Option(None, "--of", help="Among which decisions; all, if not given."),
    watch: str | None = typer.Option(None, "--watch", metavar="NAME", help="A watch that is there already."),
    ticket: str | None = typer.Option(None, "--ticket", metavar="URL|KEY", help="Its ticket elsewhere."),
    json_: bool = JSON,
) -> None:
    """Add an action item, or say where one stands. One about a rate has a target, which `lumyn watch` checks.

    \b
    Examples: lumyn incident action INC-7 --text "Lower the malformed-tool-call rate" --owner mia --due 2025-01-31 \\
                --target "from 0.4% to under 0.1%" --query "label=failure" --of "action_type=refund"
              lumyn incident action INC-7 A1 --state done
    """
    from lumyn.incidents.monitors import follow_target, watch_for_target
    from schemas.errors import UsageError
    from schemas.ids import iso_time
    from streams.local_log import wall_clock_ms

    incidents = incidents_here()
    if (query is not None and item is None and target is None) or (of is not None and query is None):
        raise UsageError("`--query` says what the rate of a `--target` counts, and `--of` among which decisions")
    after = incidents.action(
        incident, item, text=text, owner=owner, state=state, due=due, target=target, watch=watch, ticket=ticket
    )
    name = item.upper() if item is not None else after.actions[-1].id
    if query is not None or of is not None:
        after = watch_for_target(incidents, after, name, query=query, of=of)
    elif (other := follow_target(incidents, after, name)) is not None:
        say(f"its watch `{other}` is not its own, and goes on checking its own target: `--query` makes one for this")
    one = next(action for action in after.actions if action.id == name)
    if one.watch is not None and query is not None:
        say(f"`lumyn watch check {one.watch}` checks the target")
    elif one.target is not None and one.watch is None:
        say("nothing checks this target yet: `--query` says what its rate counts, or `--watch` names a watch")
    if state == "dropped" and one.watch is not None:
        say(f"`{one.watch}` is watched on; `lumyn watch remove {one.watch}` ends that")
    today = iso_time(wall_clock_ms())[:10]
    if due and one.due is not None and one.due < today and one in after.unfinished:
        say(f"{name} is due on {one.due}, which is past: it is {today} (UTC)")
    told(after, f"{name} {one.state}", json_)
