"""`lumyn memory explain`: the whole sum behind a decision."""

from __future__ import annotations

import typer

from lumyn.cli.output import one_line, out, out_json


def explain(
    decision: str = typer.Argument(..., metavar="ID", help="A decision id, a unique prefix, or `01JBQX8P2M...`."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """Show the whole sum of what memory said about a decision, and what would have changed the verdict.

    \b
    Example: lumyn memory explain 01JBQX8P2M...
    Neighbours, their scores block by block, weights, thresholds and the amount gate, made again as of the decision's
    memory version; then the decision without the memory, and without each neighbour that counted.
    """
    from lumyn import memory_views
    from lumyn.wiring import existing_home
    from streams.memory_explain_text import lines_of

    explained = memory_views.explained(existing_home(), decision)
    if json_:
        out_json(explained.as_dict())
        return
    for line in lines_of(explained):
        out(one_line(line))
