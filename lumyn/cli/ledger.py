"""`lumyn ledger`: what backfills contest, and what people made of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import error_text, one_line, out, out_json, progress, say, table
from lumyn.figures import money, plain

if TYPE_CHECKING:
    from streams.ledger import Entry

app = typer.Typer(help="The contested ledger.", no_args_is_help=True, rich_markup_mode=None)

_IDS = typer.Argument(None, metavar="[DECISION_ID...]", help="Decisions, or the starts of their ids.")
_JOB = typer.Option(None, "--job", metavar="JOB", help="Only what this backfill contests.")
_STATE = typer.Option(None, "--in", metavar="STATE", help="Only those in this state: open, upheld, ...")
_OWNER = typer.Option(None, "--owner", help="Only this owner's.")
_DIRECTION = typer.Option(None, "--direction", help="Only one way: stricter, milder, more, less, ...")
_JSON = typer.Option(False, "--json", help="Print as JSON.")


@app.command("list")
def list_(
    ids: list[str] = _IDS,
    job: str | None = _JOB,
    state: str | None = _STATE,
    owner: str | None = _OWNER,
    direction: str | None = _DIRECTION,
    limit: int = typer.Option(50, "--limit", "-n", min=1, help="How many are shown."),
    json_: bool = _JSON,
) -> None:
    """List contested decisions with where they stand, and the backfills that contest them.

    \b
    Examples: lumyn ledger list
              lumyn ledger list --in open --direction stricter
    """
    from lumyn.ledgers import Filter, chosen, ledger_of
    from lumyn.wiring import existing_home

    ledger = ledger_of(existing_home())
    found = chosen(ledger, Filter(tuple(ids or ()), job, state, owner, direction))
    jobs: list[dict[str, Any]] = [
        {
            "job": name,
            "at": one.at,
            "whole": one.whole,
            "why": one.begun.get("why", ""),
            "actor": one.begun["actor"],
            "against": one.begun.get("against"),
            "range": one.begun.get("range"),
            "states": dict(sorted(ledger.states(name).items())),
        }
        for name, one in ledger.backfills.items()
        if job in (None, name)
    ]
    if json_:
        out_json({"backfills": jobs, "entries": [one.as_dict() for one in found[:limit]], "more": len(found[limit:])})
        return
    for told in jobs:
        states = ", ".join(f"{number} {name}" for name, number in told["states"].items()) or "nothing contested"
        whole = "" if told["whole"] else f"; not whole: `lumyn backfill --resume {told['job']} --apply`"
        out(one_line(f"{told['job']} against {told['against']['kind']} {told['against']['name']}: {states}{whole}"))
    if found:
        out("")
        out(table(_HEAD, [_row(one) for one in found[:limit]]))
    if len(found) > limit:
        say(f"{len(found) - limit} more; `--limit` shows them, `lumyn ledger export` writes all")
    if not jobs:
        say("nothing is contested; `lumyn backfill --policy new.yml` looks")


_HEAD = ("decision_id", "decided_at", "recorded", "would be", "direction", "amount", "state", "owner", "decided anew")


def _row(one: Entry) -> tuple[str, ...]:
    about = one.about
    was, would_be = about["recorded"], about["would_be"]
    now = would_be.get("verdict") or would_be.get("action_type") or "(nothing)"
    then = was.get("verdict") if "verdict" in would_be else was.get("action_type")
    amount = money(about["amount"], about["currency"])
    new = "" if one.redriven is None else f"{one.redriven[1]} {one.redriven[0]}"
    return (
        about["decision_id"], about["decided_at"][:19] + "Z", then or "", now, about["direction"], amount, one.state,
        one.owner or "", new,
    )  # fmt: skip


@app.command("show")
def show(
    decision_id: str = typer.Argument(..., help="A decision, or the start of its id."), json_: bool = _JSON
) -> None:
    """Show all that the ledger holds of a decision: what contests it, and who said what of it.

    \b
    Example: lumyn ledger show 01JFG0
    """
    from lumyn.ledgers import Filter, chosen, ledger_of
    from lumyn.wiring import existing_home

    found = chosen(ledger_of(existing_home()), Filter((decision_id,)))
    if json_:
        out_json([one.as_dict() for one in found])
        return
    for one in found:
        told = one.as_dict()
        history = told.pop("history")
        for name, value in told.items():
            out(one_line(f"{name}: {_said(value)}"))
        for said in history:
            owner = f", owner {said['owner']}" if said["owner"] else ""
            out(one_line(f"  {said['at']} {said['state']}{owner}, by {said['actor']}: {said['why']}"))
        out("")


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return plain(value)


@app.command("set")
def set_(
    ids: list[str] = _IDS,
    state: str | None = typer.Option(None, "--state", help="open, upheld, corrected or disclosed."),
    new_owner: str | None = typer.Option(None, "--owner", help="Whose business it is from now on."),
    why: str = typer.Option("", "--why", help="Stands in the ledger for good."),
    job: str | None = _JOB,
    in_state: str | None = _STATE,
    direction: str | None = _DIRECTION,
    json_: bool = _JSON,
) -> None:
    """Say where contested decisions stand, or whose business they are. Nothing else changes.

    \b
    Examples: lumyn ledger set 01JFG0 --state upheld --why "the customer had agreed"
              lumyn ledger set --job backfill-0123456789ab --in open --owner legal --why "to be disclosed"
    """
    from lumyn.ledgers import Filter, chosen, ledger_of, set_state
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError

    if not ids and job is None:
        raise UsageError("which? give decisions, or `--job`")
    home = existing_home()
    found = chosen(ledger_of(home), Filter(tuple(ids or ()), job, in_state, None, direction))
    set_state(home, found, state, new_owner, why)
    if json_:
        out_json({"set": [one.about["decision_id"] for one in found], "state": state, "owner": new_owner})
    else:
        said = [f"now {state}"] if state else []
        out(one_line(f"{len(found)} entries: {', '.join([*said, *([f'owner {new_owner}'] if new_owner else [])])}"))


@app.command("export")
def export(
    file: Path = typer.Option(..., "--out", metavar="FILE.jsonl", help="Where to: an entry a line."),
    job: str | None = _JOB,
    state: str | None = _STATE,
    json_: bool = _JSON,
) -> None:
    """Write contested decisions with their history as JSON lines: ids and pseudonyms, nothing of what was asked.

    \b
    Example: lumyn ledger export --out contested.jsonl
    """
    from lumyn.exporting import write_whole
    from lumyn.ledgers import Filter, chosen, ledger_of
    from lumyn.wiring import existing_home
    from schemas.canonical import encode

    found = chosen(ledger_of(existing_home()), Filter((), job, state))
    write_whole(file, b"".join(encode(one.as_dict()) + b"\n" for one in found))
    if json_:
        out_json({"file": str(file), "entries": len(found)})
    else:
        out(one_line(f"{file}: {len(found)} entries"))


@app.command("redrive")
def redrive(
    ids: list[str] = _IDS,
    job: str | None = _JOB,
    state: str | None = _STATE,
    owner: str | None = _OWNER,
    direction: str | None = _DIRECTION,
    apply: bool = typer.Option(False, "--apply", help="Decide them again; without it they are only listed."),
    json_: bool = _JSON,
) -> int:
    """Decide chosen ones again, as new decisions linked to the old ones, by the policy that is active now.

    \b
    Examples: lumyn ledger redrive 01JFG0 --apply
              lumyn ledger redrive --job backfill-0123456789ab --in open --apply
    The old decisions and their states stay; the ledger notes what each became. One that was redriven before is not
    sent again. Exit 4: decisions can't be made now; repeat it later.
    """
    from lumyn.cli.redrive import told_before
    from lumyn.ledgers import Filter, chosen, decide_anew, ledger_of
    from lumyn.redriving import redriven_before
    from lumyn.wiring import existing_home, open_home
    from schemas.errors import LumynError, UsageError

    if not ids and job is None:
        raise UsageError("which? give decisions, or `--job`")
    home = existing_home()
    found = chosen(ledger_of(home), Filter(tuple(ids or ()), job, state, owner, direction))
    names = list(dict.fromkeys(one.about["decision_id"] for one in found))  # several backfills may contest one
    before = len(redriven_before(home, names))
    if not apply:
        if json_:
            out_json({"apply": False, "decisions": [one.about["decision_id"] for one in found]})
        else:
            out(table(_HEAD, [_row(one) for one in found]))
        say(f"{len(names) - before} would be decided again{told_before(before)}; `--apply` does it")
        return 0
    done: list[Any] = []
    errors: list[LumynError] = []
    try:
        with progress("redriving", len(found)) as tick:
            for one in decide_anew(open_home(), found):
                done.append(one)
                tick()
    except LumynError as stopped:
        errors.append(stopped)
    errors += [one.error for one in done if one.error is not None]
    rows = [(one.old.decision_id, one.old.verdict, one.verdict or one.outcome, one.new_id or "") for one in done]
    head = ("decision_id", "was", "now", "decided as")
    if json_:
        decisions = [dict(zip(("decision_id", "was", "now", "new_decision_id"), row, strict=True)) for row in rows]
        out_json({"apply": True, "decisions": decisions, "errors": [error.as_dict() for error in errors]})
    elif rows:
        out(table(head, rows))
    for error in errors:
        say(f"lumyn: {error_text(error)}")
    say(f"{len(rows)} decided again{told_before(before)}")
    if rows:
        say("what became of them is yours to say: `lumyn ledger set ID --state corrected --why W`")
    return max((one.exit_code for one in errors), default=0)
