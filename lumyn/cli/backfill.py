"""`lumyn backfill`: which past decisions would come out otherwise now, and that as entries of a ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import one_line, out, out_json, progress, say

if TYPE_CHECKING:
    from lumyn.backfilling import Backfill
    from lumyn.home import Home
    from streams.backfill.figures import Reversibility


def backfill(
    policy: Path | None = typer.Option(None, "--policy", help="Our decisions, held against this policy."),
    outputs: Path | None = typer.Option(
        None, "--outputs", metavar="NEW.jsonl", help="The agent's, against new outputs: decision_id and output a line."
    ),
    command: str | None = typer.Option(
        None, "--command", help="The same, of a program: a request on its stdin, the new action on its stdout."
    ),
    url: str | None = typer.Option(None, "--url", help="The same, of a service: a request is posted to it."),
    start: str | None = typer.Option(None, "--from", metavar="T", help="From a time (UTC), or a position like 3:1000."),
    end: str | None = typer.Option(None, "--to", metavar="T", help="Up to a time, or before a position."),
    query: str | None = typer.Option(None, "--query", "-q", help="Only decisions that fit."),
    limit: int | None = typer.Option(None, "--limit", "-n", min=1, help="Only the latest N of the range."),
    memory: str = typer.Option("recorded", "--memory", help="With --policy: recorded, as-of, current, or none."),
    compare: list[str] = typer.Option(
        None, "--compare", metavar="FIELD", help="Which arguments of an action count; default: all but free text."
    ),
    timeout_s: float = typer.Option(60.0, "--timeout", min=0.1, help="Seconds for one answer of the agent."),
    parallel: int = typer.Option(4, "--parallel", min=1, max=64, help="How many answers are awaited at once."),
    reversible: list[str] = typer.Option(
        None, "--reversible", metavar="TYPE", help="Actions of this type can be taken back."
    ),
    irreversible: list[str] = typer.Option(None, "--irreversible", metavar="TYPE", help="Those of this type can't."),
    why: str = typer.Option("", "--why", help="Stands in the ledger."),
    apply: bool = typer.Option(False, "--apply", help="Write it into the ledger; without it it is only shown."),
    resume: str | None = typer.Option(None, "--resume", metavar="JOB", help="Go on with a job, as it was begun."),
    markdown: bool = typer.Option(False, "--markdown", help="Print as Markdown."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Hold past decisions against a new policy or a new agent; what differs becomes a contested ledger.

    \b
    Examples: lumyn backfill --from 2024-12-01 --policy new.yml
              lumyn backfill --outputs new.jsonl --reversible refund
              lumyn backfill --command "python agent.py" --timeout 30 --parallel 8
              lumyn backfill --resume backfill-0123456789ab --apply --why "model 5 against model 4"
    No decision changes: `lumyn ledger` lists what is contested, says what became of it, and decides anew what you
    choose. Exit 0: done, whatever differs. 2: something could not be compared. 3: a record is not what was decided.
    """
    from lumyn.backfilling import evaluate, load, report, size
    from lumyn.backfilling import write as write_ledger
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.backfill.figures import Reversibility

    if json_ and markdown:
        raise UsageError("give `--json` or `--markdown`, not both")
    if apply and not why.strip():
        raise UsageError("`--apply` needs `--why`", help="a sentence: it stands in the ledger")
    undoing = Reversibility(frozenset(reversible or ()), frozenset(irreversible or ()))
    home = existing_home()
    against = {"policy": policy, "outputs": outputs, "command": command, "url": url}
    chosen = {kind: value for kind, value in against.items() if value is not None}
    if resume is not None:
        if chosen or any(one is not None for one in (start, end, query, limit)) or compare:
            raise UsageError("`--resume` goes on with what was asked at first", help="give the form of the report only")
        job = load(home, resume)
    elif len(chosen) != 1:
        raise UsageError("against what? give one of `--policy`, `--outputs`, `--command`, `--url`")
    else:
        ((kind, value),) = chosen.items()
        asked = {"start": start, "end": end, "query": query, "limit": limit, "memory": memory}
        how = {"kind": kind, "name": str(value), "timeout_s": timeout_s, "parallel": parallel}
        job = _begun(home, asked, {**how, "compare": list(compare or ())})
    with progress("comparing", size(job)) as tick:
        evaluate(home, job, tick)
    added = 0
    if apply:
        with progress("writing", None) as tick:
            added = write_ledger(home, job, why, tick)
    _print(home, job, undoing, json_, markdown)
    if apply:
        say(f"{added} decisions added to the ledger; `lumyn ledger list --job {job.name}`")
    else:
        say(f'nothing was written; `lumyn backfill --resume {job.name} --apply --why "..."` writes exactly this')
    told = report(home, job, undoing)
    if told["unsound"]:
        return 3
    return 2 if told["not_compared"].keys() - {"erased", "asks for another policy"} else 0


def _begun(home: Home, asked: dict[str, Any], how: dict[str, Any]) -> Backfill:
    """A job that is settled and kept, before a decision is read."""
    from lumyn.agent_outputs import agent_of
    from lumyn.backfilling import Backfill
    from lumyn.backtest_plan import Asked, candidate_file, make_plan
    from schemas.errors import UsageError

    if how["kind"] == "policy":
        wanted = Asked(**asked, policies=(candidate_file(Path(how["name"])),), kept="flips")
    elif asked.pop("memory") != "recorded":
        raise UsageError("`--memory` is for `--policy`")
    else:
        wanted = Asked(**asked, kept="cases")
        if how["kind"] == "outputs":
            how["name"] = str(Path(how["name"]).absolute())
        how["digest"] = agent_of(how)[1]

    def watch(what: str, size: int) -> Any:  # noqa: ARG001
        return lambda count: None

    job = Backfill(make_plan(wanted, None, say, watch), how, home.log.epoch)
    job.save(home)
    say(f"job {job.name}: `lumyn backfill --resume {job.name}` goes on with it should it be broken off")
    return job


def _print(home: Home, job: Backfill, undoing: Reversibility, json_: bool, markdown: bool) -> None:
    from lumyn.backfilling import report
    from lumyn.cli.backfill_text import as_markdown, as_text

    told = report(home, job, undoing)
    if json_:
        out_json(told)
        return
    out(as_markdown(told) if markdown else as_text(told))
    for one in told["named"]:
        say(one_line(f"lumyn: {one['place']}: {one['message']}"))
