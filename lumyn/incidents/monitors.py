"""Watches that belong to an incident: of its action items' targets, and the monitor for the next time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Incident
from lumyn.watches import Watch, list_watches, make_watch, save_watch
from schemas.errors import UsageError
from streams.local_log import wall_clock_ms


def watch_for_target(
    incidents: Incidents, incident: Incident, action: str, *, query: str | None, of: str | None
) -> Incident:
    """Save the watch that checks an action item's target, link it, and name it in the item.

    Raises `UsageError` for an item without a target, `BadQuery`.
    """
    item = next(one for one in incident.actions if one.id == action)
    if item.target is None or query is None:
        raise UsageError("a watch needs a `--target` and the `--query` that it counts", where=f"{incident.id} {action}")
    made = make_watch(
        name_for(incident, action.lower()),
        query,
        of=of,
        target=_target(item.target),
        by=item.due,
        incident=incident.id,
        why=item.text,
        now_ms=wall_clock_ms(),
    )
    saved = _saved(incidents, incident, made, instead=_watch(incidents, made.name))
    return incidents.action(saved.id, action, watch=made.name, query=query)


def follow_target(incidents: Incidents, incident: Incident, action: str) -> str | None:
    """Have an item's own watch check the target and the day that the item has now; its history is kept.

    Returns the name of a watch that is not the item's own and checks something else: it is left as it is.
    Raises `UsageError`, `StorageUnavailable`.
    """
    item = next(one for one in incident.actions if one.id == action)
    watch = _watch(incidents, item.watch) if item.watch is not None and item.target is not None else None
    if watch is None or item.target is None:
        return None
    wanted = replace(watch, target=_target(item.target), by=item.due)
    if wanted == watch:
        return None
    if watch.name != name_for(incident, action.lower()):
        return watch.name if watch.target != wanted.target else None
    save_watch(incidents.home, wanted, instead=watch)
    return None


def _watch(incidents: Incidents, name: str) -> Watch | None:
    """A watch as it is now; None where there is none of the name any more."""
    return next((one for one in list_watches(incidents.home) if one.name == name), None)


def _target(target: Mapping[str, Any]) -> str:
    return f"rate {'<' if target['below'] else '>'} {target['bound'] * 100:.10g}%"


def monitor(
    incidents: Incidents, incident: Incident, query: str, *, of: str | None, alert: str, why: str = ""
) -> Incident:
    """Save the query that would catch it the next time as a watch with an alert, and link it. Raises `UsageError`."""
    made = make_watch(
        name_for(incident, f"monitor{len(incident.refs('watch')) + 1}"),
        query, of=of, alert=alert, incident=incident.id, why=why or f"would catch {incident.id} again",
        now_ms=wall_clock_ms(),
    )  # fmt: skip
    return _saved(incidents, incident, made)


def name_for(incident: Incident, what: str) -> str:
    """The name of an incident's watch: `inc-7.a1`."""
    return f"{incident.id.lower()}.{what}"


def _saved(incidents: Incidents, incident: Incident, made: Watch, *, instead: Watch | None = None) -> Incident:
    save_watch(incidents.home, made, instead=instead)
    if made.name in incident.refs("watch"):
        return incident
    return incidents.add(incident.id, [("watch", made.name, "")])
