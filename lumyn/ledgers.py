"""The contested ledger of a home: choosing entries, saying where they stand, deciding chosen ones anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lumyn.home import Home
from lumyn.redriving import Redriven, redrive, redriven_before, waiting
from lumyn.searching import search
from schemas.errors import NotFound, UsageError
from schemas.ledger import STATES, State
from streams.ledger import Entry, Ledger, read_ledger, redriven_event, say_state

_ASK = 50


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries. None: any."""

    ids: tuple[str, ...] = ()
    job: str | None = None
    state: str | None = None
    owner: str | None = None
    direction: str | None = None


def ledger_of(home: Home) -> Ledger:
    """The ledger of the home's tenant."""
    return read_ledger(home.log, home.settings.tenant)


def state_named(name: str) -> State:
    """A state by its name. Raises `UsageError`."""
    for state in STATES:
        if name == state:
            return state
    raise UsageError(f"there is no state `{name}`", help=f"one of {', '.join(STATES)}")


def chosen(ledger: Ledger, wanted: Filter) -> list[Entry]:
    """The entries that fit, in the order they were contested. Raises `NotFound` for an id that is not contested,
    `UsageError` for a start of several.
    """
    if wanted.state is not None:
        state_named(wanted.state)
    if wanted.job is not None and wanted.job not in ledger.backfills:
        raise NotFound(f"the ledger holds no backfill `{wanted.job}`", help="`lumyn ledger list` shows what it holds")
    of_job = [one for one in ledger.entries.values() if wanted.job in (None, one.job)]
    names = {_whole(name, of_job) for name in wanted.ids}
    return [
        one
        for one in of_job
        if (not wanted.ids or one.about["decision_id"] in names)
        and wanted.state in (None, one.state)
        and wanted.owner in (None, one.owner)
        and wanted.direction in (None, one.about["direction"])
    ]


def _whole(start: str, entries: Sequence[Entry]) -> str:
    """The contested decision whose id starts so: a short start must not change what nobody meant."""
    found = {one.about["decision_id"] for one in entries if one.about["decision_id"].startswith(start.upper())}
    if not start or not found:
        raise NotFound(f"decision `{start}` is not contested", help="`lumyn ledger list` shows those that are")
    if len(found) > 1:
        raise UsageError(f"`{start}` is the start of {len(found)} contested decisions", help="give more of the id")
    return found.pop()


def set_state(home: Home, entries: Sequence[Entry], state: str | None, owner: str | None, why: str) -> None:
    """Say where entries stand. Raises `UsageError`."""
    if state is None and owner is None:
        raise UsageError("say `--state` or `--owner`")
    if not why.strip():
        raise UsageError("`--why` is empty", help="a sentence: it stands in the ledger for good")
    said = None if state is None else state_named(state)
    signed = {"tenant": home.settings.tenant, "actor": home.settings.actor}
    say_state(home.log, entries, **signed, state=said, owner=owner, why=why)


def decide_anew(home: Home, entries: Sequence[Entry]) -> Iterator[Redriven]:
    """Decide contested requests again, as new linked decisions, and note each beside its entry.

    One that was redriven before is not sent again. Raises `StorageUnavailable` as `redrive` does.
    """
    by_id: dict[str, list[Entry]] = {}
    for entry in entries:
        by_id.setdefault(entry.about["decision_id"], []).append(entry)
    names, rows = list(by_id), []
    for start in range(0, len(names), _ASK):
        query = f"decision_id IN ({', '.join(repr(name) for name in names[start : start + _ASK])})"
        rows += search(home, query, limit=None, newest_first=False, say=lambda _: None)

    def note(name: str, new_id: str, verdict: str) -> None:
        signed = {"tenant": home.settings.tenant, "actor": home.settings.actor}
        noted = [one for one in by_id[name] if one.redriven != (new_id, verdict)]
        home.log.append([redriven_event(entry, **signed, new_id=new_id, verdict=verdict) for entry in noted])

    for name, record in redriven_before(home, names).items():  # also what a run decided that died before it said so
        note(name, record["decision_id"], record["verdict"])
    for one in redrive(home, waiting(home, rows)):
        if one.new_id is not None and one.verdict is not None:
            note(one.old.decision_id, one.new_id, one.verdict)
        yield one
