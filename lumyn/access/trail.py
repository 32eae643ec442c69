"""Who changed what: keys, policies, switches and labels, each with its actor, newest first.

Nothing is kept twice: changes of keys are in the key store's own chain, everything else in the log's `control` and
`labels`, which checkpoints cover.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lumyn.access.principal import Principal
from lumyn.access.store import KeyStore
from lumyn.home import Home
from lumyn.switches import owner_of, shown_id
from schemas.ids import iso_time, time_ms_of
from streams.log import Message
from streams.reading import object_in
from streams.sealing import shown_event
from streams.topics import CONTROL, LABELS

MOST_READ: Final = 20_000
"""How many messages one page looks at: a page may end early, and its cursor goes on from there."""
_PAGE: Final = 200
_LEFT_OUT: Final = ("source", "type", "actor", "tenant", "at", "memory", "was")
SOURCES: Final = ("keys", "control", "labels")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change. `source` and `number` name it; `entry` None: nothing to show here, another tenant's."""

    source: str
    number: int
    time_ms: int
    entry: dict[str, Any] | None


def trail(home: Home, store: KeyStore, who: Principal, below: Mapping[str, int]) -> Iterator[Entry]:
    """Changes that a principal may see, from `below` on backwards in each source. Raises `IntegrityError`."""
    parts = (
        _keys(store, who, below.get("keys")),
        _messages(home, CONTROL, below.get("control"), lambda value: _control(value, who)),
        _messages(home, LABELS, below.get("labels"), lambda value: _label(home, value, who)),
    )
    return heapq.merge(*parts, key=lambda one: one.time_ms, reverse=True)


def _keys(store: KeyStore, who: Principal, below: int | None) -> Iterator[Entry]:
    while rows := store.audit(before=below, limit=_PAGE):
        for number, tenant, entry in rows:
            mine = who.operator or tenant == who.tenant
            shown = {"tenant": tenant, **entry} if mine else None
            yield Entry("keys", number, time_ms_of(entry["at"]), shown)
        below = rows[-1][0]


def _messages(
    home: Home, topic: str, below: int | None, shown: Callable[[dict[str, Any]], dict[str, Any] | None]
) -> Iterator[Entry]:
    end, begin = home.log.end(topic, 0), home.log.begin(topic, 0)
    upper = end if below is None else min(below, end)
    while upper > begin:
        start = max(begin, upper - _PAGE)
        for message in reversed(_between(home, topic, start, upper)):
            found = shown(object_in(message))
            entry = None if found is None else {"at": iso_time(message.time_ms), **found}
            yield Entry(topic, message.offset, message.time_ms, entry)
        upper = start


def _between(home: Home, topic: str, start: int, end: int) -> list[Message]:
    found: list[Message] = []
    while start < end and (page := home.log.read(topic, 0, start, end - start)):
        found += [message for message in page if message.offset < end]
        start = page[-1].offset + 1
    return found


def _control(event: dict[str, Any], who: Principal) -> dict[str, Any] | None:
    """What all tenants share is seen by all; a switch of another tenant is not."""
    scope = event.get("scope")
    tenant = scope.get("tenant") if isinstance(scope, dict) else None
    if "switch_id" in event:
        name = str(event["switch_id"])
        tenant = tenant or owner_of(name)
        event = {**event, "switch_id": shown_id(who, name)}
    is_nobody_s = tenant is None and event.get("type") == "kill_switch_off"  # it names no scope, and its id no tenant
    if not who.operator and (tenant not in (None, who.tenant) or is_nobody_s):
        return None
    return {"type": event.get("type"), "actor": event.get("actor"), "tenant": tenant, **_rest(event)}


def _label(home: Home, event: dict[str, Any], who: Principal) -> dict[str, Any] | None:
    if event.get("tenant") != who.tenant:
        return None
    told: Mapping[str, Any] = shown_event(home.log.keys, event)  # type: ignore[arg-type]
    return {"type": told.get("type"), "actor": told.get("actor"), "tenant": who.tenant, **_rest(told)}


def _rest(event: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in _LEFT_OUT and value is not None}
