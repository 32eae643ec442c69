"""Where a home names a subject beside its decisions: in what people wrote, and in what was measured of them.

Forgetting destroys a key, and none of this is under one. Each place is told with what takes it out, where something
does. A text names a subject that holds its id as a word; a short id may be a word of another meaning.
"""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from lumyn import rate_files
from lumyn.gamedays import past
from lumyn.home import Home
from lumyn.inbox.store import InboxStore
from lumyn.incidents import Incidents, redaction
from lumyn.incidents.evidence import decisions_of
from lumyn.incidents.redaction import Mentions, holds, mentioning
from lumyn.incidents.store import FILE
from lumyn.label_jobs import FOLDER as JOBS
from lumyn.reports import FOLDER as REPORTS
from lumyn.runbooks.reading import FOLDER as RUNBOOKS
from lumyn.watches.store import naming
from lumyn.wiring import home_as
from schemas.canonical import decode_trusted
from schemas.errors import LumynError
from schemas.query import And, Field, OneOf, Query
from streams.control_history import control_history
from streams.ledger import read_ledger
from streams.reading import messages, object_in
from streams.subject_keys import Subject
from streams.topics import CONTROL, LABELS

By = Literal["text", "decision"]
_FOLDERS: Final = {
    rate_files.FOLDER: "rate sample", past.FOLDER: "game day", JOBS: "job", REPORTS: "report",
    RUNBOOKS: "runbook",
}  # fmt: skip
_MEASURED: Final = (rate_files.FOLDER, past.FOLDER)
_DECISION = re.compile(rb"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@dataclass(frozen=True, slots=True)
class Mention:
    """A place that names a subject: `by` its id in a `text`, or only through a `decision` of it, which says nothing.

    `count` is how many events, entries or files; 0: it can't be read, and may name him. `help` takes the text out;
    None: nothing does, as it is in the log.
    """

    kind: str
    ref: str
    by: By
    count: int
    where: str
    help: str | None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def mentions_of(home: Home, subject: Subject, kid: str | None) -> list[Mention]:
    """All of a subject's tenant, those by text first. Raises `StorageUnavailable` where the log or index can't be read.

    What else can't be read is one of them, as nobody knows what it names: it must keep nobody from being forgotten.
    """
    if subject.tenant != home.settings.tenant:
        home = home_as(home, subject.tenant, home.settings.actor)
    named = mentioning([subject.id])
    decisions = frozenset(_decisions(home, subject, kid))
    found = [
        *_incidents(home, subject.id, decisions),
        *_readable("watch", "watches.db", partial(_watches, home, named)),
        *_readable("inbox", "inbox.db", partial(_inbox, home, named, decisions)),
        *_files(home, named, decisions),
        *_ledger(home, named, decisions),
        *_log(home, named),
    ]
    return sorted(found, key=lambda one: one.by != "text")


def _readable(kind: str, ref: str, look: Callable[[], Iterable[Mention]]) -> list[Mention]:
    """What a look finds; where it fails, that."""
    try:
        return list(look())
    except (LumynError, OSError) as error:
        return [_unread(kind, ref, error)]


def _unread(kind: str, ref: str, error: LumynError | OSError) -> Mention:
    said = error.message if isinstance(error, LumynError) else error.strerror or str(error)
    return Mention(kind, ref, "text", 0, f"can't be looked at: {said}", None)


def _decisions(home: Home, subject: Subject, kid: str | None) -> Iterator[str]:
    names = (subject.id,) if kid is None else (subject.id, kid)
    kind, whose = OneOf(Field("subject_type", "text"), (subject.type,)), OneOf(Field("subject_id", "text"), names)
    for row in home.index().find(Query("", And((kind, whose))), tenant=subject.tenant, limit=None):
        yield row.decision_id


def _incidents(home: Home, name: str, decisions: Collection[str]) -> Iterator[Mention]:
    incidents = Incidents(home)
    try:
        for number in incidents.store.numbers(home.settings.tenant):
            look = partial(_incident, incidents, number, name, decisions)
            yield from _readable("incident", f"INC-{number}", look)
    except LumynError as error:
        yield _unread("incident", FILE, error)
    finally:
        incidents.store.close()


def _incident(incidents: Incidents, number: int, name: str, decisions: Collection[str]) -> Iterator[Mention]:
    incident = incidents.show(str(number))
    written = [str(one.seq) for one in redaction.redactable(incidents, incident.id, mentions=[name])]
    if written:
        yield Mention(
            "incident", incident.id, "text", len(written), f"event {', '.join(written)}",
            f"lumyn incident redact {incident.id} --mentions {shlex.quote(name)} --why WHY --apply",
        )  # fmt: skip
    of = {row.decision_id for row in decisions_of(incidents.home, incident).rows} & set(decisions) if decisions else ()
    if of:
        yield Mention("incident", incident.id, "decision", len(of), "its decisions", None)


def _watches(home: Home, named: Mentions) -> Iterator[Mention]:
    for name, count in naming(home, lambda told: holds(told, named)).items():
        help = f"lumyn watch remove {name} --redact"
        yield Mention("watch", name, "text", count, "its definitions and rounds", help)


def _inbox(home: Home, named: Mentions, decisions: Collection[str]) -> Iterator[Mention]:
    store = InboxStore(home.path)
    try:
        if not store.is_there:
            return
        told = store.all_of(home.settings.tenant)
    finally:
        store.close()
    by_name = sum(named(event.actor) or named(event.assignee or "") for event in told)
    if by_name:
        yield Mention("inbox", "inbox.db", "text", by_name, "who has or answered an escalation", None)
    if of := sum(event.decision_id in decisions for event in told):
        yield Mention("inbox", "inbox.db", "decision", of, "who answered what, and no text", None)


def _files(home: Home, named: Mentions, decisions: Collection[str]) -> Iterator[Mention]:
    for folder, kind in _FOLDERS.items():
        for path in sorted((home.path / folder).rglob("*")):
            if path.is_file() and not path.is_symlink():
                ref = str(path.relative_to(home.path))
                yield from _readable(kind, ref, partial(_file, home, folder, path, ref, named, decisions))


def _file(
    home: Home, folder: str, path: Path, ref: str, named: Mentions, decisions: Collection[str]
) -> Iterator[Mention]:
    if _is_another_s(home, folder, path):
        return
    kind, data = _FOLDERS[folder], path.read_bytes()
    if any(holds(value, named) for value in _values(path, data)):
        yield Mention(kind, ref, "text", 1, "the file", f"rm {shlex.quote(str(path))}")
    elif folder in _MEASURED and any(one.decode() in decisions for one in _DECISION.findall(data)):
        yield Mention(kind, ref, "decision", 1, "figures, and no text", None)


def _is_another_s(home: Home, folder: str, path: Path) -> bool:
    """Whether a file is another tenant's, in which the same id is another person."""
    tenant = home.settings.tenant
    if folder == REPORTS:
        return path.parent.name != tenant
    with path.open("rb") as file:
        first = next(_values(path, file.readline()), None)
    return isinstance(first, Mapping) and first.get("tenant", tenant) != tenant


def _values(path: Path, data: bytes) -> Iterator[Any]:
    """What a file holds: JSON, or JSON lines, decoded, so that no escape hides a name; else its text."""
    for line in data.splitlines() if path.suffix == ".jsonl" else [data]:
        try:
            yield decode_trusted(line)
        except ValueError:
            yield html.unescape(line.decode("utf-8", "replace"))


def _ledger(home: Home, named: Mentions, decisions: Collection[str]) -> Iterator[Mention]:
    entries = read_ledger(home.log, home.settings.tenant).entries.values()
    by_text = sum(any(named(said.why) or named(said.owner or "") for said in entry.history) for entry in entries)
    if by_text:
        yield Mention("ledger", "ledger", "text", by_text, "why an entry stands as it does, or its owner", None)
    if of := sum(entry.about["decision_id"] in decisions for entry in entries):
        yield Mention("ledger", "ledger", "decision", of, "entries with a pseudonym, and no text", None)


def _log(home: Home, named: Mentions) -> Iterator[Mention]:
    """What people wrote into the log in clear: reasons of switches, jobs and holds, names, labels of open decisions."""
    tenant = home.settings.tenant
    labels = (one for message in messages(home.log, LABELS, 0) if (one := object_in(message)).get("tenant") == tenant)
    told = {CONTROL: (change.said for change in control_history(home.log, tenant)), LABELS: labels}
    for topic, events in told.items():
        if count := sum(holds(event, named) for event in events):
            yield Mention("log", topic, "text", count, "events, in clear", None)
