"""What can be linked to an incident, each looked up when it is: a link to nothing is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from lumyn.home import Home
from lumyn.incidents.named import incident_named
from lumyn.incidents.store import IncidentStore
from lumyn.lookup import find_record, shown
from lumyn.switches import named
from schemas.digests import digest
from schemas.errors import LumynError, NotFound, StorageUnavailable, UsageError
from schemas.ids import iso_time
from streams.control_history import control_history
from streams.reading import messages, object_in
from streams.topics import LABELS

Checked = tuple[str, dict[str, Any]]
"""The reference in full, and what was seen of it."""
_TICKET = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,40}[-#/][A-Za-z0-9_#/-]{0,60}", re.ASCII)
_MOST_FILE_BYTES = 256 * 1024 * 1024


def checked(home: Home, kind: str, ref: str) -> Checked:
    """Look a reference up. Raises `NotFound`, `UsageError`, `IntegrityError`."""
    if kind not in KINDS:
        raise UsageError(f"an incident has no links of kind `{shown(kind)}`", help=f"one of {', '.join(KINDS)}")
    if not ref.strip():
        raise UsageError(f"the {kind} to link is empty text")
    return KINDS[kind](home, ref.strip())


def decision(home: Home, ref: str) -> Checked:
    """A decision, by an id or a unique prefix."""
    record = find_record(home, ref)[1]
    seen = {
        "verdict": record["verdict"],
        "action_type": record["request"]["action"]["type"],
        "policy": f"{record['policy']['name']}@{record['policy']['version']}",
        "created_at": record["created_at"],
    }
    return str(record["decision_id"]), seen


def label(home: Home, ref: str) -> Checked:
    """A label: `DECISION@VERSION`, or `DECISION` for its latest."""
    name, _, version = ref.partition("@")
    whole = decision(home, name)[0]
    told = [event for event in home.events(whole) if event["tenant"] == home.settings.tenant]
    found = [event for event in told if not version or str(event["version"]) == version]
    if not found:
        raise NotFound(f"decision `{whole}` has no label {version}".rstrip(), help=f"`lumyn show {whole}` lists them")
    event = found[-1]
    seen = {name: event[name] for name in ("type", "label", "should", "actor", "at")}
    return f"{whole}@{event['version']}", seen


def rate(home: Home, ref: str) -> Checked:
    """A stored sample of a behaviour rate."""
    from lumyn.rate_files import load

    header = load(home.settings, ref).header
    return ref, {"kind": header["kind"], "created_at": header["created_at"], "decision_id": header["decision_id"]}


def job(home: Home, ref: str) -> Checked:
    """A label job that said something: relabel, quarantine, rollback, undo."""
    events = [
        event
        for message in messages(home.log, LABELS, 0)
        if (event := object_in(message)).get("job") == ref and event.get("tenant") == home.settings.tenant
    ]
    if not events:
        raise NotFound(f"no label is of a job `{shown(ref)}`", help="a job is linked once it was applied")
    return ref, {"labels": len(events), "at": events[0]["at"], "actor": events[0]["actor"]}


def policy(home: Home, ref: str) -> Checked:
    """A published policy, `NAME@VERSION` or `NAME` for its latest."""
    name, _, version = ref.partition("@")
    found = home.agent.control().find(name, version or None)
    return f"{found.name}@{found.version}", {"hash": found.hash, "published_at": found.at}


def kill_switch(home: Home, ref: str) -> Checked:
    """A kill switch that is or was on, by a unique prefix of its id."""
    on = [c for c in control_history(home.log, home.settings.tenant) if c.kind == "kill_switch_on"]
    ids = named((str(change.said.get("switch_id", "")) for change in on), ref, home.settings.tenant, prefix=True)
    if len(ids) != 1:
        raise NotFound(f"no one kill switch `{shown(ref)}` was ever on", help="`lumyn kill-switch on` prints its id")
    change = next(change for change in on if str(change.said.get("switch_id", "")) == ids[0])
    seen = {"scope": change.said.get("scope", {}), "at": iso_time(change.at_ms), "actor": change.actor}
    return str(change.said["switch_id"]), seen


def pack(home: Home, ref: str) -> Checked:
    """A pack's file that checks out and is of this tenant."""
    from lumyn.replaying import check_pack
    from streams.integrity import require
    from streams.packs import read_pack

    path = Path(ref)
    read = read_pack(path)
    require(check_pack(read, trust_signer=True, settings_home=home.settings.home), where=shown(ref))
    if read.record["tenant"] != home.settings.tenant:
        raise NotFound(f"`{shown(ref)}` is no pack of tenant {home.settings.tenant}")
    return str(path.absolute()), {"decision_id": read.record["decision_id"], "digest": digest(_bytes(path))}


def watch(home: Home, ref: str) -> Checked:
    """A saved query that is checked as a rate."""
    from lumyn.watches import watch_named

    found = watch_named(home, ref).watch
    return found.name, {"query": found.query, "of": found.of}


def incident(home: Home, ref: str) -> Checked:
    """Another incident of the tenant: the same again, or what it came from."""
    found = incident_named(IncidentStore(home.path), home.settings.tenant, ref)
    return found.id, {"title": found.title}


def backtest(_home: Home, ref: str) -> Checked:
    """A backtest's report, `--json` or `--html`, as a file."""
    path = Path(ref)
    return str(path.absolute()), {"digest": digest(_bytes(path))}


def gameday(home: Home, ref: str) -> Checked:
    """A game day that was played at this home."""
    from lumyn.gamedays.past import load

    kept = load(home.settings, ref)
    return ref, {"name": kept["report"]["name"], "passed": kept["report"]["passed"], "at": kept["at"]}


def ticket(_home: Home, ref: str) -> Checked:
    """A ticket elsewhere: an http address or a key such as `OPS-12`. It can't be looked up, its form is checked."""
    if ref.startswith(("https://", "http://")):
        try:
            host = urlsplit(ref).hostname
        except ValueError:
            host = None
        good = bool(host) and ref.isprintable() and not any(char in ref for char in " <>\"'`\\")
    else:
        good = bool(_TICKET.fullmatch(ref))
    if not good:
        raise UsageError(f"`{shown(ref)}` is no ticket", help="an https address, or a key such as OPS-12")
    return ref, {}


def _bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MOST_FILE_BYTES:
            raise UsageError("too large to be linked", where=shown(str(path)))
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound("no such file", where=shown(str(path))) from None
    except OSError as error:
        raise StorageUnavailable(f"can't be read: {error.strerror or error}", where=shown(str(path))) from None


KINDS: Final[Mapping[str, Callable[[Home, str], Checked]]] = {
    "decision": decision,
    "label": label,
    "rate": rate,
    "job": job,
    "policy": policy,
    "kill-switch": kill_switch,
    "watch": watch,
    "incident": incident,
    "pack": pack,
    "backtest": backtest,
    "gameday": gameday,
    "ticket": ticket,
}
FILES: Final = ("pack", "backtest")
"""Kinds that name files of this machine: not for callers from elsewhere."""


def file_now(path: str, told: Mapping[str, Any]) -> str | None:
    """What is wrong with a linked file now; None: it is the one that was linked."""
    try:
        same = digest(_bytes(Path(path))) == told.get("digest")
    except LumynError as error:
        return error.message
    return None if same else "it is not the file that was linked"
