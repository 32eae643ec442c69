"""Incidents: what went wrong, what was found and changed, kept so that it is found again."""

from __future__ import annotations

from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Action, Event, Incident, Link, Note, Section, Step

__all__ = ["Action", "Event", "Incident", "Incidents", "Link", "Note", "Section", "Step"]
