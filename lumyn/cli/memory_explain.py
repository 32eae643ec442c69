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
    from lumyn.lookup import sound_record
    from lumyn.stores import make_vectoriser
    from lumyn.wiring import existing_home
    from memory_service.recall import Asked, Recall, unavailable
    from schemas.errors import UsageError
    from streams.as_of import was_recalled
    from streams.memory_explain import explain_memory, lines_of

    home = existing_home()
    _, record = sound_record(home, decision)
    name = record["decision_id"]
    if not was_recalled(record):
        raise UsageError(f"decision `{name}` was made without memory", help=f"`lumyn explain {name}` explains it")

    def recall(asked: Asked) -> Recall:
        if record["memory"]["epoch"] != home.log.epoch:  # the same version of another memory says nothing
            return unavailable()
        return home.memory.recaller().recall([asked])[0]

    explained = explain_memory(
        record,
        home.agent.control().compiled(record["policy"]["hash"]),
        make_vectoriser(home.settings),
        home.events,
        recall,
    )
    if json_:
        out_json(explained.as_dict())
        return
    for line in lines_of(explained):
        out(one_line(line))
