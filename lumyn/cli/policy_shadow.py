"""`lumyn policy shadow`: a candidate beside the policy in force, on live traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from lumyn.cli.output import one_line, out, out_json, say, table


def shadow(
    file: Path | None = typer.Argument(None, metavar="[CANDIDATE.yml]", help="The candidate's file."),
    instead_of: str | None = typer.Option(
        None, "--instead-of", help="Beside whose decisions; default: the policy of the candidate's name."
    ),
    why: str = typer.Option("", "--why", help="The reason, for the audit trail."),
    off: str | None = typer.Option(None, "--off", metavar="NAME[@VERSION]", help="End a candidate's trial."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Try a candidate on live decisions without deciding anything by it; alone, say what the candidates said so far.

    \b
    Examples: lumyn policy shadow candidate.yml --why "higher limit for gold"
              lumyn policy shadow
              lumyn policy shadow --off refunds@5.0.0
    Over Kafka `lumyn worker shadow` evaluates, with a consumer group of its own: it can't slow or fail a decision.
    """
    from lumyn import shadowing
    from lumyn.policy_file import load_policy_file
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError

    home = existing_home()
    if file is not None and off is not None:
        raise UsageError("give a candidate, or `--off`, not both")
    if off is not None:
        ended = shadowing.stop(home, off)
        _tell("no longer in the shadow:", ended.name, ended.version, ended.hash, json_)
    elif file is not None:
        begun = shadowing.start(home, load_policy_file(file), instead_of, why)
        _tell(f"in the shadow of {begun.instead_of}:", begun.name, begun.version, begun.hash, json_)
    else:
        _tell_results(shadowing.results(home), json_)


def _tell(what: str, name: str, version: str, hash_: str, json_: bool) -> None:
    if json_:
        out_json({"name": name, "version": version, "hash": hash_})
    else:
        out(f"{what} {name}@{version} {hash_}")


def _tell_results(results: list[dict[str, Any]], json_: bool) -> None:
    if json_:
        out_json(results)
        return
    if not results:
        say("no candidate is in the shadow; `lumyn policy shadow CANDIDATE.yml` begins a trial")
    for one in results:
        share = f" ({one['changed'] / one['compared']:.2%})" if one["compared"] else ""
        said = f"{one['compared']} decisions compared, {one['changed']} would change{share}"
        more = [
            f"{one[name]} {text}"
            for name, text in (
                ("other_reasons", "with the same verdict for other reasons"),
                ("without_memory", "without memory"),
                ("errors", "could not be evaluated"),
            )
            if one[name]
        ]
        out(one_line(f"{one['policy']} instead of {one['instead_of']}: {', '.join([said, *more])}"))
        if one["flips"]:
            out(table(("decided", "candidate", "count"), [(f["old"], f["new"], str(f["count"])) for f in one["flips"]]))
