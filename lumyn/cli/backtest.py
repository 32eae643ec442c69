"""`lumyn backtest`: what would this policy have done to the last 90 days?"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import one_line, out, out_json, progress, say

if TYPE_CHECKING:
    from lumyn.backtest_plan import Asked
    from lumyn.backtesting import Job
    from streams.backtest.run import Run


def backtest(
    files: list[Path] = typer.Argument(
        None, metavar="[DATASET.jsonl | PACK.zip...]", help="A record a line, or packs; default: the log."
    ),
    policy: list[Path] = typer.Option(
        None, "--policy", help="A candidate; several are evaluated in one pass. Default: the active policy."
    ),
    start: str | None = typer.Option(None, "--from", metavar="T", help="From a time (UTC), or a position like 3:1000."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="Up to a time, or before a position."),
    query: str | None = typer.Option(None, "--query", "-q", help="Only decisions that fit."),
    limit: int | None = typer.Option(None, "--limit", "-n", min=1, help="Only the latest N of the range."),
    sample: int | None = typer.Option(
        None, "--sample", min=1, help="N decisions drawn by recorded verdict, each with its weight."
    ),
    seed: int = typer.Option(0, "--seed", help="Which sample is drawn."),
    memory: str = typer.Option(
        "recorded", "--memory", help="What memory answers: recorded, as-of (asked again), current, or none."
    ),
    by: list[str] = typer.Option(None, "--by", help="Cut by this too, such as evidence.tier or provenance.model."),
    cluster: str = typer.Option("subject_id", "--cluster", help="What makes decisions alike, for the intervals."),
    require: list[str] = typer.Option(
        None, "--require", metavar="BAR", help="What every candidate must meet, such as `flips.ALLOW_to_DENY <= 0.5%`."
    ),
    outcomes: Path | None = typer.Option(
        None, "--outcomes", metavar="FILE", help="Labels from a file, such as `lumyn list --json` writes."
    ),
    shadow: bool = typer.Option(
        False, "--shadow", help="What a candidate said beside live decisions; --policy NAME@VERSION says which."
    ),
    html: Path | None = typer.Option(None, "--html", metavar="FILE", help="Write the report as one HTML file."),
    keep: str | None = typer.Option(None, "--keep", metavar="NAME", help="Keep the report for the console."),
    markdown: bool = typer.Option(False, "--markdown", help="Print as Markdown."),
    resume: str | None = typer.Option(None, "--resume", metavar="JOB", help="Go on with one that was broken off."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Evaluate candidate policies over past decisions, and say what they would have changed.

    \b
    Examples: lumyn backtest --policy candidate.yml
              lumyn backtest --from 2024-12-01 --to 2024-12-31 --policy a.yml --policy b.yml --html report.html
              lumyn backtest --from 3:1000 --to 3:2000 --policy candidate.yml
              lumyn backtest --shadow --policy refunds@5.0.0
              lumyn backtest decisions.jsonl --policy candidate.yml --require 'flips.ALLOW_to_DENY <= 0.5%'
    3:1000 is partition 3, offset 1000 of the requests; 14:25, two digits on both sides, is a time of today.
    Exit 0: done, whatever changes. 1: a bar is missed. 2: a record could not be compared. 3: a record is not what was
    decided, or the same policy, memory and engine decide otherwise.
    """
    from lumyn.backtest_plan import Asked, candidate_file
    from schemas.errors import UsageError

    if html is not None and (html.name in ("", "..") or html.is_dir()):
        raise UsageError("this is a folder, not a file to write", where=str(html))
    if keep is not None:
        html = _kept(keep, html)
    if json_ and markdown:
        raise UsageError("give `--json` or `--markdown`, not both")
    if shadow:
        given = (files, start, end, query, limit, sample, outcomes, resume)
        if any(given) or seed or memory != "recorded" or len(policy or ()) > 1:
            raise UsageError(
                "`--shadow` takes all that the shadow worker evaluated",
                help="with it go one `--policy NAME@VERSION`, `--by`, `--cluster`, `--require`, and forms of report",
            )
        return _told(_shadow(policy, by, cluster, require), html, json_, markdown)
    asked = Asked(
        files=tuple(map(str, files or ())),
        start=start,
        end=end,
        query=query,
        limit=limit,
        sample=sample,
        seed=seed,
        memory=memory,
        by=tuple(by or ()),
        cluster=cluster,
        require=tuple(require or ()),
        outcomes=None if outcomes is None else str(outcomes),
        policies=tuple(candidate_file(path) for path in policy or ()),
    )
    return _told(_run(_job(asked, resume)), html, json_, markdown)


