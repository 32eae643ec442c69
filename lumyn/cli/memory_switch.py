"""`lumyn memory switch`: another embedder. Its memory is made beside the one in use, and then chosen by control."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, progress, say


def switch(
    embedder: str | None = typer.Argument(
        None, help="`static`, `static:FOLDER`, `sentence-transformers:NAME_OR_FOLDER`."
    ),
    profile: str | None = typer.Option(
        None, "--profile", help="A memory profile's file: which facts go where. `default` goes back to the default one."
    ),
    why: str = typer.Option(..., "--why", help="Why; kept in the control topic."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Make the memory with another embedder or profile, beside the one in use, and decide with it from then on.

    \b
    Examples: lumyn memory switch sentence-transformers:all-MiniLM-L6-v2 --why "reads our customers' languages"
              lumyn memory switch static --why "back to what we had"
              lumyn memory switch --profile shop.yml --why "order notes are text, euros can be compared"
    The memory in use answers until the other is complete. It is kept: past decisions are explained and checked with it,
    and switching back only brings it up to date. Thresholds of policies are of one embedder: try the policy first.
    """
    from lumyn.memory_switch import read_profile, switch_memory
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError
    from streams.topics import LABELS

    if embedder is None and profile is None:
        raise UsageError("say what to switch to: an embedder, `--profile FILE`, or both")
    home = existing_home()
    chosen = None if profile is None else read_profile(profile)
    with progress("remembering", home.log.end(LABELS, 0)) as tick:
        done = switch_memory(home, embedder, why, tick, chosen)
    if json_:
        out_json(done.as_dict())
        return
    if done.before == done.after:
        out(f"the memory is already that of `{done.after.vectoriser_id}`")
        return
    out(f"memory switched to `{done.after.vectoriser_id}`: version {done.version}, {done.points} points")
    say(f"the memory of `{done.before.vectoriser_id}` is kept, and brought up to date when it is switched back to")
