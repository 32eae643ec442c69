"""`lumyn watch`: what is measured again and again."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from lumyn.cli.output import one_line, out, out_json, progress, say, table

app = typer.Typer(help="Measure again and again.", no_args_is_help=True, rich_markup_mode=None)


@app.command("canary")
def canary(
    command: str | None = typer.Option(None, "--command", help="The agent: input on stdin, JSON on stdout; no shell."),
    url: str | None = typer.Option(None, "--url", help="The agent behind HTTP: the input is POSTed as JSON."),
    query: str | None = typer.Option(None, "--query", "-q", help="Which decisions the set is chosen from."),
    size: int = typer.Option(50, "--size", min=1, max=5000, help="How many decisions the set has."),
    name: str = typer.Option("canary", "--name", help="Its name; each has a set and a history of its own."),
    every: str | None = typer.Option(None, "--every", help="Again and again: 15m, 6h. Default: once, for cron."),
    times: int | None = typer.Option(None, "--times", min=1, help="With `--every`: so often, then end."),
    outcome: str = typer.Option("action.type", "--outcome", help="What an answer counts as: a path, or `exit`."),
    parallel: int = typer.Option(4, "--parallel", min=1, max=256, help="How many runs at once."),
    timeout_s: float = typer.Option(60.0, "--timeout", min=0.05, max=86_400, help="Seconds that a run may take."),
    new_set: bool = typer.Option(False, "--new-set", help="Choose the set anew; the history begins again."),
    history: bool = typer.Option(False, "--history", help="Run nothing: show the rounds so far."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Run a held-out set of recorded requests through the agent on a schedule, and chart how far it has drifted.

    \b
    Examples: lumyn watch canary --command './agent.py' --query action_type=refund --size 50
              lumyn watch canary --command './agent.py' --every 15m
              lumyn watch canary --history
    The agent really runs: give it tools that do nothing. The set is chosen once, and each round is compared with the
    first. Exit 0: no drift. 1: it has drifted. 4: no run of the last round gave an answer. With `--every` and without
    `--times` it runs until SIGTERM or Ctrl-C, and exit 0 says that it was stopped.
    """
    from lumyn.canary import as_ticks, choose, one_round, rounds_of
    from lumyn.cli.rate import the_agent
    from lumyn.durations import parse_duration
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.outcome import parse_outcome

    seconds = parse_duration(every, "--every") if every is not None else None
    if times is not None and seconds is None:
        raise UsageError("`--times` goes with `--every`")
    if history:
        ticks = as_ticks(rounds_of(existing_home(), name))
        _show(ticks, json_)
        return _code(ticks)
    if (command is None) == (url is None):
        raise UsageError("give `--command` or `--url`: what is run", help="`--history` shows the rounds so far")
    counted = parse_outcome(outcome)
    if counted.pattern is not None:
        raise UsageError("a canary is compared with recorded fields", help="`--outcome` is a path, or `exit`")
    agent, named = the_agent(command, url, timeout_s)
    home = existing_home()
    before = [] if new_set else rounds_of(home, name)
    if before and before[-1].header["asked"]["outcome"] != counted.text:
        raise UsageError(f"canary `{name}` counts `{before[-1].header['asked']['outcome']}`", help="or `--new-set`")
    chosen = list(before[-1].header["asked"]["decisions"]) if before else choose(home, name, query, size, say)
    done, waits = 0, False
    try:
        while True:
            start, waits = time.monotonic(), False
            with progress("running the canary", len(chosen)) as tick:
                before.append(one_round(home, name, chosen, agent, named, counted, parallel, say, lambda run: tick()))
            done += 1
            say(_line(as_ticks(before)[-1]))
            if seconds is None or done == times:
                break
            waits = True
            time.sleep(max(0.0, seconds - (time.monotonic() - start)))
    except KeyboardInterrupt:  # SIGTERM, too
        if seconds is None or times is not None:  # it was to end by itself
            raise
        say("stopped" if waits else "stopped; the round that was under way is not kept")
        _show(as_ticks(before), json_)
        return 0
    ticks = as_ticks(before)
    _show(ticks, json_)
    return _code(ticks[-done:])


def _code(ticks: Sequence[Mapping[str, Any]]) -> int:
    if ticks and not ticks[-1]["answered"]:
        return 4
    return 1 if any(one["drifted"] for one in ticks) else 0


def _line(one: Mapping[str, Any]) -> str:
    if one["drift_score"] is None:
        return f"round {one['round']}: {one['answered']} of {one['requests']} answered, nothing to compare"
    new = "".join(f"; new {name}: {', '.join(values)}" for name, values in one["new_metadata"].items())
    drifted = ": it has DRIFTED" if one["drifted"] else ""
    return one_line(f"round {one['round']}: drift score {one['drift_score']:.1%}{drifted}{new}")


def _show(ticks: Sequence[Mapping[str, Any]], json_: bool) -> None:
    from lumyn.backtest_words import share
    from lumyn.cli.rate_text import bar

    if json_:
        out_json(list(ticks))
        return
    if not ticks:
        say("no rounds yet")
        return
    out(table(("round", "at", "answered", "as recorded, 95%", "drift score", ""), [
        (str(one["round"]), one["at"][:19] + "Z", f"{one['answered']} of {one['requests']}", share(one["agreement"]),
         "" if one["drift_score"] is None else f"{one['drift_score']:.1%}",
         bar(one["drift_score"] or 0) + (" DRIFTED" if one["drifted"] else ""))
        for one in ticks
    ]))  # fmt: skip
