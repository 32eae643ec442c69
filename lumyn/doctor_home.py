"""The doctor on files: the embedded log, and the memory and index that are derived from a log."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from lumyn.config import Settings
from lumyn.findings import Finding, Status, failed, guarded
from lumyn.home import LOG_FILE
from lumyn.stores import INDEX_FILE, chosen, chosen_vectoriser, memory_name, open_memory
from schemas.errors import LumynError
from streams.control import ControlState, read_control
from streams.decide_agent import GROUP
from streams.log import Log
from streams.topics import LABELS, RECORDS, REQUESTS
from streams.versions import last_version

if TYPE_CHECKING:
    from memory_service.recall import MemoryChoice
    from memory_service.record_index import RecordIndex

_EDGE = "edge:"
_BUSY_S = 2.0


def examine_home(settings: Settings) -> Iterator[Finding]:
    """What an embedded home holds."""
    home = settings.home.absolute()
    path = home / LOG_FILE
    if not path.exists():
        yield Finding("log", "ok", f"`{path}` is made by the first decision")
        return
    sound = list(sqlite_file("log", path, "restore it from a backup: it is the one source of truth"))
    yield from sound
    if any(finding.status == "fail" for finding in sound):
        return
    from streams.local_log import LocalLog

    try:
        LocalLog(path, prefix=settings.prefix, read_only=True).close()  # one that is no log would be made one
        log = LocalLog(path, prefix=settings.prefix, busy_timeout_s=_BUSY_S)
    except LumynError as error:
        yield failed("log", error)
        return
    try:
        yield from guarded("log", lambda: _log(log))
        yield from guarded("control", lambda: control_findings(settings, read_control(log)))
        yield from derived_files(settings, log, home)
    finally:
        log.close()


def sqlite_file(part: str, path: Path, mend: str) -> Iterator[Finding]:
    """A SQLite file: sound, and writable. `mend` is for one that is damaged."""
    try:
        db = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw", uri=True, timeout=_BUSY_S, isolation_level=None
        )
        try:
            problems = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
            if problems != ["ok"]:
                yield Finding(part, "fail", f"`{path}` is damaged: {'; '.join(problems)}", mend)
                return
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        finally:
            db.close()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            busy = f"`{path}` is being written by another process just now"
            yield Finding(part, "warn", busy, "nothing, if it passes; else stop the process that holds it")
        else:
            yield Finding(part, "fail", f"`{path}` can't be written: {error}", "check the file's owner and the disk")
    except sqlite3.DatabaseError as error:
        yield Finding(part, "fail", f"`{path}` is damaged: {error}", mend)
    else:
        yield Finding(part, "ok", f"`{path}`: sound and writable, {path.stat().st_size // 1024} KiB")


def _log(log: Log) -> Iterator[Finding]:
    partitions = range(log.partitions(REQUESTS))
    waiting = sum(log.end(REQUESTS, p) - log.committed(GROUP, REQUESTS, p) for p in partitions)
    decided = sum(log.end(RECORDS, p) for p in range(log.partitions(RECORDS)))
    if waiting:
        yield Finding("log", "warn", f"{waiting} submitted requests wait", "the next `lumyn decide` decides them, too")
    yield Finding("log", "ok", f"decisions: {decided}, in {len(partitions)} partitions")


def control_findings(settings: Settings, control: ControlState) -> Iterator[Finding]:
    """What decides, and what is stopped."""
    active = sorted({f"{p.name}@{p.version}" for name in control.active if (p := control.active_policy(name))})
    files = [f"{p.name}@{p.version}" for p in control.policies.values() if p.origin == "file"]
    count = len(control.switches)
    on = f"; {count} kill switch{'es are' if count > 1 else ' is'} on" if count else ""
    if active:
        yield Finding("control", "ok", f"version {control.version}; active: {', '.join(active)}{on}")
    elif files:
        said = f"version {control.version}; no policy is active, files decide: {files[-1]} was the last{on}"
        yield Finding("control", "ok", said)
    elif settings.policy_path is not None:
        yield Finding("control", "ok", f"version {control.version}; no policy is active, the file decides{on}")
    else:
        yield Finding(
            "control",
            "warn",
            f"version {control.version}; no policy is active, and no file has decided{on}",
            "`lumyn policy publish FILE` and `lumyn policy activate NAME`, or LUMYN_POLICY=FILE",
        )


def derived_files(settings: Settings, log: Log, folder: Path) -> Iterator[Finding]:
    """Memory and index in files of a folder; one that is not there yet is made when it is first asked."""
    yield from guarded("memory", lambda: _memory_file(settings, log, folder))
    yield from _derived("index", folder / INDEX_FILE, lambda: _index(settings, log, folder / INDEX_FILE))


def _memory_file(settings: Settings, log: Log, folder: Path) -> Iterator[Finding]:
    choice = read_control(log).memory
    vectoriser = chosen_vectoriser(settings, choice)
    look = lambda: _memory(settings, log, folder, choice)  # noqa: E731
    if settings.qdrant is not None and settings.qdrant.startswith(_EDGE):
        if Path(settings.qdrant.removeprefix(_EDGE)).exists():
            yield from guarded("memory", look)
        else:
            yield Finding("memory", "ok", "it is made at the first question")
    else:
        yield from _derived("memory", folder / memory_name(chosen(settings, choice), vectoriser), look)


def _derived(part: str, path: Path, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    if not path.exists():
        yield Finding(part, "ok", "it is made at the first question")
        return
    sound = list(sqlite_file(part, path, f"`lumyn {part} rebuild` makes it again from the log"))
    yield from sound
    if not any(finding.status == "fail" for finding in sound):
        yield from guarded(part, look)


def _memory(settings: Settings, log: Log, folder: Path, choice: MemoryChoice | None) -> Iterator[Finding]:
    store, _ = open_memory(settings, folder, log.epoch, choice, create=False)
    try:
        mark = store.watermark()
    finally:
        store.close()
    last = last_version(log, LABELS)
    said = f"version {mark.version} of {last}, {mark.count} points"
    if mark.version > last:
        yield Finding("memory", "fail", f"{said}: it knows labels that the log does not", "`lumyn memory rebuild`")
    else:
        yield Finding("memory", "ok", said + ("" if mark.version == last else "; the next question catches it up"))


def _index(settings: Settings, log: Log, path: Path) -> Iterator[Finding]:
    from lumyn.stores import open_index_file

    index = open_index_file(settings, path.parent, log.epoch)
    try:
        yield from index_findings(log, index, "ok", "the next question catches it up")
    finally:
        index.close()


def index_findings(log: Log, index: RecordIndex, behind: Status, mend: str) -> Iterator[Finding]:
    """The index's positions against the log's ends; `behind` and `mend` are for one that lags."""
    from streams.find_records import is_current

    positions = index.positions()
    ends = {p: log.end(RECORDS, p) for p in range(log.partitions(RECORDS))}
    beyond = [p for p, at in positions.items() if at > ends.get(p, 0)]
    if beyond or index.labels_position() > last_version(log, LABELS):
        yield Finding("index", "fail", "it stands beyond the log's end: another log's", "`lumyn index rebuild`")
    elif is_current(log, index, ends):
        yield Finding("index", "ok", f"it holds the records up to the end of all {len(ends)} partitions")
    else:
        count = sum(max(0, end - positions.get(p, 0)) for p, end in ends.items())
        yield Finding("index", behind, f"it is {count} offsets behind the log", mend)
