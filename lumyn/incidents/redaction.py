"""What a redaction takes out of an incident's events: texts that mention somebody, or all that people wrote in some."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from lumyn.incidents.chain import REDACTED
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import GONE, Event, Incident
from schemas.errors import NotFound, UsageError
from streams.local_log import wall_clock_ms

WRITTEN: Final = ("title", "summary", "text", "note", "why", "output", "query", "kept")
"""What people wrote, or a command printed, in an event's data. What it links, and where it stands, is not."""
_STANDS: Final = ("kind", "id", "section", "state", "status", "severity", "events", "digests_anew_from")
"""What an incident is folded from: words of ours, in which nobody is named."""
Mentions = Callable[[str], bool]


def mentioning(names: Sequence[str]) -> Mentions:
    """Whether a text holds one of the names as a word of its own, whatever its case and its Unicode form."""
    wanted = [re.escape(folded) for name in names if (folded := _folded(name.strip()))]
    found = re.compile(rf"(?<![^\W_])(?:{'|'.join(wanted)})(?![^\W_])") if wanted else None
    return lambda text: found is not None and found.search(_folded(text)) is not None


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def holds(value: Any, mentions: Mentions) -> bool:
    """Whether any text in a value mentions them, names of fields among them."""
    if isinstance(value, str):
        return mentions(value)
    if isinstance(value, Mapping):
        return any(mentions(str(name)) or holds(one, mentions) for name, one in value.items())
    return isinstance(value, list | tuple) and any(holds(one, mentions) for one in value)


def without(value: Any, mentions: Mentions) -> Any:
    """A value with each text that mentions them redacted as a whole: what stands around a name is about them, too."""
    if isinstance(value, str):
        return GONE if mentions(value) else value
    if isinstance(value, Mapping):
        return {GONE if mentions(str(name)) else name: without(one, mentions) for name, one in value.items()}
    return [without(one, mentions) for one in value] if isinstance(value, list | tuple) else value


def redactable(
    incidents: Incidents, name: str, *, mentions: Sequence[str] = (), events: Collection[int] = (), whole: bool = False
) -> list[Event]:
    """The events whose texts `redact` would take out, as they stand. Raises `NotFound`, `UsageError`."""
    incident = incidents.show(name)
    chosen = _chosen(incident, mentions, events, whole)
    return [event for event in incident.events if event.seq in chosen]


def redact(
    incidents: Incidents,
    name: str,
    why: str,
    *,
    mentions: Sequence[str] = (),
    events: Collection[int] = (),
    whole: bool = False,
) -> Incident:
    """Take texts out for good: those that mention somebody, or all that people wrote in some events, or in all.

    The events stay, the chain verifies as before, and one event more says who redacted which and why. Raises
    `NotFound`, `UsageError`; `StorageUnavailable` while another process reads the file: then the same call goes on.
    """
    if not why.strip():
        raise UsageError("`--why` is empty", help="a sentence: it stays with the incident; name nobody in it")
    if mentioning(mentions)(why):
        raise UsageError("the reason names what is to be redacted, and it would stay")
    after = incidents.store.redact(
        incidents.tenant,
        incidents.show(name).number,
        lambda incident: _chosen(incident, mentions, events, whole),
        why=why.strip(),
        actor=incidents.actor,
        at_ms=wall_clock_ms(),
    )
    assert after is not None
    return after


def _chosen(
    incident: Incident, mentions: Sequence[str], events: Collection[int], whole: bool
) -> dict[int, dict[str, Any]]:
    """What is left of each event that is to be redacted, by its number."""
    if any(not one.strip() for one in mentions):
        raise UsageError("what is mentioned is empty text")
    if not mentions and not events and not whole:
        raise UsageError("nothing is to be redacted", help="say what is mentioned, which events, or all")
    unknown = sorted(set(events) - {event.seq for event in incident.events})
    if unknown:
        raise NotFound(f"{incident.id} has no event {unknown[0]}", help=f"`lumyn incident show {incident.id} --json`")
    named = mentioning(mentions)
    out: dict[int, dict[str, Any]] = {}
    for event in incident.events:
        blank = event.seq in events or (whole and event.kind != REDACTED)
        data = {field: _left(field, value, named, blank) for field, value in event.data.items()}
        if data != event.data:
            out[event.seq] = data
    return out


def _left(field: str, value: Any, mentions: Mentions, blank: bool) -> Any:
    if field in _STANDS:
        return value
    if blank and field in WRITTEN:
        return dict.fromkeys(value, GONE) if isinstance(value, Mapping) else GONE if value else value
    return without(value, mentions)
