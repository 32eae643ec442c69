"""`lumyn diff`: what a candidate policy changes over past decisions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import out, out_json, progress, say, table

if TYPE_CHECKING:
    from streams.diff import DiffResult

_VERDICTS = ("ALLOW", "ESCALATE", "ABSTAIN", "DENY")


def diff(
    dataset: Path = typer.Argument(
        ..., metavar="DATASET.jsonl", help="A record a line, as `lumyn export --limit` writes."
    ),
    policy: list[Path] = typer.Option(..., "--policy", help="The candidate; given twice: the first is the baseline."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Show which past decisions a policy would change, with the memory that each was decided on.

    \b
    Example: lumyn diff decisions.jsonl --policy candidate.yml
    Exit 0: nothing changes. 1: something does. 2 or 3: a record could not be compared.
    """
    from lumyn.config import read_policy_file
    from schemas.errors import NotFound, UsageError
    from streams.control import all_valid
    from streams.diff import diff_dataset

    if len(policy) > 2:
        raise UsageError("`--policy` is given at most twice: a baseline and a candidate")
    policies = all_valid((read_policy_file(path), str(path)) for path in policy)
    try:
        data = dataset.read_bytes()
    except FileNotFoundError:
        raise NotFound("no such data set", where=str(dataset)) from None
    if not data.strip():
        raise UsageError("there is no record in it", where=str(dataset))
    old = policies[0] if len(policies) == 2 else None
    with progress("comparing", data.count(b"\n")) as tick:
        result = diff_dataset(data, old, policies[-1], processes=os.cpu_count() or 1, tick=tick)
    if json_:
        out_json(_as_dict(result))
    else:
        out(_text(result))
    for number, message in result.errors[:10]:
        say(f"lumyn: {dataset}:{number}: {message}")
    if result.errors:
        say(
            f"lumyn: {len(result.errors)} of {len(result.errors) + result.compared} records could not be compared; "
            "they count neither as changed nor as the same"
        )
        return 3 if any("digest" in message for _, message in result.errors) else 2
    return 1 if result.changes else 0


def _text(result: DiffResult) -> str:
    lines = [f"Changes: {len(result.changes)}"]
    if result.changes:
        lines.append(
            table(
                ("decision_id", "old", "new", "reason_diff"),
                [
                    (c.decision_id, c.old, c.new, f"[{', '.join(c.old_reasons)}] → [{', '.join(c.new_reasons)}]")
                    for c in result.changes
                ],
            )
        )
    lines += ["", f"Compared: {result.compared}", "", flip_table(result.flips)]
    return "\n".join(lines)


def flip_table(flips: dict[tuple[str, str], int]) -> str:
    """Old verdicts down, new ones across."""
    used = [v for v in _VERDICTS if any(v in pair for pair in flips)]
    return table(("old \\ new", *used), [(old, *(str(flips.get((old, new), 0)) for new in used)) for old in used])


def _as_dict(result: DiffResult) -> dict[str, object]:
    return {
        "changes": [
            {
                "decision_id": c.decision_id,
                "old": c.old,
                "new": c.new,
                "old_reason_codes": list(c.old_reasons),
                "new_reason_codes": list(c.new_reasons),
            }
            for c in result.changes
        ],
        "compared": result.compared,
        "flips": [{"old": old, "new": new, "count": n} for (old, new), n in sorted(result.flips.items())],
        "errors": [{"line": number, "message": message} for number, message in result.errors],
    }
