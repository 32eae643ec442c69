"""The contested ledger: a fold over the `ledger` topic. Events are only added; the present state is what they give."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from schemas.canonical import decode_trusted, encode
from schemas.ids import iso_time
from schemas.ledger import ADAPTER, Contested, LedgerEvent, State
from streams.log import Append, Log, Message
from streams.reading import messages
from streams.topics import LEDGER

_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Said:
    """A change of an entry's state, by whom and when (log time)."""

    state: State
    owner: str | None
    why: str
    actor: str
    at: str


@dataclass(slots=True)
class Entry:
    """A contested decision and where it stands. A decision may be contested by several backfills: each has its own."""

    job: str
    about: Contested
    at: str
    state: State = "open"
    owner: str | None = None
    history: list[Said] = field(default_factory=list)
    redriven: tuple[str, str] | None = None
    """The new decision and its verdict, where it was decided again."""

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        last = self.history[-1] if self.history else None
        return {
            "job": self.job,
            **self.about,
            "contested_at": self.at,
            "state": self.state,
            "owner": self.owner,
            "why": last.why if last else None,
            "history": [
                {"state": one.state, "owner": one.owner, "why": one.why, "actor": one.actor, "at": one.at}
                for one in self.history
            ],
            "redriven_as": None
            if self.redriven is None
            else dict(zip(("decision_id", "verdict"), self.redriven, strict=True)),
        }


@dataclass(slots=True)
class Backfill:
    """A backfill that was written; `whole` once all that it contests stands in the ledger."""

    begun: LedgerEvent
    at: str
    whole: bool = False


@dataclass(slots=True)
class Ledger:
    """A tenant's ledger as it stands."""

    backfills: dict[str, Backfill] = field(default_factory=dict)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    """By job and decision id, in the order they were contested."""
    ignored: int = 0
    """Messages that are no ledger event, or speak of what isn't there."""
    _seen: set[str] = field(default_factory=set)

    def take(self, event: LedgerEvent, time_ms: int) -> None:
        """Take an event in; one that was taken before changes nothing."""
        if event["event_id"] in self._seen:
            return
        if not self._applied(event, iso_time(time_ms)):
            self.ignored += 1
            return
        self._seen.add(event["event_id"])

    def _applied(self, event: LedgerEvent, at: str) -> bool:
        job, kind = event["job"], event["type"]
        if kind == "backfill_begun":
            if job in self.backfills or not {"range", "against"} <= event.keys():
                return False
            self.backfills[job] = Backfill(event, at)
            return True
        if job not in self.backfills:
            return False
        if kind == "backfill_written":
            self.backfills[job].whole = True
            return True
        if kind == "contested":
            about = event.get("contested")
            if about is None or (job, about["decision_id"]) in self.entries:
                return False
            self.entries[job, about["decision_id"]] = Entry(job, about, at)
            return True
        entry = self.entries.get((job, event.get("decision_id", "")))
        return entry is not None and _changed(entry, event, at)

    def states(self, job: str | None = None) -> Counter[str]:
        """How many entries are in each state."""
        return Counter(one.state for one in self.entries.values() if job in (None, one.job))


def _changed(entry: Entry, event: LedgerEvent, at: str) -> bool:
    if event["type"] == "redriven":
        if "new_decision_id" not in event or "verdict" not in event:
            return False
        entry.redriven = event["new_decision_id"], event["verdict"]
        return True
    if "state" not in event:
        return False
    entry.state = event["state"]
    entry.owner = event.get("owner", entry.owner)
    entry.history.append(Said(entry.state, entry.owner, event.get("why", ""), event["actor"], at))
    return True


def event_of(message: Message) -> LedgerEvent | None:
    """The event in a message; None when it is none."""
    try:
        return ADAPTER.validate_python(decode_trusted(message.value))
    except (ValidationError, ValueError):
        return None


def read_ledger(log: Log, tenant: str) -> Ledger:
    """A tenant's ledger, to its end. Raises `StorageUnavailable`."""
    ledger = Ledger()
    for message in messages(log, LEDGER, 0):
        event = event_of(message)
        if event is None:
            ledger.ignored += 1
        elif event["tenant"] == tenant:
            ledger.take(event, message.time_ms)
    return ledger


def ledger_append(event: LedgerEvent) -> Append:
    """An event on its way into the log. Raises `ValidationError` for one that is none."""
    return Append(LEDGER, encode(ADAPTER.validate_python(event)), partition=0)


def write_contested(log: Log, begun: LedgerEvent, contested: Iterable[Contested], tick: Any = None) -> int:
    """Write a backfill into the ledger, or what is missing of it; returns how many entries were added.

    Ids are made of the job's and the decision's, so that a second writer at the same time adds nothing that counts.
    """
    ledger, job = read_ledger(log, begun["tenant"]), begun["job"]
    signed = {"tenant": begun["tenant"], "actor": begun["actor"], "job": job}
    if job not in ledger.backfills:
        log.append([ledger_append(begun)])
    missing: list[Append] = []
    added = total = 0
    for about in contested:
        total += 1
        if (job, about["decision_id"]) not in ledger.entries:
            event = {"type": "contested", "event_id": f"{job}/{about['decision_id']}", **signed, "contested": about}
            missing.append(ledger_append(event))  # type: ignore[arg-type]
        if len(missing) == _AT_ONCE:
            log.append(missing)
            added, missing = added + len(missing), []
        if tick is not None:
            tick(1)
    log.append(missing)
    if job not in ledger.backfills or not ledger.backfills[job].whole:
        written = {"type": "backfill_written", "event_id": f"{job}/written", **signed, "count": total}
        log.append([ledger_append(written)])  # type: ignore[arg-type]
    return added + len(missing)


def say_state(
    log: Log, entries: Sequence[Entry], *, tenant: str, actor: str, state: State | None, owner: str | None, why: str
) -> None:
    """Say of entries where they stand, all or none. `state` None: as it is, under another owner."""
    events = []
    for entry in entries:
        event: dict[str, Any] = {
            "type": "state", "event_id": uuid.uuid4().hex, "tenant": tenant, "actor": actor, "job": entry.job,
            "why": why, "decision_id": entry.about["decision_id"], "state": state or entry.state,
        }  # fmt: skip
        if owner is not None:
            event["owner"] = owner
        events.append(ledger_append(event))  # type: ignore[arg-type]
    log.append(events)


def redriven_event(entry: Entry, *, tenant: str, actor: str, new_id: str, verdict: str) -> Append:
    """That a contested decision was decided again, as a new one. Said twice it counts once."""
    event: Any = {
        "type": "redriven", "event_id": f"{entry.job}/{entry.about['decision_id']}/{new_id}", "tenant": tenant,
        "actor": actor, "job": entry.job, "decision_id": entry.about["decision_id"], "new_decision_id": new_id,
        "verdict": verdict,
    }  # fmt: skip
    return ledger_append(event)
