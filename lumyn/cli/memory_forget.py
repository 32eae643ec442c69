"""`lumyn memory forget` and `lumyn memory hold`: the personal part of a subject's decisions, gone for good or kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import one_line, out, out_json, say

if TYPE_CHECKING:
    from lumyn.forgetting import Forgetting

SUBJECT = typer.Option(..., "--subject", metavar="TYPE:ID", help="Whom, as requests name it.")
TENANT = typer.Option(None, "--tenant", help="Whose subject; default: this home's tenant.")
WHY = typer.Option(..., "--why", help="Stands in the log, in clear: name nobody in it.")
JSON = typer.Option(False, "--json", help="Print as JSON.")


def forget(
    subject: str = SUBJECT,
    why: str = WHY,
    tenant: str | None = TENANT,
    apply: bool = typer.Option(False, "--apply", help="Do it, for good; without it what would go is only shown."),
    json_: bool = JSON,
) -> int:
    """Forget a subject: its key is destroyed and its memories are taken out; the chain still verifies.

    \b
    Examples: lumyn memory forget --subject customer:cust-42 --why "asked to be forgotten"
              lumyn memory forget --subject customer:cust-42 --why "asked to be forgotten" --apply
    What is stored of its decisions stays as it is, and nothing opens it any more. It can't be undone. Broken off, the
    same command goes on. What people wrote elsewhere is listed, with what takes it out. Exit 1: decisions in clear, or
    texts that name the subject, remain. 2: a legal hold stops it.
    """
    from lumyn import forgetting
    from lumyn.wiring import existing_home

    home = existing_home()
    whom = forgetting.subject_named(subject, tenant or home.settings.tenant)
    planned = forgetting.plan(home, whom)
    if apply and planned.pseudonym is not None:
        planned = forgetting.forget(home, whom, why, say)
    elif planned.pseudonym is None and not planned.in_clear and not planned.is_named:
        say(f"nothing is stored of {one_line(subject)} in tenant `{whom.tenant}`, or it was forgotten")
    if json_:
        out_json(planned.as_dict())
    else:
        _show(planned)
    return 1 if apply and (planned.in_clear or planned.is_named) else 0


def _show(found: Forgetting) -> None:
    done = found.applied
    out(one_line(f"subject: {found.type}:{found.id} in tenant {found.tenant}"))
    if found.hold is not None:
        out(one_line(f"on hold: {found.hold}"))
    if found.begun and not done:
        out("begun: its key is destroyed already; `--apply` goes on")
    out(f"decisions whose personal part {'is gone' if done else 'would go'}: {found.records}")
    out(f"label events whose texts and facts {'are gone' if done else 'would go'}: {found.labels}")
    out(f"memories {'taken out' if done else 'that would be taken out'}: {found.memories}")
    for one in found.mentions:
        named = "perhaps named" if not one.count else "named" if one.by == "text" else "linked"
        out(one_line(f"{named} in {one.kind} {one.ref}: {f'{one.count} ' if one.count else ''}({one.where})"))
    if found.in_clear:
        say(f"{found.in_clear} decisions were stored in clear, without `encrypt_subjects`: they stay as they are")
    if found.is_named:
        say("texts that name the subject stay as they are. What takes them out, where something does:")
        for command in dict.fromkeys(one.help for one in found.mentions if one.help is not None):
            say(f"  {one_line(command)}")
    if done:
        out(f"forgotten as of memory version {found.version}")
    elif found.pseudonym is not None:
        say("a legal hold stops this" if found.hold is not None else "`--apply` does it; it can't be undone")


def hold(
    subject: str = SUBJECT,
    why: str = WHY,
    tenant: str | None = TENANT,
    release: bool = typer.Option(False, "--release", help="End the hold."),
    json_: bool = JSON,
) -> None:
    """Put a subject on legal hold: it can't be forgotten until that is released. Both stand in the log.

    \b
    Examples: lumyn memory hold --subject customer:cust-42 --why "case 2024-117"
              lumyn memory hold --subject customer:cust-42 --why "case 2024-117 is closed" --release
    """
    from lumyn import forgetting
    from lumyn.wiring import existing_home

    home = existing_home()
    whom = forgetting.subject_named(subject, tenant or home.settings.tenant)
    held = forgetting.release(home, whom, why) if release else forgetting.hold(home, whom, why)
    if json_:
        told = {"subject": subject, "tenant": whom.tenant, "pseudonym": held.kid}
        out_json({**told, "hold": None if release else why})
    else:
        out(one_line(f"{subject} is {'no longer on hold' if release else f'on hold: {why}'}"))
