"""`lumyn list`: decisions as a table, newest first."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, say, table


def list_(
    query: str | None = typer.Option(None, "--query", "-q", help="Such as `verdict=DENY AND action_type=refund`."),
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many at the most."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """List decisions, newest first.

    \b
    Example: lumyn list --query "verdict=DENY AND created_at > '14:00'"
    """
    from dataclasses import asdict

    from lumyn.figures import money
    from lumyn.searching import search
    from lumyn.wiring import existing_home
    from schemas.ids import iso_time

    home = existing_home()
    rows = search(home, query, limit=limit + 1, newest_first=True, say=say)
    if len(rows) > limit:  # a list that ends in silence is taken for all there is
        rows = rows[:limit]
        say(f"the newest {limit} are shown, and there are more; `--limit` shows them")
    if json_:
        out_json([asdict(row) for row in rows])
        return
    if not rows:
        say("no decisions found")
        return
    out(
        table(
            ("decision_id", "created_at", "verdict", "action", "amount", "policy", "label", "reason_codes"),
            [
                (
                    r.decision_id,
                    iso_time(r.created_ms)[:19] + "Z",
                    r.verdict,
                    r.action_type,
                    money(r.amount, r.currency),
                    f"{r.policy}@{r.version}",
                    r.label or "",
                    ",".join(r.reason_codes),
                )
                for r in rows
            ],
        )
    )