def _kept(name: str, html: Path | None) -> Path:
    """Where a report is kept in the home."""
    from lumyn import reports
    from lumyn.config import resolve
    from schemas.errors import UsageError

    if html is not None:
        raise UsageError("give `--html` or `--keep`, not both")
    settings = resolve(None)
    return reports.place(settings.home.absolute(), settings.tenant, name)


def _shadow(policy: list[Path] | None, by: list[str] | None, cluster: str, require: list[str] | None) -> dict[str, Any]:
    from lumyn.backtest_shadow import shadow_report
    from lumyn.wiring import existing_home

    which = str(policy[0]) if policy else None
    return shadow_report(existing_home(), which, by or (), cluster, require or ())


def _told(report: dict[str, Any], html: Path | None, json_: bool, markdown: bool) -> int:
    if html is not None:
        _write_html(report, html)
    _print(report, json_, markdown)
    return _code(report)


def _job(asked: Asked, resume: str | None) -> Job:
    from lumyn.backtest_plan import Asked, make_plan
    from lumyn.backtesting import Job, load_job
    from schemas.errors import UsageError

    if resume is not None:
        if replace(asked) != Asked():
            raise UsageError("`--resume` goes on with what was asked at first", help="give the form of the report only")
        return load_job(resume, None)
    with ExitStack() as bars:
        return Job(make_plan(asked, None, say, lambda what, size: bars.enter_context(progress(what, size))))


def _run(job: Job) -> dict[str, Any]:
    from lumyn.backtesting import carry_out
    from schemas.errors import LumynError, UsageError

    total = job.size()
    with progress("backtesting", total) as tick:

        def told(count: int, run: Run) -> None:
            tick(count, _so_far(run))

        tick(job.size_done())
        try:
            return carry_out(job, told)
        except UsageError:
            raise
        except (KeyboardInterrupt, LumynError):
            if job.run.done:
                share = job.size_done() / total if total else 0
                say(f"lumyn: stopped at {share:.0%}; `lumyn backtest --resume {job.name}` goes on from there")
            raise


def _so_far(run: Run) -> str:
    told = []
    for tally in run.tallies:
        compared = tally.compared
        flips = sum(number for (old, new, _), number in tally.matrix.items() if old != new)
        told.append(f"{flips / compared:.2%}" if compared else "-")
    return f"flips {', '.join(told)}"


def _print(report: dict[str, Any], json_: bool, markdown: bool) -> None:
    from lumyn.backtest_words import notes
    from lumyn.cli.backtest_text import as_markdown, as_text

    if json_:
        out_json(report)
    else:
        out(as_markdown(report) if markdown else as_text(report))
    for note in notes(report):
        say(f"lumyn: {one_line(note)}")


def _write_html(report: dict[str, Any], path: Path) -> None:
    from lumyn.backtest_html import as_html
    from lumyn.exporting import write_whole
    from lumyn.reports import FOLDER

    if path.parent.parent.name == FOLDER:  # the home's own
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, as_html(report).encode("utf-8", "replace"))
    say(f"report: {path}")


def _code(report: dict[str, Any]) -> int:
    """3 before 2 before 1: what can't be believed counts more than what it says."""
    from lumyn.backtest_words import is_unsound

    if is_unsound(report):
        return 3
    if report["range"]["refused"].keys() - {"erased"} or any(c["coverage"]["errored"] for c in report["candidates"]):
        return 2
    return 0 if report["passed"] else 1
