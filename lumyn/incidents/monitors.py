"""Watches that belong to an incident: of its action items' targets, and the monitor for the next time."""

from __future__ import annotations

from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Incident
from lumyn.watches import Watch, make_watch, save_watch
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
    bound = f"{item.target['bound'] * 100:.10g}%"
    made = make_watch(
        name_for(incident, action.lower()),
        query,
        of=of,
        target=f"rate {'<' if item.target['below'] else '>'} {bound}",
        by=item.due,
        incident=incident.id,
        why=item.text,
        now_ms=wall_clock_ms(),
    )
    saved = _saved(incidents, incident, made)
    return incidents.action(saved.id, action, watch=made.name, query=query)


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


def _saved(incidents: Incidents, incident: Incident, made: Watch) -> Incident:
    save_watch(incidents.home, made)
    return incidents.add(incident.id, [("watch", made.name, "")])
