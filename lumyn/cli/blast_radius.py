"""A blast radius as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lumyn.cli.output import one_line, out, say, table
from lumyn.figures import recorded

if TYPE_CHECKING:
    from streams.blast_radius import BlastRadius, Flip


def as_dict(radius: BlastRadius) -> dict[str, Any]:
    """The JSON form: every flip, the worst first."""
    return {
        "compared": radius.compared,
        "recalled_otherwise": radius.recalled_otherwise,
        "flips": [{"from": a, "to": b, "count": n} for (a, b), n in sorted(radius.table.items()) if a != b],
        "changes": [
            {
                "decision_id": flip.decision_id,
                "old": flip.old,
                "new": flip.new,
                "old_reasons": list(flip.old_reasons),
                "new_reasons": list(flip.new_reasons),
                "amount": flip.amount,
                "value": flip.value,
                "currency": flip.currency,
            }
            for flip in radius.flips
        ],
        "not_comparable": [{"why": why, "count": n} for why, n in sorted(radius.not_comparable.items())],
    }


def show_radius(radius: BlastRadius, shown: int) -> None:
    """The flip table and the worst examples."""
    out(
        f"past decisions that it reaches: {radius.compared}; recalled otherwise: {radius.recalled_otherwise}; "
        f"decided otherwise: {len(radius.flips)}"
    )
    for (old, new), count in sorted(radius.table.items()):
        if old != new:
            out(f"{old} -> {new}: {count}")
    if radius.flips:
        out("")
        out(table(("decision_id", "was", "would be", "amount", "reasons"), [
            (f.decision_id, f.old, f.new, _money(f), ", ".join(f.new_reasons))
            for f in radius.flips[:shown]
        ]))  # fmt: skip
    for why, count in sorted(radius.not_comparable.items()):
        say(one_line(f"note: {count} past decisions could not be asked: {why}"))


def _money(flip: Flip) -> str:
    """As it was asked for, also what the amount gate can't compare."""
    return one_line(f"{recorded(flip.value)} {flip.currency or ''}".strip())
