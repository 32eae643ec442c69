"""`lumyn rate`: how often an agent does something: by running it again, or in recorded traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import out_json, progress, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lumyn.agent_runs import Agent, AgentRun
    from streams.rate_sample import RateSample

app = typer.Typer(rich_markup_mode=None)
_RUNS, _PARALLEL = 100, 4
_INTERRUPTED = 130


@app.callback(invoke_without_command=True)
def rate(
    context: typer.Context,
    pack: Path | None = typer.Option(None, "--pack", metavar="PACK.zip", help="Run the agent on this pack's input."),
    decision: str | None = typer.Option(None, "--decision", metavar="ID", help="The same for a decision of this home."),
    query: str | None = typer.Option(None, "--query", "-q", help="Recorded traffic instead: what a query finds."),
    like: str | None = typer.Option(None, "--like", metavar="ID", help="Recorded traffic like this decision."),
    similarity: float = typer.Option(0.9, "--similarity", min=0.0, max=1.0, help="How alike, for `--like`."),
    bad: str | None = typer.Option(None, "--bad", help="With `--query`, `--like`: the event as a query."),
    command: str | None = typer.Option(None, "--command", help="The agent: input on stdin, JSON on stdout; no shell."),
    url: str | None = typer.Option(None, "--url", help="The agent behind HTTP: the input is POSTed as JSON."),
    count: int = typer.Option(_RUNS, "--runs", min=1, max=100_000, help="How many runs at the most."),
    parallel: int = typer.Option(_PARALLEL, "--parallel", min=1, max=256, help="How many at once."),
    timeout_s: float = typer.Option(60.0, "--timeout", min=0.05, max=86_400, help="Seconds that a run may take."),
    outcome: str | None = typer.Option(
        None, "--outcome", help="What an answer counts as: a path, /regex/ or `exit`; default action.type."
    ),
    event: str | None = typer.Option(None, "--event", help="The outcome that was reported; default: the recorded one."),
    reported: str | None = typer.Option(None, "--reported", help="How often it was: `3 of 200`, `1.5%`."),
    margin: float | None = typer.Option(
        None, "--margin", min=0.001, max=0.5, help="Stop once the rate is known to within this, such as 0.05."
    ),
    all_runs: bool = typer.Option(False, "--all-runs", help="Make all runs, whatever is known before."),
    with_action: bool = typer.Option(False, "--with-action", help="Give the agent the recorded action, too."),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a pack by a key not known here."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """How often does an agent do this? Run it again on what it was given, or look at recorded traffic.

    \b
    Examples: lumyn rate --pack incident.zip --runs 100 --command './agent.py'
              lumyn rate --pack incident.zip --url http://127.0.0.1:8000/agent --reported '3 of 200'
              lumyn rate --decision 01JBQX8P2M... --command './agent.py' --outcome '/in (\\w+) (hours|days)/'
              lumyn rate --query "created_at > '2024-12-01'" --bad "label=failure"
              lumyn rate --like 01JBQX8P2M... --outcome verdict
    The agent really runs, so often: give it tools that do nothing. Runs that hang, fail or flood are counted as such.
    Exit 0: measured. 1: the rate is not the reported one. 3: records were changed. 4: no run gave an answer.
    Ctrl-C ends the runs, and keeps and shows what was measured until then: exit 130.
    """
    if context.invoked_subcommand is not None:
        return 0
    from schemas.errors import UsageError

    given = [name for name, value in (("--pack", pack), ("--decision", decision)) if value is not None]
    traffic = query is not None or like is not None
    if len(given) + traffic > 1:
        raise UsageError("give one of `--pack` and `--decision`, or `--query` and `--like`: not both")
    if traffic:
        if command is not None or url is not None or reported is not None or margin is not None:
            raise UsageError("nothing is run for recorded traffic", help="`--pack` or `--decision` run an agent")
        return _traffic(query, like, similarity, bad, outcome, event, json_)
    if bad is not None:
        raise UsageError("`--bad` is for recorded traffic", help="beside `--query` or `--like`")
    if not given:
        say(context.get_help())
        return 2
    if (command is None) == (url is None):
        raise UsageError("give `--command` or `--url`: what is run again", help="`lumyn rate --help` has examples")
    from lumyn.config import resolve
    from lumyn.rate_files import save
    from lumyn.rating import INTERRUPTED, Plan, recorded_here, recorded_in_pack, sample, to_keep
    from memory_service.redaction import memory_paths
    from streams.behaviour import parse_reported
    from streams.outcome import DEFAULT, parse_outcome

    plan = Plan(
        count,
        min(parallel, count),
        parse_outcome(outcome or DEFAULT),
        event,
        parse_reported(reported) if reported is not None else None,
        margin,
        with_action,
        all_runs,
        memory_paths(resolve().redact),
    )
    agent, named = the_agent(command, url, timeout_s)
    record = recorded_in_pack(pack, trust_signer=trust_signer) if pack else recorded_here(str(decision))
    failing: list[AgentRun] = []
    with progress("running the agent", count) as tick:

        def seen(run: AgentRun) -> None:
            tick()
            if not failing and (run.status != "ended" or run.exit_code != 0):
                failing.append(run)

        taken = sample(record, agent, named, plan, seen)
    save(resolve(), to_keep(taken, record, plan.hidden))
    if failing and failing[0].said:
        say(f"the first run that failed says: {failing[0].said}")
    code = show_sample(taken, json_)
    if plan.reported is None and not json_ and taken.header["asked"]["event"] is not None and taken.tally.answered:
        say("`--reported '1 of 2000'` says whether this fits what was reported")
    return _INTERRUPTED if taken.stopped == INTERRUPTED else code


def _traffic(
    query: str | None,
    like: str | None,
    similarity: float,
    bad: str | None,
    outcome: str | None,
    event: str | None,
    json_: bool,
) -> int:
    from lumyn.cli.rate_text import traffic_text
    from lumyn.traffic import rate_of_query
    from lumyn.wiring import existing_home
    from streams.outcome import DEFAULT, parse_outcome

    with progress("reading decisions", None) as tick:
        told = rate_of_query(
            existing_home(), query, parse_outcome(outcome or DEFAULT), event=event, bad=bad, like=like,
            similarity=similarity, say=say, tick=tick,
        )  # fmt: skip
    if json_:
        out_json(told)
    else:
        traffic_text(told)
    return left_out(told)


def left_out(told: Mapping[str, Any]) -> int:
    """Say what was not counted; returns the exit code."""
    if told["closed"]:
        say(f"{told['closed']} decisions are left out: what was asked is erased, or its key is not here")
    if told["unsound"]:
        say(f"{told['unsound']} records are not what was decided, and left out: `lumyn verify` names them")
    return 3 if told["unsound"] else 0


def the_agent(command: str | None, url: str | None, timeout_s: float) -> tuple[Agent, str]:
    """The agent, and what a sample calls it: its program, not its arguments, which may hold secrets."""
    from urllib.parse import urlsplit

    from lumyn.agent_runs import command_agent, url_agent
    from schemas.digests import digest

    if command is not None:
        return command_agent(command, timeout_s=timeout_s), f"{command.split()[0]} {digest(command.encode())[:19]}"
    assert url is not None
    parts = urlsplit(url)
    return url_agent(url, timeout_s=timeout_s), f"{parts.scheme}://{parts.hostname} {digest(url.encode())[:19]}"


@app.command("show")
def show(
    name: str = typer.Argument(..., metavar="RATE_ID", help="As `lumyn rate list` shows it."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Show a stored sample; its signature is checked first.

    \b
    Example: lumyn rate show rate-0123456789ab
    Exit 0: it is shown. 1: the rate is not the reported one. 3: it was changed after it was taken.
    """
    from lumyn.config import resolve
    from lumyn.rate_files import load

    return show_sample(load(resolve(), name), json_)


@app.command("list")
def list_(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> int:
    """List the stored samples, oldest first.

    \b
    Example: lumyn rate list
    Exit 3: one of them was changed after it was taken.
    """
    from lumyn.cli.rate_text import list_text
    from lumyn.config import resolve
    from lumyn.rate_files import load_all
    from lumyn.rating import as_row

    found, wrong = load_all(resolve(), "pack")
    rows = [as_row(sample) for sample in found]
    if json_:
        out_json(rows)
    elif rows:
        list_text(rows)
    else:
        say("no samples yet: `lumyn rate --pack PACK.zip --command ...` takes one")
    for error in wrong:
        say(f"not shown: {error}")
    return max((error.exit_code for error in wrong), default=0)


def show_sample(taken: RateSample, json_: bool) -> int:
    """Print a sample and say what it means; returns the exit code."""
    from lumyn.cli.rate_text import sample_text
    from lumyn.rating import as_dict

    told = as_dict(taken)
    if json_:
        out_json(told)
    else:
        sample_text(told)
    if not told["answered"]:
        say("no run gave an answer: nothing is known of the rate")
        return 4
    fits = (told["event"] or {}).get("reported")
    return 1 if fits and fits["consistent"] is False else 0
