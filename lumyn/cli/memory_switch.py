"""`lumyn memory switch`: another embedder. Its memory is made beside the one in use, and then chosen by control."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, progress, say


def switch(
    embedder: str = typer.Argument(..., help="`static`, `static:FOLDER`, `sentence-transformers:NAME_OR_FOLDER`."),
    why: str = typer.Option(..., "--why", help="Why; kept in the control topic."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Make the memory with another embedder, beside the one in use, and decide with it from then on.

    \b
    Examples: lumyn memory switch sentence-transformers:all-MiniLM-L6-v2 --why "reads our customers' languages"
              lumyn memory switch static --why "back to what we had"
    The memory in use answers until the other is complete. It is kept: past decisions are explained and checked with it,
    and switching back only brings it up to date. Thresholds of policies are of one embedder: try the policy first.
    """
    from lumyn.memory_switch import switch_memory
    from lumyn.wiring import existing_home
    from streams.topics import LABELS

    home = existing_home()
    with progress("remembering", home.log.end(LABELS, 0)) as tick:
        done = switch_memory(home, embedder, why, tick)
    if json_:
        out_json(done.as_dict())
        return
    if done.before == done.after:
        out(f"the memory is already of `{done.after.embedder}` ({done.after.vectoriser_id})")
        return
    out(f"memory switched to `{done.after.embedder}`: version {done.version}, {done.points} points")
    say(f"the memory of `{done.before.embedder}` is kept; `lumyn memory switch {done.before.embedder}` goes back to it")
