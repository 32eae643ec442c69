"""`lumyn replay`: decide a pack's request again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import error_text, escaped, one_line, out, out_json, progress, say

if TYPE_CHECKING:
    from lumyn.replaying import PackReplay
    from lumyn.replaying_lumyn1 import Lumyn1Replay


def replay(
    packs: list[Path] = typer.Argument(..., metavar="PACK...", help="Packs, folders of packs, or patterns."),
    policy: Path | None = typer.Option(None, "--policy", help="A candidate policy instead of the pack's."),
    memory: str | None = typer.Option(
        None, "--memory", help="current (default where there is a store), recorded, as-of."
    ),
    markdown: bool = typer.Option(False, "--markdown", help="Print a Markdown summary."),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a signature by a key not known here."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON; a list where more than one pack could be meant."),
) -> int:
    """Replay decisions: check the pack, decide its request again, say what differs and why.

    \b
    Examples: lumyn replay incident.zip
              lumyn replay incident.zip --policy candidate.yml
              lumyn replay incidents/ 'more/*.zip' --markdown
    Packs of lumyn 1.x are read, too, and what they can't prove is said.
    Exit 0: every verdict is the original's. 1: one differs. 3: a pack is not sound.
    """
    from lumyn.pack_files import find_packs
    from lumyn.policy_file import load_policy_file
    from lumyn.replaying import as_dict, replay_pack
    from schemas.errors import LumynError

    candidate = load_policy_file(policy) if policy is not None else None
    files = find_packs(packs)
    alone = len(files) == 1 and files == packs
    rows: list[tuple[str, str, str, str]] = []
    results: list[dict[str, Any]] = []
    worst = 0
    with progress("replaying", len(files)) as tick:
        for number, path in enumerate(files):
            tick()
            try:
                replayed = replay_pack(path, candidate=candidate, memory=memory, trust_signer=trust_signer)
            except LumynError as error:
                if alone:
                    raise
                say(f"lumyn: {error_text(error)}")
                worst = max(worst, error.exit_code)
                rows.append((str(path), "", "", f"not replayed: {error.code}"))
                results.append({"pack": str(path), "error": error.as_dict()})
                continue
            worst = max(worst, 0 if replayed.matches else 1)
            result = as_dict(replayed)
            same = "same" if replayed.matches else "differs"
            rows.append((str(path), result["original"]["verdict"], result["verdict"], same))
            for note in result.get("notes", ()):
                say(f"note: {note}")
            if json_:
                results.append(result)
            else:
                out(("\n" if number else "") + (_markdown(replayed) if markdown else _text(replayed)))
    if json_:
        out_json(results[0] if alone else results)
    elif markdown and not alone:
        out("\n" + _summary_table(rows))
    if not alone:
        say(_summary(rows))
    return worst


def _summary(rows: list[tuple[str, str, str, str]]) -> str:
    """How many packs came out how."""
    same, other = (sum(row[3] == word for row in rows) for word in ("same", "differs"))
    return f"{len(rows)} packs: {same} as recorded, {other} otherwise, {len(rows) - same - other} not replayed"


def _summary_table(rows: list[tuple[str, str, str, str]]) -> str:
    lines = [f"## {_summary(rows)}", "", "| pack | original | replay | |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(escaped, row))} |" for row in rows)])


def _text(replayed: PackReplay | Lumyn1Replay) -> str:
    from lumyn.cli.replay_lumyn1 import lumyn1_text
    from lumyn.cli.show import rule_lines
    from lumyn.replaying_lumyn1 import Lumyn1Replay

    if isinstance(replayed, Lumyn1Replay):
        return lumyn1_text(replayed)
    result = replayed.result
    now, old = result.record, result.original
    was = f" (was {old['verdict']})" if now["verdict"] != old["verdict"] else ""
    signals = now["risk_signals"]
    lines = [
        f"Replaying decision {old['decision_id']}...",
        "",
        f"verdict: {now['verdict']}{was}",
        one_line(f"reason_codes: {', '.join(now['reason_codes'])}"),
        "",
        *rule_lines(now["matched_rules"]),
        "",
        "risk_signals:",
        f"  failure_similarity: {signals['failure_similarity']['score']:.2f}",
        f"  success_similarity: {signals['success_similarity']['score']:.2f}",
        f"  uncertainty_score: {signals['uncertainty_score']:.2f}",
        "",
        *_closing(replayed),
    ]
    return "\n".join(lines)


def _closing(replayed: PackReplay) -> list[str]:
    result = replayed.result
    lines = []
    if result.matches:
        lines.append("Replay successful: verdict matches original.")
    else:
        old = result.original
        lines.append(f"Replay differs: the original was {old['verdict']} [{', '.join(old['reason_codes'])}].")
        lines.append(f"Changed by: {', '.join(result.causes)}.")
    others = [d.field for d in result.differences if d.field not in ("verdict", "reason_codes")]
    if others:
        lines.append(f"Also different: {', '.join(others)}.")
    if result.engine_changed:
        lines.append(f"engine_changed: decided by {result.original['engine']}, replayed by {result.record['engine']}.")
    if replayed.active is not None:
        active = replayed.active
        lines.append(
            f"The active policy {active['policy']} would say {active['verdict']} [{', '.join(active['reason_codes'])}]."
        )
    return [one_line(line) for line in lines]


def _markdown(replayed: PackReplay | Lumyn1Replay) -> str:
    from lumyn.cli.replay_lumyn1 import lumyn1_markdown
    from lumyn.replaying_lumyn1 import Lumyn1Replay

    if isinstance(replayed, Lumyn1Replay):
        return lumyn1_markdown(replayed)
    result = replayed.result
    now, old = result.record, result.original
    rows = [
        ("verdict", old["verdict"], now["verdict"]),
        ("reason codes", ", ".join(old["reason_codes"]), ", ".join(now["reason_codes"])),
        ("rules", ", ".join(r["id"] for r in old["matched_rules"]), ", ".join(r["id"] for r in now["matched_rules"])),
        ("failure similarity", *(f"{r['risk_signals']['failure_similarity']['score']:.2f}" for r in (old, now))),
        ("policy", *(f"{r['policy']['name']}@{r['policy']['version']}" for r in (old, now))),
    ]
    cells = [" | ".join(escaped(cell) for cell in row) for row in rows]
    return "\n".join(
        [
            f"## Replay of decision {old['decision_id']}",
            "",
            "| | original | replay |",
            "|---|---|---|",
            *(f"| {cell} |" for cell in cells),
            "",
            *map(escaped, _closing(replayed)),
        ]
    )
