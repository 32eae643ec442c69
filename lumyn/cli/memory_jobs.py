"""`lumyn memory quarantine`, `release`, `rollback`: take memories out of recall and back, or go back as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from lumyn.cli.label_job import APPLY, JSON, RESUME, UNDO, WHY, run
from lumyn.cli.memory_trust import warn_of_stranger
from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.home import Home
    from streams.label_history import Histories
    from streams.label_jobs import Decided, Plan


def _out_of_recall_or_back(kind: str, text: str) -> Callable[..., int]:
    """The command of a kind, quarantine or release; `text` is its help."""

    def command(
        ids: list[str] | None = typer.Argument(
            None, metavar="[ID]...", help="Labelled decisions: ids, unique prefixes, memory ids."
        ),
        labeller: str | None = typer.Option(
            None, "--labeller", help="All that this labeller said and will say; not what others said of the same."
        ),
        query: str | None = typer.Option(None, "--query", "-q", help="Which decisions, such as `label=failure`."),
        why: str | None = WHY,
        apply: bool = APPLY,
        undo: str | None = UNDO,
        resume: str | None = RESUME,
        json_: bool = JSON,
    ) -> int:
        def plan(home: Home, labelled: Histories) -> Plan:
            from lumyn.label_jobs import sign
            from schemas.errors import UsageError
            from streams.label_jobs import quarantine as plan_of
            from streams.label_jobs import release_labeller, trust

            if sum(bool(which) for which in (ids, labeller, query)) != 1 or why is None:
                raise UsageError("say which: ids, `--labeller` or `--query`, one of them, and `--why`")
            signed, out = sign(home, kind, why), kind == "quarantine"
            if labeller:
                warn_of_stranger(labeller, labelled)
                return trust(signed, labeller, 0, labelled) if out else release_labeller(signed, labeller, labelled)
            return plan_of(signed, _chosen(home, labelled, ids, query), labelled, out=out)

        return run(f"lumyn memory {kind}", plan, why=why, apply=apply, undo=undo, resume=resume, json_=json_)

    command.__name__, command.__doc__ = kind, text
    return command


quarantine = _out_of_recall_or_back(
    "quarantine",
    """Take labelled decisions, or a labeller, out of recall; what was said stays, and can be let back in.

    \b
    Examples: lumyn memory quarantine 01JBQX8P2M... --why "looks poisoned" --apply
              lumyn memory quarantine --labeller import-bot --why "bad import" --apply
              lumyn memory quarantine --query "label=failure AND created_at > '2024-12-19'" --why "bad import"
    A labeller is held: nothing that he said counts, nor what he says from then on, until he is released. It is the same
    as `lumyn memory trust LABELLER 0`.
    """,
)
release = _out_of_recall_or_back(
    "release",
    """Let quarantined decisions, or a labeller, back into recall.

    \b
    Examples: lumyn memory release 01JBQX8P2M... --why "it was right" --apply
              lumyn memory release --labeller import-bot --why "the import was right" --apply
    A labeller is trusted again as before he was held; of one who is not held, the decisions that he spoke of and that
    are in quarantine one by one are let back in.
    """,
)


def _chosen(home: Home, labelled: Histories, ids: list[str] | None, query: str | None) -> list[Decided]:
    from lumyn.label_jobs import found
    from lumyn.lookup import find_record
    from schemas.errors import NotFound
    from streams.label_jobs import Decided

    if query is not None:
        return found(home, query, say)
    out = []
    for name in ids or []:
        record = find_record(home, name)[1]
        if record["decision_id"] not in labelled:
            raise NotFound(f"decision `{record['decision_id']}` was never labelled: it is not in the memory")
        out.append(Decided(record["decision_id"], record["verdict"]))
    return out


def rollback(
    to: int | None = typer.Option(None, "--to", metavar="V", min=0, help="The memory version to go back to."),
    why: str | None = WHY,
    apply: bool = APPLY,
    undo: str | None = UNDO,
    resume: str | None = RESUME,
    json_: bool = JSON,
) -> int:
    """Bring the memory back to what it was at a version, as new events: nothing is deleted, and it can be undone.

    \b
    Examples: lumyn memory rollback --to 1200 --why "before the bad import"
              lumyn memory rollback --to 1200 --why "before the bad import" --apply
              lumyn memory rollback --undo rollback-0123456789ab
    `lumyn show ID` names the memory version that a decision was made with.
    """

    def plan(home: Home, labelled: Histories) -> Plan:
        from lumyn.label_jobs import sign
        from schemas.errors import UsageError
        from streams.label_jobs import take_back
        from streams.topics import LABELS
        from streams.versions import last_version

        if to is None or why is None:
            raise UsageError("a rollback needs `--to` and `--why`")
        newest = last_version(home.log, LABELS)
        if to > newest:
            raise UsageError(f"the memory stands at version {newest}: it can't go back to {to}")
        return take_back(sign(home, "rollback", why), {"after": to}, labelled)

    return run("lumyn memory rollback", plan, why=why, apply=apply, undo=undo, resume=resume, json_=json_)
