"""`lumyn incident postmortem` and `monitor`."""

from __future__ import annotations

from pathlib import Path

import typer

from lumyn.cli.incident import ID, JSON, incidents_here, told
from lumyn.cli.output import out, out_json, say


def postmortem(
    incident: str = ID,
    path: Path | None = typer.Option(None, "--out", metavar="P.md", help="Write Markdown; what you edited stays."),
    html: Path | None = typer.Option(None, "--html", metavar="P.html", help="Write one HTML page, too."),
    keep: str | None = typer.Option(None, "--keep", help="Where a part was written in both: `file` or `store`."),
    json_: bool = JSON,
) -> None:
    """Write an incident's postmortem from evidence: what happened, how often, what could not be determined.

    \b
    Examples: lumyn incident postmortem INC-7 --out INC-7.md --html INC-7.html
              lumyn incident postmortem INC-7 --json
    Its figures are made again each time. What people write between the markers of the Markdown file, or with
    `lumyn incident write`, stays: an edited file is read first, and what is new in it is kept with the incident.
    """
    from lumyn.exporting import write_whole
    from lumyn.incidents.postmortem import gather
    from lumyn.incidents.render import as_html, as_markdown
    from lumyn.incidents.sections_kept import edited, parts_in
    from schemas.errors import UsageError

    if keep not in (None, "file", "store"):
        raise UsageError("`--keep` is `file` or `store`")
    incidents = incidents_here()
    one = incidents.show(incident)
    if path is not None and path.exists():
        changed = edited(parts_in(_text(path), one, str(path)), one, keep, str(path))  # type: ignore[arg-type]
        for name, text in changed.items():
            one = incidents.write(one.id, name, text)
        if changed:
            say(f"kept from {path}: {', '.join(changed)}")
    facts = gather(incidents, one)
    text = as_markdown(facts, one)
    if path is not None:
        write_whole(path, text.encode())
    if html is not None:
        write_whole(html, as_html(text, f"{one.id}: {one.title}").encode())
    if json_:
        out_json(facts)
    elif path is None and html is None:
        out(text.rstrip("\n"))
    say(f"{len(facts['unknown'])} things could not be determined")
    open_parts = [name for name in ("summary", "why1", "cause", "recur") if name not in one.sections]
    if open_parts:
        say(f"still to be written: {', '.join(open_parts)}, ... (`lumyn incident write {one.id}` lists all)")


def _text(path: Path) -> str:
    from schemas.errors import BadInput, StorageUnavailable

    try:
        if path.stat().st_size > 16 * 1024 * 1024:
            raise BadInput("too large to be a postmortem", where=str(path))
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise BadInput("this is not UTF-8", where=str(path)) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=str(path)) from None


def monitor(
    incident: str = ID,
    query: str = typer.Option(..., "--query", "-q", help="What would show the second instance."),
    of: str | None = typer.Option(None, "--of", help="Among which decisions; all, if not given."),
    alert: str = typer.Option(..., "--alert", help="When it alerts, such as `rate > 1%`."),
    json_: bool = JSON,
) -> None:
    """Save the query that would catch it the next time before a user does, as a watch of this incident.

    \b
    Example: lumyn incident monitor INC-7 --query "label=failure" --of "action_type=refund" --alert "rate > 1%"
    """
    from lumyn.incidents.monitors import monitor as save

    incidents = incidents_here()
    after = save(incidents, incidents.show(incident), query, of=of, alert=alert)
    name = after.refs("watch")[-1]
    say(f"`lumyn watch check {name}` checks it")
    told(after, f"watch {name}", json_)
