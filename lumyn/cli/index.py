"""`lumyn index`: the record index that lists and queries use."""

from __future__ import annotations

import typer

from lumyn.cli.output import out, out_json, progress

app = typer.Typer(help="The record index that lists and queries use.", no_args_is_help=True, rich_markup_mode=None)


@app.command("rebuild")
def rebuild(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Make the record index again from the log; nothing else is touched.

    \b
    Example: lumyn index rebuild
    """
    from lumyn.wiring import existing_home
    from streams.topics import RECORDS

    home = existing_home()
    total = sum(home.log.end(RECORDS, partition) for partition in range(home.log.partitions(RECORDS)))
    with progress("indexing", total) as tick:
        result = home.rebuild_index(tick)
    if json_:
        out_json({"decisions": result.records, "labels": result.labels, "refused": len(result.refused)})
    else:
        out(f"index rebuilt: {result.records} decisions, {result.labels} labels, {len(result.refused)} refused")
