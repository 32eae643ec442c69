"""`lumyn memory suspects`: which labels are probably wrong, why, and whose they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import out, out_json, progress, say, table

if TYPE_CHECKING:
    from streams.suspects import Suspect, Suspects

_DOUBTFUL = 0.5


def suspects(
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many labels to show."),
    labeller: str | None = typer.Option(None, "--labeller", help="Only this labeller's."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Rank the labels in the memory by how probably they are wrong, and the labellers by how often they err.

    \b
    Examples: lumyn memory suspects
              lumyn memory suspects --labeller import-bot --limit 100 --json
    A label is suspect when its nearest neighbours contradict it, the more so when its labeller errs often. Beside it
    are near-duplicates that are labelled the opposite, bursts by one labeller, and how many decisions rest on it.
    Nothing is changed: `lumyn memory quarantine` takes labels out of recall.
    """
    from lumyn.suspecting import as_dict, find, of_labeller
    from lumyn.wiring import existing_home

    with progress("reading labels and decisions", None) as tick:
        found = find(existing_home(), tick)
    chosen = of_labeller(found, labeller)
    if json_:
        out_json(as_dict(found, limit, labeller))
        return
    _show(found, chosen[:limit], len(chosen))


def _show(found: Suspects, shown: list[Suspect], of: int) -> None:
    out(table(("labeller", "labels", "probably wrong", "error rate", "largest burst"), [
        (one.name, str(one.labels), str(one.suspects), f"{one.error_rate:.0%}", str(one.largest_burst))
        for one in found.labellers
    ]))  # fmt: skip
    out("")
    out(table(("decision_id", "label", "means", "labeller", "wrong", "decisions", "why"), [
        (one.decision_id, one.label, one.meaning, one.labeller, f"{one.wrong:.0%}",
         str(one.flips), _why(one))
        for one in shown
    ]))  # fmt: skip
    say(f"{len(shown)} of {of} labels that count; `lumyn memory quarantine ID --why ...` takes one out of recall")
    for one in found.labellers:
        if one.error_rate > _DOUBTFUL:
            say(f"`lumyn memory quarantine --labeller {one.name} --why ...` holds all that {one.name} said and says")


def _why(suspect: Suspect) -> str:
    harmful = suspect.near_harmful
    reasons = [f"{harmful:.0%} of what is near is harmful"]
    if suspect.opposite is not None:
        reasons.append(f"{suspect.opposite} is almost the same and labelled the opposite")
    if suspect.contested:
        reasons.append("contested")
    if suspect.burst is not None:
        reasons.append(f"one of {suspect.burst} in ten minutes")
    return "; ".join(reasons)
