"""What was changed through control, when and by whom: the topic's events as they stand, for timelines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from streams.log import Log
from streams.reading import messages, object_in
from streams.topics import CONTROL


@dataclass(frozen=True, slots=True)
class ControlChange:
    """An event of control; `version` is its dense number, as records name it."""

    version: int
    at_ms: int
    kind: str
    actor: str
    why: str
    said: Mapping[str, Any]


def control_history(log: Log, tenant: str) -> Iterator[ControlChange]:
    """All events that concern a tenant, in order: policies are everyone's, a switch may be one tenant's alone.

    A switch that goes off is told to whom its going on was told. Raises `StorageUnavailable`.
    """
    others: set[str] = set()
    for version, message in enumerate(messages(log, CONTROL, 0), start=1):
        event = object_in(message)
        kind = event.get("type")
        if not isinstance(kind, str):
            continue
        scope = event.get("scope")
        if isinstance(scope, Mapping) and scope.get("tenant", tenant) != tenant:
            others.add(str(event.get("switch_id")))
        name = str(event.get("switch_id"))
        if name in others:
            if kind == "kill_switch_off":
                others.discard(name)  # the name is free again, for whomever puts it on next
            continue
        yield ControlChange(
            version, message.time_ms, kind, str(event.get("actor", "")), str(event.get("why") or ""), event
        )  # fmt: skip
