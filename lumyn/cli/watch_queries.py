"""`lumyn watch add|list|show|remove|check|run`: saved queries as rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import one_line, out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.watches import Watch

_JSON = typer.Option(False, "--json", help="Print as JSON.")
_NAME = typer.Argument(..., metavar="NAME", help="As `lumyn watch list` shows it.")


def add(
    name: str = typer.Argument(..., metavar="NAME", help="Small letters, digits, `.`, `-`, `_`."),
    query: str = typer.Option(..., "--query", "-q", help="Which decisions are counted."),
    of: str | None = typer.Option(None, "--of", help="Among which, as a query; default: among all."),
    alert: str | None = typer.Option(None, "--alert", help="Too often: 'rate > 0.1%', or with a budget 'burn > 14.4'."),
    target: str | None = typer.Option(None, "--target", help="What is to be reached: 'rate < 0.1%'."),
    by: str | None = typer.Option(None, "--by", metavar="DAY", help="By when the target must be met: 2025-03-31."),
    budget: str | None = typer.Option(None, "--budget", help="The rate that may be, which burn is measured against."),
    window: str = typer.Option("1h", "--window", help="The short window: does it still go on?"),
    long_window: str | None = typer.Option(None, "--long-window", help="The long one: does it matter? 6 short ones."),
    target_window: str = typer.Option("7d", "--target-window", help="The window that the target is measured over."),
    least: int = typer.Option(10, "--least", help="So many decisions it takes to say anything of a rate."),
    incident: str | None = typer.Option(None, "--incident", metavar="ID", help="The incident that it belongs to."),
    why: str | None = typer.Option(None, "--why", help="What it is for."),
    json_: bool = _JSON,
) -> None:
    """Save a query to be watched as a rate.

    \b
    Examples: lumyn watch add failed-refunds --query 'label=failure' --of 'action_type=refund' --alert 'rate > 0.1%'
              lumyn watch add abstains -q 'verdict=ABSTAIN' --budget 0.1% --alert 'burn > 14.4' --window 5m
              lumyn watch add fixed --query 'reason=CHARGEBACK' --target 'rate < 0.1%' --by 2025-03-31 --incident inc-7
    An alert needs both windows beyond the threshold, and the long one's 95% interval, too.
    """
    from lumyn.watches import make_watch, save_watch
    from lumyn.wiring import existing_home
    from streams.local_log import wall_clock_ms

    made = make_watch(
        name, query, of=of, alert=alert, target=target, by=by, budget=budget, window=window, long_window=long_window,
        target_window=target_window, least=least, incident=incident, why=why, now_ms=wall_clock_ms(),
    )  # fmt: skip
    save_watch(existing_home(), made)
    if json_:
        out_json(made.as_dict())
    else:
        say(f"watching {made.name}; `lumyn watch check {made.name}` measures it now")


def list_(
    incident: str | None = typer.Option(None, "--incident", metavar="ID", help="Only an incident's."),
    json_: bool = _JSON,
) -> None:
    """List the watches, each with what its last round measured.

    \b
    Example: lumyn watch list
    """
    from lumyn.watches import history, list_watches
    from lumyn.wiring import existing_home

    home = existing_home()
    found = [
        (watch, next(iter(history(home, watch.name, limit=1)), None)) for watch in list_watches(home, incident=incident)
    ]
    if json_:
        out_json([{**watch.as_dict(), "last": last} for watch, last in found])
        return
    if not found:
        say("no watches yet: `lumyn watch add NAME --query Q` saves one")
        return
    head = ("watch", "query", "of", "alert", "target", "state", "long window, 95%", "checked")
    out(table(head, [_row(watch, last) for watch, last in found]))


def _row(watch: Watch, last: Mapping[str, Any] | None) -> tuple[str, ...]:
    queries = (one_line(watch.query), one_line(watch.of or ""))
    what = (watch.name, *queries, watch.alert or "", _due(watch.target, watch.by))
    if last is None:
        return (*what, "", "", "never")
    return (*what, _states(last), _share(last["windows"]["long"]), f"{last['at'][:19]}Z")


def show(
    name: str = _NAME,
    rounds: int = typer.Option(20, "--rounds", min=1, max=10_000, help="How many of the last rounds."),
    json_: bool = _JSON,
) -> None:
    """Show a watch and its last rounds; of one that was removed, what was measured.

    \b
    Example: lumyn watch show failed-refunds --rounds 50
    """
    from lumyn.cli.rate_text import bar
    from lumyn.durations import duration_text
    from lumyn.watches import history, watch_named
    from lumyn.wiring import existing_home
    from schemas.errors import NotFound

    home = existing_home()
    past = history(home, name, limit=rounds)
    try:
        saved = watch_named(home, name)
    except NotFound:
        if not past:
            raise
        saved = None
    if json_:
        out_json({"watch": None if saved is None else saved.watch.as_dict(), "rounds": past})
        return
    if saved is None:
        say(f"{name} is not watched any more")
    else:
        watch = saved.watch
        shown = {
            "query": watch.query, "of": watch.of, "alert": watch.alert, "target": _due(watch.target, watch.by) or None,
            "budget": None if watch.budget is None else f"{watch.budget * 100:.10g}%",
            "windows": f"{duration_text(watch.window_s)} and {duration_text(watch.long_window_s)}",
            "incident": watch.incident, "why": watch.why,
        }  # fmt: skip
        for key, value in shown.items():
            if value is not None:
                out(one_line(f"{key}: {value}"))
    if not past:
        say("it was never checked: `lumyn watch check`")
        return
    top = max([one["windows"]["long"]["rate"] or 0.0 for one in past])
    out(table(("checked", "state", "long window, 95%", "events", ""), [
        (
            f"{one['at'][:19]}Z", _states(one), _share(one["windows"]["long"]),
            f"{one['windows']['long']['events']} of {one['windows']['long']['count']}",
            bar((one["windows"]["long"]["rate"] or 0.0) / top) if top else "",
        )
        for one in past
    ]))  # fmt: skip


def remove(
    name: str = _NAME,
    redact: bool = typer.Option(False, "--redact", help="Take its name, queries and reason out, too; for good."),
    json_: bool = _JSON,
) -> None:
    """Watch it no more; what was measured is kept.

    \b
    Examples: lumyn watch remove failed-refunds
              lumyn watch remove failed-refunds --redact
    """
    from lumyn.watches import redact_watch, remove_watch
    from lumyn.wiring import existing_home

    if redact:
        other = redact_watch(existing_home(), name)
        if json_:
            out_json({"removed": name, "kept_as": other})
        else:
            say(f"what it asked is gone; `lumyn watch show {other}` still shows what was measured")
        return
    remove_watch(existing_home(), name)
    if json_:
        out_json({"removed": name})
        return
    say(f"{name} is not watched any more; `lumyn watch show {name}` still shows what was measured")


def check(
    names: list[str] = typer.Argument(None, metavar="[NAME...]", help="Only these; default: all of them."),
    json_: bool = _JSON,
) -> int:
    """Measure the watches once, now, and keep what was measured.

    \b
    Examples: lumyn watch check
              lumyn watch check failed-refunds --json
    Exit 0: none alerts, which is not to say that all is well: see the states. 1: one alerts, or missed its target.
    """
    from lumyn.watches import check as check_one
    from lumyn.watches import check_all
    from lumyn.wiring import existing_home

    home = existing_home()
    results = [check_one(home, name) for name in dict.fromkeys(names)] if names else check_all(home)
    _tell(results, json_)
    return _code(results)


def run(
    every: str = typer.Option("1m", "--every", help="How often: 30s, 5m, 1h."),
    times: int | None = typer.Option(None, "--times", min=1, help="So many rounds, then end."),
    metrics_port: int = typer.Option(0, "--metrics-port", min=0, max=65535, help="Serve Prometheus metrics there."),
    metrics_host: str = typer.Option("127.0.0.1", "--metrics-host", help="The address that metrics are served on."),
    json_: bool = typer.Option(False, "--json", help="Print each watch of each round as a line of JSON."),
) -> int:
    """Measure the watches again and again, until SIGTERM or Ctrl-C; say what changes.

    \b
    Examples: lumyn watch run --every 1m --metrics-port 9464
              lumyn watch run --every 5m --times 12 --json
    deploy/alerts.yml and deploy/grafana have alerts and a dashboard for its metrics. Exit 1: the last round alerts.
    """
    from lumyn.durations import parse_duration
    from lumyn.watches.running import watch_on
    from lumyn.wiring import existing_home

    def tell(results: Sequence[Mapping[str, Any]]) -> None:
        if json_:
            _lines(results)

    last = watch_on(
        existing_home(), parse_duration(every, "--every"), times=times, metrics_host=metrics_host,
        metrics_port=metrics_port, say=lambda text: say(one_line(text)), tell=tell,
    )  # fmt: skip
    if not json_:
        _tell(last, False)
    return _code(last) if times is not None else 0


def _lines(results: Sequence[Mapping[str, Any]]) -> None:
    import orjson

    from lumyn.cli.output import out_bytes

    for one in results:
        out_bytes(orjson.dumps(one))


def _tell(results: Sequence[Mapping[str, Any]], json_: bool) -> None:
    if json_:
        out_json(list(results))
        return
    if not results:
        say("no watches yet: `lumyn watch add NAME --query Q` saves one")
        return
    out(table(("watch", "state", "short window, 95%", "long window, 95%", "burn", "target"), [
        (
            one["name"], one["state"], _share(one["windows"]["short"]), _share(one["windows"]["long"]),
            _burn(one["windows"]["long"]), one["target_state"] or "",
        )
        for one in results
    ]))  # fmt: skip
    for one in results:
        say(one_line(f"{one['name']}: {one['says']}"))
        if one["target_says"] is not None:
            say(one_line(f"{one['name']}: target: {one['target_says']}"))


def _code(results: Sequence[Mapping[str, Any]]) -> int:
    return int(any(one["alert"] or one["target_state"] == "missed" for one in results))


def _share(window: Mapping[str, Any]) -> str:
    from lumyn.backtest_words import interval

    if not window["count"]:
        return "no data"
    return interval({**window, "count": window["events"]})


def _burn(window: Mapping[str, Any]) -> str:
    return "" if window["burn"] is None else f"{window['burn']:.3g}"


def _states(one: Mapping[str, Any]) -> str:
    return one["state"] if one["target_state"] is None else f"{one['state']}, target {one['target_state']}"


def _due(target: str | None, by: str | None) -> str:
    return (target or "") + (f" by {by}" if by else "")
