"""`lumyn redrive`: decide again what an outage left undecided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import error_text, out, out_json, progress, say, table

if TYPE_CHECKING:
    from lumyn.redriving import Redriven
    from memory_service.record_index import IndexedRecord
    from schemas.errors import LumynError


def redrive(
    query: str = typer.Option(..., "--query", "-q", help="Which decisions, such as `reason=STORAGE_UNAVAILABLE`."),
    apply: bool = typer.Option(False, "--apply", help="Decide them again; without it they are only listed."),
    limit: int | None = typer.Option(None, "--limit", "-n", min=1, help="How many at the most, the oldest first."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Decide recorded requests again, as new decisions linked to the old ones, by the policy that is active now.

    \b
    Examples: lumyn redrive --query "reason=STORAGE_UNAVAILABLE"
              lumyn redrive --query "reason=STORAGE_UNAVAILABLE" --apply
    The old decisions stay as they are. One that was redriven is not sent again, so the command may be broken off and
    repeated. Exit 0: done. 4: decisions still can't be made, or did not come in time; repeat it later.
    """
    from lumyn.redriving import waiting
    from lumyn.searching import search
    from lumyn.wiring import existing_home, open_home

    home = existing_home()
    found = search(home, query, limit=None, newest_first=False, say=say)
    left = waiting(home, found)
    rows = left[:limit] if limit is not None else left
    before = len(found) - len(left)
    if not apply:
        _plan(rows, before, json_)
        return 0
    done, stopped = _run(open_home(), rows)
    _report(done, before, len(rows) - len(done), json_)
    errors = [one.error for one in done if one.error is not None]
    if not json_:
        for error in [*errors, *([stopped] if stopped else [])]:
            say(f"lumyn: {error_text(error)}")
    return max((error.exit_code for error in [*errors, *([stopped] if stopped else [])]), default=0)


def _run(home: Any, rows: Sequence[IndexedRecord]) -> tuple[list[Redriven], LumynError | None]:
    from lumyn.redriving import redrive as decide_again
    from schemas.errors import LumynError

    done: list[Redriven] = []
    try:
        with progress("redriving", len(rows)) as tick:
            for one in decide_again(home, rows):
                done.append(one)
                tick()
    except LumynError as error:
        return done, error
    return done, None


def _plan(rows: Sequence[IndexedRecord], before: int, json_: bool) -> None:
    from schemas.ids import iso_time

    if json_:
        out_json(
            {
                "apply": False,
                "redriven_before": before,
                "decisions": [
                    {"decision_id": row.decision_id, "verdict": row.verdict, "reason_codes": list(row.reason_codes)}
                    for row in rows
                ],
            }
        )
        return
    if rows:
        head = ("decision_id", "created_at", "action", "verdict", "reason_codes")
        out(
            table(
                head,
                [
                    (
                        row.decision_id,
                        iso_time(row.created_ms)[:19] + "Z",
                        row.action_type,
                        row.verdict,
                        ",".join(row.reason_codes),
                    )
                    for row in rows
                ],
            )
        )
    say(f"{len(rows)} decisions would be made again{told_before(before)}; `--apply` does it")


def _report(done: Sequence[Redriven], before: int, left: int, json_: bool) -> None:
    changes = Counter((one.old.verdict, one.verdict) for one in done if one.verdict is not None)
    counts = Counter(one.outcome for one in done)
    if json_:
        out_json(
            {
                "apply": True,
                "redriven_before": before,
                "decided": counts["decided"],
                "duplicates": counts["duplicate"],
                "failed": counts["failed"],
                "left": left,
                "changes": [{"from": a, "to": b, "count": n} for (a, b), n in sorted(changes.items())],
                "decisions": [_as_dict(one) for one in done],
            }
        )
        return
    rows = [
        (
            one.old.decision_id,
            one.old.verdict,
            one.verdict or one.outcome,
            one.new_id or "",
            ",".join(one.reason_codes),
        )
        for one in done
    ]
    if rows:
        out(table(("decision_id", "was", "now", "decided as", "reason_codes"), rows))
        out("")
    for (was, now), count in sorted(changes.items()):
        out(f"{was} -> {now}: {count}")
    told = f"{counts['decided']} decided again{told_before(before + counts['duplicate'])}"
    told += f", {counts['failed']} failed" if counts["failed"] else ""
    say(told + (f", {left} left" if left else ""))


def told_before(before: int) -> str:
    """How many were redriven before, as the end of a sentence."""
    return f", {before} were before" if before else ""


def _as_dict(one: Redriven) -> dict[str, Any]:
    told: dict[str, Any] = {
        "decision_id": one.old.decision_id,
        "verdict": one.old.verdict,
        "outcome": one.outcome,
        "now": None,
    }
    if one.new_id is not None:
        told["now"] = {"decision_id": one.new_id, "verdict": one.verdict, "reason_codes": list(one.reason_codes)}
    return told if one.error is None else {**told, "error": one.error.as_dict()}
