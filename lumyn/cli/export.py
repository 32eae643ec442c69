"""`lumyn export`: packs and data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import out, out_json, progress, say

if TYPE_CHECKING:
    from lumyn.home import Home


def export(
    decision: str | None = typer.Argument(None, metavar="[ID]", help="A decision id or a unique prefix."),
    pack: bool = typer.Option(False, "--pack", help="Write a signed ZIP pack."),
    to: Path | None = typer.Option(None, "--out", help="The file to write; a record a line when it ends in .jsonl."),
    query: str | None = typer.Option(None, "--query", "-q", help="Every decision that fits."),
    limit: int | None = typer.Option(None, "--limit", "-n", min=1, help="The latest N."),
    with_memory: bool = typer.Option(False, "--with-memory", help="Put the memory as it then was in the pack."),
    redact: bool = typer.Option(False, "--redact", help="Leave out what opens the personal part."),
    json_: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
) -> None:
    """Export decisions: a pack each, or a record a line.

    \b
    Examples: lumyn export 01JBQX8P2M... --pack --out incident.zip
              lumyn export --query "verdict=DENY AND action_type=refund"
              lumyn export --limit 100 --out decisions.jsonl
              lumyn export 01JBQX8P2M... --pack --redact --out redacted.zip
    """
    from lumyn.cli.new_key import telling_new_key
    from lumyn.wiring import existing_home
    from schemas.errors import UsageError

    home = existing_home()
    if decision is not None and (query or limit):
        raise UsageError("give an id, or `--query` and `--limit`, not both")
    if decision is None and not query and limit is None:
        raise UsageError("what to export? give an id, `--query` or `--limit`")
    with telling_new_key(home):
        if decision is not None:
            written = [_one(home, decision, to, pack, with_memory, redact)]
        elif to is not None:
            written = [_dataset(home, query, limit, to, redact)]
        else:
            written = _packs(home, query, limit, with_memory, redact)
    if json_:
        out_json([str(path) for path in written])
    else:
        for path in written:
            out(str(path))


def _one(
    home: Home, decision: str, to: Path | None, pack: bool, with_memory: bool, redact: bool
) -> Path:
    from lumyn.exporting import export_pack, exported_line, write_whole
    from lumyn.lookup import sound_record
    from schemas.errors import UsageError

    raw, record = sound_record(home, decision)
    path = to or Path(f"decision_{record['decision_id']}.zip")
    if not pack and path.suffix != ".zip" and path.suffix not in (".json", ".jsonl"):
        raise UsageError("`--out` must end in .zip for a pack, or .json for the record", where=str(path))
    if path.suffix in (".json", ".jsonl") and not pack:
        write_whole(path, exported_line(home, raw, redact=redact) + b"\n")
    else:
        write_whole(path, export_pack(home, raw, record, with_memory=with_memory, redact=redact))
    return path


def _packs(home: Home, query: str | None, limit: int | None, with_memory: bool, redact: bool) -> list[Path]:
    from lumyn.exporting import export_pack, write_whole
    from lumyn.lookup import find_record
    from lumyn.searching import search

    rows = search(home, query, limit=limit, newest_first=True, say=say)
    written = []
    with progress("exporting", len(rows)) as tick:
        for row in rows:
            raw, record = find_record(home, row.decision_id)
            path = Path(f"decision_{row.decision_id}.zip")
            write_whole(path, export_pack(home, raw, record, with_memory=with_memory, redact=redact))
            written.append(path)
            tick()
    say(f"exported {len(written)} decision pack{'' if len(written) == 1 else 's'}")
    return written


def _dataset(home: Home, query: str | None, limit: int | None, to: Path, redact: bool) -> Path:
    """Records, oldest first, one a line: what `lumyn diff` reads."""
    from lumyn.exporting import exported_line, write_whole
    from lumyn.lookup import sound_record
    from lumyn.searching import search
    from schemas.errors import UsageError

    if to.suffix not in (".jsonl", ".ndjson", ".json"):
        raise UsageError("`--out` must end in .jsonl: a record a line", where=str(to))
    rows = search(home, query, limit=limit, newest_first=True, say=say)
    lines = []
    with progress("exporting", len(rows)) as tick:
        for row in reversed(rows):
            lines.append(exported_line(home, sound_record(home, row.decision_id)[0], redact=redact))
            tick()
    write_whole(to, b"".join(line + b"\n" for line in lines))
    say(f"exported {len(lines)} decision{'' if len(lines) == 1 else 's'}")
    return to
