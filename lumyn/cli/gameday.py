"""`lumyn gameday`: incidents played again, on a stage of their own, while things go wrong on purpose."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from lumyn.cli.output import escaped, one_line, out, out_json, progress, say, table

app = typer.Typer(
    help="Play an incident again under faults, and see what must hold.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("run")
def run(
    scenario: list[Path] = typer.Argument(..., metavar="SCENARIO.yml", help="One scenario or several."),
    markdown: bool = typer.Option(False, "--markdown", help="Print as Markdown."),
    keep: Path | None = typer.Option(None, "--keep", metavar="FOLDER", help="Keep the game day's home here."),
    on: str = typer.Option("embedded", "--on", help="Where: embedded, or kafka (topics and workers of its own)."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Play requests again by today's policy and memory, in an isolated home, with faults, and check what must hold.

    \b
    Examples: lumyn gameday run examples/gamedays/flown-flights.yml
              lumyn gameday run scenario.yml --markdown
              lumyn gameday run scenario.yml --keep looked-at
    Exit 0: all holds. 1: an expectation does not. 3: a decision was lost, made twice, or does not come out the same.
    """
    from lumyn.gamedays.reading import read_scenario
    from schemas.errors import UsageError

    if on not in ("embedded", "kafka"):
        raise UsageError(f"`--on {on}`: a game day is played on `embedded` or `kafka`")
    if json_ and markdown:
        raise UsageError("give `--json` or `--markdown`, not both")
    if keep is not None and len(scenario) > 1:
        raise UsageError("`--keep` takes one scenario")
    read = [read_scenario(path) for path in scenario]
    reports = [_played(one, keep, on) for one in read]
    if json_:
        out_json(reports[0] if len(reports) == 1 else reports)
    else:
        out("\n\n".join(map(_as_markdown if markdown else _as_text, reports)))
    if keep is not None:
        say(f"look around: export LUMYN_HOME={one_line(str(keep.absolute()))} LUMYN_PREFIX=gameday; lumyn list")
    if not all(report["sound"] for report in reports):
        return 3
    return 0 if all(report["passed"] for report in reports) else 1


def _played(scenario: Any, keep: Path | None, on: str) -> dict[str, Any]:
    from lumyn.backtest_plan import home_of
    from lumyn.config import resolve
    from lumyn.gamedays.past import save
    from lumyn.gamedays.run import run as play

    with ExitStack() as bars:
        bar = lambda what, size: bars.enter_context(progress(what, size))  # noqa: E731
        report = play(scenario, None, say=say, keep=keep, on=on, begin=bar)
    if home_of(None) is not None:
        name = save(resolve(None), report)
        say(f"kept as {name}: `lumyn gameday show {name}`")
        if report["incident"] is not None:
            say(_linked(report["incident"], name, "holds" if report["passed"] else "fails"))
    return report


def _linked(incident: str, name: str, note: str) -> str:
    """The run belongs to its incident, where that is here; what came of it."""
    from lumyn.incidents.incidents import Incidents
    from lumyn.wiring import existing_home
    from schemas.errors import LumynError

    try:
        Incidents(existing_home()).add(incident, [("gameday", name, note)])
    except LumynError as error:
        return f"not linked to {one_line(incident)}: {error.message}"
    return f"linked to {one_line(incident)}"


def _as_text(report: dict[str, Any]) -> str:
    from lumyn.gamedays.report import as_text

    return as_text(report)


def _as_markdown(report: dict[str, Any]) -> str:
    from lumyn.gamedays.report import as_markdown

    return as_markdown(report, escaped)


@app.command("check")
def check(
    scenario: list[Path] = typer.Argument(..., metavar="SCENARIO.yml", help="One scenario or several."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Check scenarios without playing them: all errors at once, with line and column.

    \b
    Example: lumyn gameday check scenario.yml
    """
    from lumyn.gamedays.reading import read_scenario
    from schemas.errors import ScenarioInvalid

    problems: list[str] = []
    for path in scenario:
        try:
            read_scenario(path)
        except ScenarioInvalid as error:
            problems += error.problems
    if json_:
        out_json({"valid": not problems, "errors": problems})
    else:
        out("\n".join(map(one_line, problems)) if problems else "valid")
    return 2 if problems else 0


@app.command("from-incident")
def from_incident(
    incident: str = typer.Argument(..., metavar="INC-ID", help="As `lumyn incident list` shows it."),
    to_file: Path = typer.Option(..., "--out", metavar="FILE", help="The scenario; packs and labels stand beside it."),
    policy: str | None = typer.Option(
        None, "--policy", metavar="FILE", help="A policy, named from the scenario's folder."
    ),
    memory: bool = typer.Option(True, "--memory/--no-memory", help="Whether the labels of today go with it."),
    faults: bool = typer.Option(False, "--faults", help="Under load, repeats and an outage of the memory."),
    expect: list[str] = typer.Option([], "--expect", metavar="TEXT", help="What else must hold, as in `expect`."),
    limit: int = typer.Option(200, "--limit", min=1, max=1000, help="At most so many, linked and labelled first."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Make a scenario of an incident's decisions; what their labels say becomes what must hold.

    \b
    Examples: lumyn gameday from-incident INC-1 --out gamedays/inc-1.yml
              lumyn gameday from-incident INC-1 --out inc-1.yml --faults --expect 'ALLOW where amount_usd > 500 == 0'
    Packs and labels hold what was asked: they are for whoever may read the decisions.
    """
    from lumyn.cli.new_key import telling_new_key
    from lumyn.gamedays.from_incident import write_scenario
    from lumyn.wiring import existing_home

    home = existing_home()
    with telling_new_key(home):
        written = write_scenario(
            home, incident, to_file, memory=memory, policy=policy, faults=faults, expect=expect, limit=limit
        )
    for one in written.left_out:
        say(f"left out: {one_line(one)}")
    told = {"scenario": str(written.path), "packs": written.packs, "labels": written.labels}
    if json_:
        out_json({**told, "expectations": written.expectations, "left_out": list(written.left_out)})
    else:
        labels = "no memory" if written.labels is None else f"{written.labels} label events"
        out(f"{written.path}: {written.packs} packs, {labels}, {written.expectations} expectations")


@app.command("list")
def list_(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List the game days that were played at this home, the newest first.

    \b
    Example: lumyn gameday list
    """
    from lumyn.config import resolve
    from lumyn.gamedays.past import all_of

    found = all_of(resolve(None))
    if json_:
        out_json([{"id": one["id"], "at": one["at"], **_summary(one["report"])} for one in found])
        return
    rows = []
    for one in found:
        told = _summary(one["report"])
        how = "holds" if told["passed"] else "FAILS"
        rows.append((one["id"], one["at"], told["name"], how, told["incident"] or ""))
    out(table(("id", "at", "name", "", "incident"), rows) if rows else "no game days yet")


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("name", "passed", "sound", "incident")}


@app.command("show")
def show(
    name: str = typer.Argument(..., metavar="ID", help="As `lumyn gameday list` shows it."),
    markdown: bool = typer.Option(False, "--markdown", help="Print as Markdown."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Show the report of a game day that was played.

    \b
    Example: lumyn gameday show gameday-0123456789ab
    """
    from lumyn.config import resolve
    from lumyn.gamedays.past import load

    report = load(resolve(None), name)["report"]
    if json_:
        out_json(report)
    else:
        out(_as_markdown(report) if markdown else _as_text(report))
