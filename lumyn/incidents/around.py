"""What was otherwise around an incident: its decisions against the others of its window and of the time before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lumyn.home import Home
from lumyn.incidents.evidence import Decisions, compared_from
from lumyn.incidents.impact import asked_text
from lumyn.incidents.model import Incident
from lumyn.incidents.timeline import span_of
from lumyn.uncontrolled import changed_in


def window_around(incident: Incident, found: Decisions) -> tuple[int, int, int]:
    """(start of the comparison, start and end of the window), in ms."""
    start, end = span_of(incident, found)
    return compared_from(incident, start, end), start, end


def changes_of(
    home: Home,
    incident: Incident,
    found: Decisions,
    window: tuple[int, int, int],
    *,
    query: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    tick: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """Each factor in the window and before it; what is bad are the incident's decisions, found or linked.

    What the incident's query names is not compared. Raises `BadQuery`, `StorageUnavailable`.
    """
    bad = asked_text(incident) if found.problem is None else None
    return changed_in(home, window, query=query, bad=bad, linked=incident.decisions, say=say, tick=tick)
