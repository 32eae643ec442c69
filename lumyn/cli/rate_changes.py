"""`lumyn rate changes`: what was otherwise in a window, ranked by how well it tells bad from good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from lumyn.cli.output import one_line, out, out_json, progress, say, table


def changes(
    start: str | None = typer.Option(None, "--from", metavar="T", help="The window's start (UTC)."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="Its end; default: now."),
    since: str | None = typer.Option(
        None, "--since", metavar="T", help="Compare from here to `--from`; default: as long as the window."
    ),
    bad: str | None = typer.Option(None, "--bad", help="What is bad, as a query: `label=failure`."),
    incident: str | None = typer.Option(
        None, "--incident", metavar="ID", help="What is bad: this incident's decisions; alone, in its own window."
    ),
    query: str | None = typer.Option(None, "--query", "-q", help="Only decisions that fit."),
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many factors to show."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """What changed in an incident's window, and what sets bad decisions apart: provenance, policy, what was asked.

    \b
    Examples: lumyn rate changes --from '2024-12-19 14:00' --to '2024-12-19 15:00' --bad label=failure
              lumyn rate changes --from 2024-12-19 --since 2024-12-01 --query action_type=refund
              lumyn rate changes --incident INC-7
    Exit 0: compared. 3: records are not what was decided.
    """
    from lumyn.cli.rate import left_out
    from lumyn.uncontrolled import changed_in, window_of
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError

    if incident is not None and bad is not None:
        raise UsageError("`--incident` and `--bad` both say what is bad", help="give one of them")
    if start is None and (incident is None or end is not None or since is not None):
        raise UsageError("`--from` is missing: the window's start", help="or `--incident ID` alone: its own window")
    window = window_of(start, end, since) if start is not None else None
    with progress("reading decisions", None) as tick:
        if incident is None:
            assert window is not None
            told = changed_in(existing_home(), window, query=query, bad=bad, say=say, tick=tick)
        else:
            told = _around(incident, window, query, tick)
    if json_:
        out_json(told)
    else:
        _show(told, limit)
    return left_out(told)


def _around(
    name: str, window: tuple[int, int, int] | None, query: str | None, tick: Callable[[int], None]
) -> dict[str, Any]:
    from lumyn.cli.incident import incidents_here
    from lumyn.incidents.around import changes_of, window_around
    from lumyn.incidents.evidence import decisions_of
    from schemas.errors import NotFound

    incidents = incidents_here()
    incident = incidents.show(name)
    found = decisions_of(incidents.home, incident)
    if not found.rows:
        raise NotFound(f"{incident.id} has no decisions", help=f"`lumyn incident add {incident.id} --decision ID`")
    return changes_of(
        incidents.home, incident, found, window or window_around(incident, found), query=query, say=say, tick=tick
    )


def _show(told: Mapping[str, Any], limit: int) -> None:
    out(f"before: {_part(told['since'], told['from'], told['before'])}")
    out(f"window: {_part(told['from'], told['to'], told['window'])}")
    if not told["before"]["n"] or not told["window"]["n"]:
        say("one of them is empty, so there is nothing to compare: `--since` reaches further back")
    out("")
    if told["factors"]:
        out(table(("factor", "separates", "p (Holm)", "PSI (by chance)", "p (Holm)", "in the window"), [
            (one_line(one["factor"]), *_figures(one), one_line(_what(one))) for one in told["factors"][:limit]
        ]))  # fmt: skip
    else:
        out("nothing changed: every factor has one value throughout")
    if told["not_compared"]:
        say("another value nearly each time, so not compared: " + ", ".join(map(one_line, told["not_compared"])))
    if told["named_by_query"]:
        say("not compared, since the query names them: " + ", ".join(map(one_line, told["named_by_query"])))
    if told["too_many_fields"]:
        say(f"not compared, since requests have too many fields: {told['too_many_fields']} that the fewest have")
    if told["unreadable"]:
        say(f"what was asked in {told['unreadable']} decisions is erased, or its key is not here: not compared")
    if told["ranked_by"] == "differs":
        say("ranked by how much they differ; `--bad QUERY` ranks them by how well they tell bad from good")
    for one in told["canary"]:
        score = "no answers" if one["drift_score"] is None else f"drift score {one['drift_score']:.0%}"
        out(f"canary `{one_line(one['name'])}` {one['at'][:19]}Z: {score}{', DRIFTED' if one['drifted'] else ''}")


def _part(start: str, end: str, figure: Mapping[str, Any]) -> str:
    bad = "" if figure.get("rate") is None else f", {figure['events']} bad ({figure['rate']:.1%})"
    return f"{start[:19]}Z to {end[:19]}Z: {figure['n']} decisions{bad}"


def _figures(one: Mapping[str, Any]) -> tuple[str, str, str, str]:
    separates, differs = one["separates"], one["differs"]
    return (
        f"{separates['association']:.2f}" if separates else "",
        f"{separates['p_adjusted']:.2g}" if separates else "",
        f"{differs['psi']:.2f} ({differs['psi_expected']:.2f})" if differs else "",
        f"{differs['p_adjusted']:.2g}" if differs else "",
    )


def _what(one: Mapping[str, Any]) -> str:
    from streams.factors import number_text

    parts = []
    if one["new"]:
        parts.append("new: " + ", ".join(one["new"][:3]))
    if one["gone"]:
        parts.append("gone: " + ", ".join(one["gone"][:3]))
    if one["median"] is not None and None not in one["median"]:
        parts.append(f"median {number_text(one['median'][0])} -> {number_text(one['median'][1])}")
    worst = [value for value in one["values"] if value.get("bad", {}).get("events")]
    if worst:
        most = max(worst, key=lambda value: (value["bad"]["lower"], value["value"]))
        parts.append(f"worst: {most['value']}, {most['bad']['events']} of {most['bad']['n']} bad")
    return "; ".join(parts)
