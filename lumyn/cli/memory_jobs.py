"""`lumyn memory quarantine`, `release`, `rollback`: take memories out of recall and back, or go back as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import say

if TYPE_CHECKING:
    from lumyn.wiring import Home
    from streams.label_history import History
    from streams.label_jobs import Decided

_IDS = typer.Argument(None, metavar="[ID]...", help="Labelled decisions: ids, unique prefixes, memory ids.")
_LABELLER = typer.Option(None, "--labeller", help="All on which this labeller's word counts.")
_QUERY = typer.Option(None, "--query", "-q", help="Which decisions, such as `label=failure`.")
_WHY = typer.Option(None, "--why", help="Stands in every event of the job.")
_APPLY = typer.Option(False, "--apply", help="Do it; without it the change is only shown.")
_UNDO = typer.Option(None, "--undo", metavar="JOB", help="Take a whole job back.")
_RESUME = typer.Option(None, "--resume", metavar="JOB", help="Go on with a job that was broken off.")
_JSON = typer.Option(False, "--json", help="Print as JSON.")


def quarantine(
    ids: list[str] | None = _IDS,
    labeller: str | None = _LABELLER,
    query: str | None = _QUERY,
    why: str | None = _WHY,
    apply: bool = _APPLY,
    undo: str | None = _UNDO,
    resume: str | None = _RESUME,
    json_: bool = _JSON,
) -> int:
    """Take labelled decisions out of recall; what was said of them stays, and they can be let back in.

    \b
    Examples: lumyn memory quarantine 01JBQX8P2M... --why "looks poisoned" --apply
              lumyn memory quarantine --labeller import-bot --why "bad import" --apply
              lumyn memory quarantine --query "label=failure AND created_at > '2024-12-19'" --why "bad import"
    """
    return _quarantine("quarantine", ids, labeller, query, why, apply, undo, resume, json_)


def release(
    ids: list[str] | None = _IDS,
    labeller: str | None = _LABELLER,
    query: str | None = _QUERY,
    why: str | None = _WHY,
    apply: bool = _APPLY,
    undo: str | None = _UNDO,
    resume: str | None = _RESUME,
    json_: bool = _JSON,
) -> int:
    """Let quarantined decisions back into recall.

    \b
    Examples: lumyn memory release 01JBQX8P2M... --why "it was right" --apply
              lumyn memory release --labeller import-bot --why "the import was right" --apply
    """
    return _quarantine("release", ids, labeller, query, why, apply, undo, resume, json_)


def _quarantine(
    kind: str,
    ids: list[str] | None,
    labeller: str | None,
    query: str | None,
    why: str | None,
    apply: bool,
    undo: str | None,
    resume: str | None,
    json_: bool,
) -> int:
    from lumyn.cli.label_job import carry_out
    from lumyn.cli.label_job import resume as go_on
    from lumyn.label_jobs import known, sign
    from lumyn.label_jobs import undo as take_back
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.label_jobs import quarantine as plan_of

    home, command = existing_home(), f"lumyn memory {kind}"
    if resume is not None:
        return go_on(home, resume, json_=json_, command=command)
    if undo is not None:
        return carry_out(home, take_back(home, undo, why), apply=True, json_=json_, command=command)
    if sum(bool(which) for which in (ids, labeller, query)) != 1 or why is None:
        raise UsageError("say which: ids, `--labeller` or `--query`, one of them, and `--why`")
    labelled = known(home)
    chosen = _chosen(home, labelled, ids, labeller, query)
    plan = plan_of(sign(home, kind, why), chosen, labelled, out=kind == "quarantine")
    return carry_out(home, plan, apply=apply, json_=json_, command=command)


def _chosen(
    home: Home, labelled: dict[str, History], ids: list[str] | None, labeller: str | None, query: str | None
) -> list[Decided]:
    from lumyn.label_jobs import found
    from lumyn.lookup import find_record
    from schemas.errors import NotFound
    from streams.label_jobs import Decided, spoken_of_by

    if labeller is not None:
        return spoken_of_by(labeller, labelled)
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
    why: str | None = _WHY,
    apply: bool = _APPLY,
    undo: str | None = _UNDO,
    resume: str | None = _RESUME,
    json_: bool = _JSON,
) -> int:
    """Bring the memory back to what it was at a version, as new events: nothing is deleted, and it can be undone.

    \b
    Examples: lumyn memory rollback --to 1200 --why "before the bad import"
              lumyn memory rollback --to 1200 --why "before the bad import" --apply
              lumyn memory rollback --undo rollback-0123456789ab
    `lumyn show ID` names the memory version that a decision was made with.
    """
    from lumyn.cli.label_job import carry_out
    from lumyn.cli.label_job import resume as go_on
    from lumyn.label_jobs import known, sign
    from lumyn.label_jobs import undo as take_back
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.label_jobs import take_back as plan_of
    from streams.topics import LABELS
    from streams.versions import last_version

    home, command = existing_home(), "lumyn memory rollback"
    if resume is not None:
        return go_on(home, resume, json_=json_, command=command)
    if undo is not None:
        return carry_out(home, take_back(home, undo, why), apply=True, json_=json_, command=command)
    if to is None or why is None:
        raise UsageError("a rollback needs `--to` and `--why`")
    newest = last_version(home.log, LABELS)
    if to > newest:
        raise UsageError(f"the memory stands at version {newest}: it can't go back to {to}")
    plan = plan_of(sign(home, "rollback", why), {"after": to}, known(home))
    return carry_out(home, plan, apply=apply, json_=json_, command=command)
