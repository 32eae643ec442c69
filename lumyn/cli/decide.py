"""`lumyn decide`: one decision, or one a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lumyn.cli.output import error_text, out, out_bytes, out_json, progress, say

if TYPE_CHECKING:
    from schemas.errors import LumynError
    from streams.deciding import Answer

_AT_ONCE = 256
_DUPLICATES_TOLD = 5


def decide(
    request: str = typer.Argument(..., metavar="REQUEST.json", help="A request, JSON lines, or `-` for stdin."),
    policy: Path | None = typer.Option(None, "--policy", help="The policy file that decides."),
    human: bool = typer.Option(False, "--human", help="Print a short text instead of the record."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Append the requests; something else decides them."),
    timeout: float = typer.Option(30.0, "--timeout", min=0.1, help="Over Kafka: seconds to wait for a decision."),
    json_: bool = typer.Option(False, "--json", help="Print the record as one canonical line."),
) -> int:
    """Decide one request (or one a line) and print its record as JSON.

    \b
    Example: lumyn decide request.json --policy policy.yml
    """
    from lumyn.config import LumynConfig
    from lumyn.wiring import open_home
    from schemas.errors import LumynError
    from schemas.request import Request, parse_request

    name = "stdin" if request == "-" else request
    bodies = requests_in(request)
    home = open_home(LumynConfig(policy_path=policy, timeout_s=timeout))
    parsed: list[Request | LumynError] = []
    for number, body in enumerate(bodies, start=1):
        where = name if len(bodies) == 1 else f"{name}:{number}"
        try:
            parsed.append(parse_request(body, tenant=home.settings.tenant, where=where))
        except LumynError as error:
            parsed.append(error)
    good = [p for p in parsed if isinstance(p, Request)]
    if no_wait:
        failed = [p for p in parsed if isinstance(p, LumynError)]
        for message in home.agent.submit(good):
            if isinstance(message, LumynError):
                failed.append(message)
            else:
                out(f"{home.log.prefix}.{message.topic} {message.partition}:{message.offset}")
        return _errors(failed)
    errors, duplicates = [p for p in parsed if isinstance(p, LumynError)], 0
    with progress("deciding", len(good)) as tick:
        for start in range(0, len(good), _AT_ONCE):
            some = good[start : start + _AT_ONCE]
            for answer in home.agent.decide(some, home.given_policy):  # told as soon as it is stored
                if isinstance(answer, LumynError):
                    errors.append(answer)
                    continue
                if answer.outcome == "duplicate":
                    duplicates += 1
                    if duplicates <= _DUPLICATES_TOLD:
                        _tell_duplicate(answer)
                _tell(answer, human=human, line=json_ or len(bodies) > 1)
            tick(len(some))
    if duplicates > _DUPLICATES_TOLD:
        say(f"duplicates: {duplicates} in all; each is answered by its first record")
    return _errors(errors)


def _tell(answer: Answer, *, human: bool, line: bool) -> None:
    from lumyn.cli.show import summary
    from schemas.canonical import decode_trusted, encode

    record = answer.record if answer.record is not None else decode_trusted(answer.canonical)
    line_of = encode(dict(record)) if isinstance(record, dict) and type(record) is not dict else answer.canonical
    if human:
        out(summary(record))
    elif line:
        out_bytes(line_of)
    else:
        out_json(record)


def _tell_duplicate(answer: Answer) -> None:
    from schemas.canonical import decode_trusted

    record = answer.record if answer.record is not None else decode_trusted(answer.canonical)
    say(f"duplicate: request_id `{record['request_id']}` was decided before; this is the first record")


def _errors(errors: Sequence[LumynError]) -> int:
    if len(errors) == 1:
        raise errors[0]
    for error in errors:
        say(f"lumyn: {error_text(error)}")
    return max((error.exit_code for error in errors), default=0)


def requests_in(request: str) -> list[bytes]:
    """One body, or several: one JSON value is one request, else each line is one."""
    import sys

    from schemas.errors import NotFound, UsageError

    if request == "-":
        data = sys.stdin.buffer.read()
    else:
        try:
            data = Path(request).read_bytes()
        except FileNotFoundError:
            raise NotFound("no such request file", where=request) from None
        except IsADirectoryError:
            raise UsageError("this is a folder, not a request", where=request) from None
    lines = [line for line in data.splitlines() if line.strip()]
    if not lines:
        raise UsageError("there is no request in it", where="stdin" if request == "-" else request)
    if len(lines) > 1 and request.endswith((".jsonl", ".ndjson")):
        return lines
    starts_new = len(lines) > 1 and all(line.lstrip().startswith(b"{") for line in lines)
    return lines if starts_new and all(line.rstrip().endswith(b"}") for line in lines) else [data]
