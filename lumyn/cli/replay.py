"""`lumyn replay`: decide a pack's request again."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import error_text, one_line, out, out_json, say

if TYPE_CHECKING:
    from lumyn.replaying import PackReplay


def replay(
    packs: list[Path] = typer.Argument(..., metavar="PACK...", help="One or more packs."),
    policy: Path | None = typer.Option(None, "--policy", help="A candidate policy instead of the pack's."),
    memory: str | None = typer.Option(
        None, "--memory", help="current (default where there is a store), recorded, as-of."
    ),
    markdown: bool = typer.Option(False, "--markdown", help="Print a Markdown summary."),
    trust_signer: bool = typer.Option(False, "--trust-signer", help="Accept a signature by a key not known here."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Replay decisions: check the pack, decide its request again, say what differs and why.

    \b
    Examples: lumyn replay incident.zip
              lumyn replay incident.zip --policy candidate.yml
    Exit 0: the verdict is the original's. 1: it differs. 3: the pack is not sound.
    """
    from lumyn.replaying import as_dict, replay_pack
    from lumyn.wiring import load_policy_file
    from schemas.errors import LumynError

    candidate = load_policy_file(policy) if policy is not None else None
    worst = 0
    results: list[dict[str, Any]] = []
    for number, path in enumerate(packs):
        try:
            replayed = replay_pack(path, candidate=candidate, memory=memory, trust_signer=trust_signer)
        except LumynError as error:
            if len(packs) == 1:
                raise
            say(f"lumyn: {error_text(error)}")
            worst = max(worst, error.exit_code)
            continue
        for note in replayed.notes:
            say(f"note: {note}")
        worst = max(worst, 0 if replayed.result.matches else 1)
        if json_:
            results.append(as_dict(replayed))
        else:
            out(("\n" if number else "") + (_markdown(replayed) if markdown else _text(replayed)))
    if json_:
        out_json(results if len(packs) > 1 else results[0])
    return worst


def _text(replayed: PackReplay) -> str:
    from lumyn.cli.show import rule_lines

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


def _markdown(replayed: PackReplay) -> str:
    result = replayed.result
    now, old = result.record, result.original
    rows = [
        ("verdict", old["verdict"], now["verdict"]),
        ("reason codes", ", ".join(old["reason_codes"]), ", ".join(now["reason_codes"])),
        ("rules", ", ".join(r["id"] for r in old["matched_rules"]), ", ".join(r["id"] for r in now["matched_rules"])),
        ("failure similarity", *(f"{r['risk_signals']['failure_similarity']['score']:.2f}" for r in (old, now))),
        ("policy", *(f"{r['policy']['name']}@{r['policy']['version']}" for r in (old, now))),
    ]
    cells = [" | ".join(_escaped(cell) for cell in row) for row in rows]
    return "\n".join(
        [
            f"## Replay of decision {old['decision_id']}",
            "",
            "| | original | replay |",
            "|---|---|---|",
            *(f"| {cell} |" for cell in cells),
            "",
            *map(_escaped, _closing(replayed)),
        ]
    )


def _escaped(text: str) -> str:
    """Recorded text within Markdown: no other cell, line or tag can come out of it."""
    return html.escape(one_line(text), quote=False).replace("|", "\\|")
