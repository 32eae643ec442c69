"""Action items as tickets for elsewhere: JSON, CSV, or POSTed to a webhook, signed."""

from __future__ import annotations

import csv
import hashlib
import io
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from lumyn.agent_runs import url_agent
from lumyn.api.callbacks import SIGNATURE, signature
from lumyn.incidents.model import Incident
from schemas.canonical import encode
from schemas.errors import StorageUnavailable, UsageError

SECRET: Final = "LUMYN_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
TIMEOUT_S: Final = 10.0
PAUSES_S: Final = (0.0, 1.0, 5.0)
_AGAIN: Final = (408, 425, 429)
_MOST_ANSWER = 64 * 1024
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def tickets(incident: Incident) -> list[dict[str, Any]]:
    """A ticket an action item; `key` stays the same however often they are exported."""
    return [
        {
            "key": f"{incident.id}/{action.id}",
            "incident": incident.id,
            "severity": incident.severity,
            "title": f"[{incident.id}] {action.text.splitlines()[0][:200]}",
            "description": _description(incident, action.text, action.target, action.watch),
            "owner": action.owner,
            "state": action.state,
            "due": action.due,
            "target": action.target["text"] if action.target else None,
            "watch": action.watch,
            "ticket": action.ticket,
        }
        for action in incident.actions
    ]


def _description(incident: Incident, text: str, target: Mapping[str, Any] | None, watch: str | None) -> str:
    lines = [text, "", f"From {incident.id} ({incident.severity}): {incident.title}"]
    if target is not None:
        lines.append(f"Target: {target['text']}")
    if watch is not None:
        lines.append(f"Checked by: lumyn watch check {watch}")
    return "\n".join(lines)


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tickets as CSV (RFC 4180), with no cell that a spreadsheet would calculate (OWASP: CSV injection)."""
    names = [
        "key", "incident", "severity", "title", "description", "owner", "state", "due", "target", "watch", "ticket",
    ]  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in names])
    return out.getvalue()


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def post(
    url: str,
    incident: Incident,
    secret: str,
    *,
    timeout_s: float = TIMEOUT_S,
    pauses_s: Sequence[float] = PAUSES_S,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """POST the tickets as one signed document, tried again where that may help; returns how many tries it took.

    Redirects are not followed: what is signed goes where it was sent. The `Idempotency-Key` is the same each time.
    Raises `UsageError` for an address that can't be used, `StorageUnavailable` where nobody took them.
    """
    _check(url)
    body = encode({"schema": "lumyn.tickets/1", "incident": incident.id, "tickets": tickets(incident)})
    key = hashlib.sha256(body).hexdigest()
    why = ""
    for number, pause in enumerate(pauses_s, start=1):
        time.sleep(pause)
        headers = {SIGNATURE: signature(secret, int(time.time()), body), "Idempotency-Key": key}
        answer = url_agent(url, timeout_s=timeout_s, most=_MOST_ANSWER, headers=headers)(body, threading.Event())
        if answer.status == "ended" and answer.exit_code == 0:
            return number
        status = answer.exit_code or 0
        why = f"it answered {status}" if answer.status == "ended" else answer.said or answer.status
        say(f"try {number} of {len(pauses_s)}: {why}")
        if answer.status == "ended" and 300 <= status < 500 and status not in _AGAIN:
            break
    raise StorageUnavailable(f"the webhook did not take the tickets: {why}", help="`--tickets json` prints them")


def _check(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, named = parts.hostname, parts.username or parts.password
    except ValueError:
        host, named, parts = None, None, urlsplit("")
    local = host in ("127.0.0.1", "::1", "localhost")
    plain = url.isascii() and url.isprintable() and " " not in url
    if not host or named or not plain or parts.scheme not in (("https", "http") if local else ("https",)):
        raise UsageError(
            "a webhook's address is https://HOST/PATH, without a name or password in it",
            help="http is for this machine only: tickets say what went wrong",
        )
