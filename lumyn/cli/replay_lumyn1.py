"""How the replay of a pack of `lumyn` 1.x is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lumyn.cli.output import escaped, one_line

if TYPE_CHECKING:
    from lumyn.replaying_lumyn1 import Lumyn1Replay


def lumyn1_text(replayed: Lumyn1Replay) -> str:
    """As plain text: one `verdict:` line, one `reason_codes:` line, the checks, and what is left unproven."""
    pack, (verdict, codes) = replayed.pack, replayed.now
    was = f" (was {replayed.original[0]})" if verdict != replayed.original[0] else ""
    return "\n".join(
        [
            one_line(f"Replaying decision {pack.record['decision_id']} of {pack.made_by}..."),
            "",
            one_line(f"verdict: {verdict}{was}"),
            one_line(f"reason_codes: {', '.join(codes)}"),
            "",
            *(one_line(f"  ok     {check.name}: {check.detail}".rstrip(": ")) for check in replayed.checks),
            "",
            *_closing(replayed),
            "",
            f"What a pack of {one_line(pack.made_by)} can't prove:",
            *(one_line(f"  - {text}") for text in replayed.unproven),
        ]
    )


def lumyn1_markdown(replayed: Lumyn1Replay) -> str:
    """As Markdown."""
    pack, (old, old_codes), (new, new_codes) = replayed.pack, replayed.original, replayed.now
    return "\n".join(
        [
            f"## Replay of decision {escaped(pack.record['decision_id'])} of {escaped(pack.made_by)}",
            "",
            "| | original | replay |",
            "|---|---|---|",
            f"| verdict | {escaped(old)} | {escaped(new)} |",
            f"| reason codes | {escaped(', '.join(old_codes))} | {escaped(', '.join(new_codes))} |",
            "",
            *map(escaped, _closing(replayed)),
            "",
            "What such a pack can't prove:",
            *(f"- {escaped(text)}" for text in replayed.unproven),
        ]
    )


def _closing(replayed: Lumyn1Replay) -> list[str]:
    if replayed.record is None:
        return ["The recorded verdict follows from the pack's own rules and recorded memory scores."]
    policy = replayed.record["policy"]
    name = one_line(f"{policy['name']}@{policy['version']}")
    if replayed.matches:
        return [f"Under {name} the verdict would be the same."]
    return [f"Under {name} the verdict would be {replayed.now[0]}, not {one_line(replayed.original[0])}."]
