"""`lumyn memory trust`: how much each labeller's words count, and setting it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.label_job import APPLY, JSON, RESUME, UNDO, WHY, run
from lumyn.cli.output import one_line, out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.home import Home
    from streams.label_history import Histories
    from streams.label_jobs import Plan


def trust(
    labeller: str | None = typer.Argument(None, metavar="[LABELLER]", help="Whom; without, all who are not trusted."),
    much: float | None = typer.Argument(None, metavar="[TRUST]", help="From 0 (held) to 1 (full), in steps of 0.05."),
    why: str | None = WHY,
    apply: bool = APPLY,
    undo: str | None = UNDO,
    resume: str | None = RESUME,
    json_: bool = JSON,
) -> int:
    """Set how much a labeller's words count, those that he said and those that he will say; or list who counts less.

    \b
    Examples: lumyn memory trust
              lumyn memory trust import-bot 0.5 --why "one in five of its labels was wrong"
              lumyn memory trust import-bot 0.5 --why "one in five of its labels was wrong" --apply
              lumyn memory trust --undo trust-0123456789ab
    Trust weighs a labeller's labels in `memory.nearby`. Below 0.5 what he calls fine no longer supports or softens;
    what he calls harmful blocks all the same, until he is held (0).
    """
    from schemas.errors import UsageError

    if undo is None and resume is None and labeller is None:
        if apply or why is not None:
            raise UsageError("say whom and how much: `lumyn memory trust LABELLER TRUST --why ...`")
        return _list(json_)

    def plan(home: Home, labelled: Histories) -> Plan:
        from lumyn.label_jobs import sign
        from schemas.label_check import check_trust_value
        from streams.label_jobs import trust as plan_of

        if not labeller or much is None or why is None:
            raise UsageError("say whom, how much and why: `lumyn memory trust LABELLER TRUST --why ...`")
        hundredths = check_trust_value(much)
        warn_of_stranger(labeller, labelled)
        return plan_of(sign(home, "trust", why), labeller, hundredths, labelled)

    return run("lumyn memory trust", plan, why=why, apply=apply, undo=undo, resume=resume, json_=json_)


def _list(json_: bool) -> int:
    from lumyn import memory_views
    from lumyn.wiring import existing_home

    found = memory_views.trusts(existing_home())
    if json_:
        out_json({"trust": found})
        return 0
    if found:
        out(table(("labeller", "trust", "since", "by", "why"), [
            (one_line(one["labeller"]), "held" if one["trust"] == 0 else f"{one['trust']:g}", str(one["since"]),
             one_line(one["by"]), one_line(one["why"]))
            for one in found
        ]))  # fmt: skip
    say(f"{len(found)} labellers are not trusted in full; all others are")
    return 0


def warn_of_stranger(labeller: str, labelled: Histories) -> None:
    """Say so when nobody of that name has said anything yet: it may be meant, or misspelt."""
    import difflib

    names = set[str]().union(*(history.speakers() for history in labelled.values()))
    if labeller not in names:
        near = difflib.get_close_matches(labeller, names, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        say(one_line(f"note: no label of this tenant is by `{labeller}` yet{hint}"))
