"""`lumyn dead-letters`: what could not be decided, and sending it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lumyn.cli.output import error_text, one_line, out, out_json, say, table

if TYPE_CHECKING:
    from lumyn.dead_letters import Letter
    from lumyn.resending import Resent

app = typer.Typer(
    help="Messages that could not be decided, byte for byte.", no_args_is_help=True, rich_markup_mode=None
)
_NUMBER = typer.Argument(..., metavar="N", min=0, help="The letter's number, as `list` shows it.")
_SHOWN = 16 * 1024


@app.command("list")
def list_(
    limit: int = typer.Option(20, "--limit", "-n", min=1, help="How many at the most."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """List dead letters, newest first, of every tenant: what can't be read has none.

    \b
    Example: lumyn dead-letters list --limit 50
    """
    from lumyn.dead_letters import newest
    from lumyn.wiring import existing_home
    from schemas.ids import iso_time

    letters = newest(existing_home().log, limit)
    if json_:
        out_json([_as_dict(letter) for letter in letters])
        return
    if not letters:
        say("no dead letters")
        return
    rows = [
        (
            str(letter.number),
            iso_time(letter.time_ms)[:19] + "Z",
            _place(letter),
            letter.reason,
            "yes" if letter.notes else "",
            one_line(letter.detail.partition("\n")[0])[:100],
        )
        for letter in letters
    ]
    out(table(("number", "at", "source", "reason", "resent", "detail"), rows))


@app.command("show")
def show(
    number: int = _NUMBER,
    raw: bool = typer.Option(False, "--raw", help="Write the message's exact bytes to stdout, and nothing else."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON, the message in base64."),
) -> None:
    """Show a dead letter with its message: as text where it is text, else as a hex dump.

    \b
    Examples: lumyn dead-letters show 12
              lumyn dead-letters show 12 --raw > request.json
    """
    import base64

    from lumyn.dead_letters import letter
    from lumyn.wiring import existing_home
    from schemas.ids import iso_time

    found = letter(existing_home().log, number)
    if raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.payload)
        sys.stdout.buffer.flush()
        return
    if json_:
        out_json({**_as_dict(found), "payload_base64": base64.b64encode(found.payload).decode("ascii")})
        return
    lines = [
        f"number: {found.number}",
        f"at: {iso_time(found.time_ms)}",
        f"source: {_place(found)}",
        f"reason: {found.reason}",
        f"detail: {one_line(found.detail)}",
        f"key: {'none' if found.key is None else one_line(found.key.decode('utf-8', 'backslashreplace'))}",
        f"bytes: {len(found.payload)}",
        *(f"resent: {one_line(note)}" for note in found.notes),
        "",
        _text(found.payload[:_SHOWN]),
    ]
    out("\n".join(lines))
    if len(found.payload) > _SHOWN:
        say(f"the first {_SHOWN} of {len(found.payload)} bytes; `--raw` writes all of them")


@app.command("resend")
def resend(
    numbers: list[int] = typer.Argument(..., metavar="N...", min=0, help="Numbers as `list` shows them."),
    from_file: Path | None = typer.Option(None, "--from-file", help="A corrected body to send instead; for one N."),
    force: bool = typer.Option(False, "--force", help="Also what would be rejected again, or was sent again before."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Don't wait for what becomes of it."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> int:
    """Put dead letters back on the topic they came from, byte for byte, and say what became of them.

    \b
    Examples: lumyn dead-letters resend 12 13
              lumyn dead-letters resend 12 --from-file fixed.json
    Where a letter went is noted beside it: `list` and `show` tell. A request without a request_id that is sent twice
    is decided twice.
    """
    from lumyn.resending import resend as put_back
    from lumyn.wiring import existing_home, open_home

    existing_home()
    body = _body(from_file) if from_file is not None else None
    results = put_back(open_home(), numbers, body=body, force=force, wait=not no_wait)
    if json_:
        out_json([_result(one) for one in results])
    else:
        for one in results:
            _tell(one)
    for one in results:
        if not one.noted:
            say(f"letter {one.number} was sent, but that could not be noted beside it: `list` won't show it")
        if one.error is not None and not json_:
            say(f"lumyn: {error_text(one.error)}")
    return max((one.error.exit_code for one in results if one.error is not None), default=0)


def _body(path: Path) -> bytes:
    from schemas.errors import NotFound, UsageError

    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound("no such file", where=str(path)) from None
    except IsADirectoryError:
        raise UsageError("this is a folder, not a body to send", where=str(path)) from None


def _place(letter: Letter) -> str:
    return "{topic}/{partition}/{offset}".format(**letter.source)


def _as_dict(letter: Letter) -> dict[str, Any]:
    from schemas.ids import iso_time

    return {
        "number": letter.number,
        "at": iso_time(letter.time_ms),
        "source": dict(letter.source),
        "reason": letter.reason,
        "detail": letter.detail,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "bytes": len(letter.payload),
        "resent": list(letter.notes),
    }


def _text(payload: bytes) -> str:
    """The message as text; a hex dump where it is none."""
    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(payload) - 3:  # a character cut in two by our own limit is no fault of the message
            return _dump(payload)
        text = payload[: error.start].decode("utf-8")
    return text if all(char.isprintable() or char in "\r\n\t" for char in text) else _dump(payload)


def _dump(payload: bytes) -> str:
    lines = []
    for start in range(0, len(payload), 16):
        row = payload[start : start + 16]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{start:08x}  {row.hex(' '):<47}  {shown}")
    return "\n".join(lines)


def _result(one: Resent) -> dict[str, Any]:
    told: dict[str, Any] = {
        "number": one.number,
        "place": one.place,
        "outcome": one.outcome,
        "decision_id": one.decision_id,
        "verdict": one.verdict,
    }
    return told if one.error is None else {**told, "error": one.error.as_dict()}


def _tell(one: Resent) -> None:
    if one.place is None:
        return
    decided = f" {one.decision_id} {one.verdict}" if one.verdict else ""
    out(f"{one.number} -> {one.place} {one.outcome}{decided}")
