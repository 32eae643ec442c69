"""`lumyn incident export`: action items as tickets, bad cases as an eval set."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from lumyn.cli.incident import ID, JSON, incidents_here
from lumyn.cli.output import one_line, out, out_json, say


def export(
    incident: str = ID,
    tickets: str | None = typer.Option(None, "--tickets", help="Its action items: json, csv or webhook."),
    evals: Path | None = typer.Option(None, "--eval", metavar="FILE.jsonl", help="Its labelled decisions as eval set."),
    url: str | None = typer.Option(None, "--url", help="Where the webhook is: https://HOST/PATH."),
    path: Path | None = typer.Option(None, "--out", help="Write tickets to a file instead of printing them."),
    json_: bool = JSON,
) -> None:
    """Export an incident's action items as tickets, or its bad cases as an eval set for Inspect AI.

    \b
    Examples: lumyn incident export INC-7 --tickets csv --out tickets.csv
              lumyn incident export INC-7 --tickets webhook --url https://hooks.example/tickets
              lumyn incident export INC-7 --eval refunds.jsonl
    A webhook gets one POST with the header X-Lumyn-Signature, `t=TIME,v1=HEX`: HMAC-SHA256 of `TIME.BODY` under the
    secret in LUMYN_WEBHOOK_SECRET.
    """
    from schemas.errors import UsageError

    if (tickets is None) == (evals is None) or tickets not in (None, "json", "csv", "webhook"):
        raise UsageError("give `--tickets json|csv|webhook`, or `--eval FILE.jsonl`")
    if (url is not None) != (tickets == "webhook"):
        raise UsageError("`--url` goes with `--tickets webhook`, and that needs it")
    incidents = incidents_here()
    one = incidents.show(incident)
    if evals is not None:
        _evals(incidents.home, one, evals, json_)
        return
    from lumyn.exporting import write_whole
    from lumyn.incidents.tickets import SECRET, as_csv, post
    from lumyn.incidents.tickets import tickets as tickets_of

    rows = tickets_of(one)
    if not rows:
        raise UsageError(f"{one.id} has no action items", help=f"`lumyn incident action {one.id} --text ...` adds one")
    if url is not None:
        secret = os.environ.get(SECRET)
        if not secret:
            raise UsageError(f"a webhook is signed, and {SECRET} is not set", help="one that the receiver has")
        tries = post(url, one, secret, say=lambda text: say(one_line(text)))
        _said({"sent": len(rows), "tries": tries}, f"{len(rows)} tickets sent", json_)
    elif path is not None:
        import orjson

        text = as_csv(rows) if tickets == "csv" else orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode() + "\n"
        write_whole(path, text.encode())
        _said({"written": len(rows), "path": str(path)}, f"{len(rows)} tickets written to {path}", json_)
    elif tickets == "csv" and not json_:
        out(as_csv(rows).replace("\r\n", "\n").rstrip("\n"))
    else:
        out_json(rows)


def _evals(home: object, incident: object, path: Path, json_: bool) -> None:
    from lumyn.exporting import write_whole
    from lumyn.incidents.evals import Left, samples
    from schemas.canonical import encode

    left = Left()
    lines = [encode(sample) + b"\n" for sample in samples(home, incident, left)]  # type: ignore[arg-type]
    write_whole(path, b"".join(lines))
    if left.unlabelled:
        say(f"{left.unlabelled} decisions have no label: what would have been right is not known, they are left out")
    if left.unsaid:
        say(
            f"{left.unsaid} decisions were wrong, and nobody said what would have been right: they are left out "
            "(`lumyn label ID --label failure --should VERDICT` says it)"
        )
    if left.closed:
        say(f"{left.closed} decisions can't be read here, and are left out")
    if left.opened:
        say(f"{left.opened} samples hold what is stored under a subject's key: forgetting will not reach this file")
    left_out = {"unlabelled": left.unlabelled, "unsaid": left.unsaid, "closed": left.closed}
    told = {"samples": len(lines), **left_out, "path": str(path)}
    _said(told, f"{len(lines)} samples written to {path}", json_)


def _said(value: dict[str, object], text: str, json_: bool) -> None:
    if json_:
        out_json(value)
    else:
        out(one_line(text))
