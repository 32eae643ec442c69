"""The facts of a postmortem, from the log, the samples and the incident; each with the command that gives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from lumyn.home import Home
from lumyn.incidents.around import changes_of, window_around
from lumyn.incidents.captured import NOTHING_SINCE, Seen, captured_since, seen_in
from lumyn.incidents.evidence import DAY_MS, Decisions, decisions_of
from lumyn.incidents.impact import impact, query_text, reach, shell, traffic
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Incident
from lumyn.incidents.search import near_text
from lumyn.incidents.timeline import change_text, changes_around, timeline
from lumyn.incidents.unknown import gaps, not_captured
from lumyn.rate_files import load
from lumyn.rating import as_dict
from lumyn.watches import check, watch_named
from schemas.errors import LumynError
from schemas.ids import iso_time
from streams.control_history import ControlChange
from streams.local_log import wall_clock_ms
from streams.request_factors import is_of_request

_MOST_COMPARED = 20_000
_MOST_FACTORS = 8
_MOST_COMMON = 12
_EARLIER = 3


def gather(incidents: Incidents, incident: Incident, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """All that is known of an incident now, as JSON. Raises `LumynError` where the log itself can't be read.

    What is missing is not an error: it is what could not be determined.
    """
    home = incidents.home
    say("its decisions")
    found = decisions_of(home, incident)
    seen = seen_in(home, found)
    first, start, end = window_around(incident, found)
    before = "the day before" if start - first == DAY_MS != end - start else "as long before"
    control = [one for one in changes_around(home, incident, found) if change_text(one)]
    say("labels, control and jobs")
    moments, left_out = timeline(home, incident, found)
    say("rates")
    rates = [_sample(home, ref) for ref in incident.refs("rate")]
    frequency = traffic(home, incident, found)
    say("what changed around it")
    changes = _changes(home, incident, found, (first, start, end))
    since = captured_since(home, seen, end) if found.rows else NOTHING_SINCE
    return {
        "schema": "lumyn.postmortem/1",
        "incident": incident.as_dict(),
        "made_at": iso_time(wall_clock_ms()),
        "window": {
            "from": iso_time(start), "to": iso_time(end), "given": incident.start_ms is not None,
            "compared_from": iso_time(first), "compared_with": before,
        },
        "timeline": {"moments": [asdict(one) for one in moments], "left_out": left_out},
        "impact": impact(incident, found) | {"reach": reach(home, incident, found)},
        "traffic": frequency,
        "rates": rates,
        "evidence": {
            "read": seen.read,
            "rules": dict(seen.rules.most_common(8)),
            "facts": dict(seen.facts.most_common(8)),
            "neighbours": dict(seen.neighbours.most_common()),
            "common": _common(seen, changes),
            "changed": [_changed(one, found, start) for one in control],
            "earlier": _earlier(incidents, incident),
        },
        "uncontrolled": None if changes is None else changes | {"factors": changes["factors"][:_MOST_FACTORS]},
        "not_captured": not_captured(incident, found, seen),
        "unknown": [asdict(gap) for gap in gaps(incident, found, seen, rates, frequency, changes)],
        "capture": {"fields": dict(seen.names.most_common()), "read": seen.read, **since},
        "watches": [_watch(home, name) for name in incident.refs("watch")],
        "command": f"lumyn incident postmortem {incident.id}",
    }


def _sample(home: Home, ref: str) -> dict[str, Any]:
    try:
        return as_dict(load(home.settings, ref)) | {"problem": None}
    except LumynError as error:
        return {"rate_id": ref, "problem": error.message, "changed_since_recorded": []}


def _changes(
    home: Home, incident: Incident, found: Decisions, window: tuple[int, int, int]
) -> dict[str, Any] | None:
    """What nobody decided on that was otherwise in the window, ranked by how well it tells the incident's decisions."""
    if not found.rows or len(found.rows) > _MOST_COMPARED:
        return None
    text = query_text(incident, found)
    first, start, end = window
    times = f"--from {iso_time(start)} --to {iso_time(end - 1)} --since {iso_time(first)}"
    bad = f"--incident {incident.id}" if text is None else f"--bad {shell(text)}"  # None: too many to name
    return changes_of(home, incident, found, window) | {"command": f"lumyn rate changes {times} {bad}"}


def _common(seen: Seen, changes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What all of the decisions that were read have in common, first what the fewest of the others have.

    `others`: how many of the other decisions of the time have it (`of`); None where that was not compared. Of a request
    only fields that were compared are told: of the rest nobody knows whether it is an id.
    """
    apart = {one["factor"]: one["sets_apart"] or {} for one in changes["factors"]} if changes is not None else {}
    named = changes["named_by_query"] if changes is not None else []
    out: list[tuple[float, dict[str, Any]]] = []
    for (name, value), count in seen.factors.items():
        if not seen.read or count != seen.read:
            continue
        row = {"factor": name, "value": value, "others": None, "of": None, "named_by_query": name in named}
        found = apart.get(name, {})
        if found.get("value") == value:
            share = found["others"] / found["of_others"]
            out.append((share, row | {"others": found["others"], "of": found["of_others"]}))
        elif name in named or not is_of_request(name):
            out.append((2.0, row))
    return [row for _, row in sorted(out, key=lambda one: one[0])][:_MOST_COMMON]


def _changed(one: ControlChange, found: Decisions, start: int) -> dict[str, Any]:
    """A change of control; `since`: it came after the incident's first decision (the window's start, without one).

    That a policy from a file is first used is no change where it had decided one of them: the log dates a decision by
    its request, which is there before the policy is noted.
    """
    policy = f"{one.said.get('name')}@{one.said.get('policy_version')}"
    deciding = {f"{row.policy}@{row.version}" for row in found.rows if row.created_ms <= one.at_ms}
    first_use = one.kind == "policy_published" and one.said.get("origin") == "file" and policy in deciding
    since = one.at_ms > (found.rows[0].created_ms if found.rows else start - 1) and not first_use
    return {"at_ms": one.at_ms, "what": change_text(one), "who": one.actor, "since": since}


def _earlier(incidents: Incidents, incident: Incident) -> list[dict[str, Any]]:
    """Incidents opened before that are near this one, by what was written of them."""
    try:
        near = near_text(incidents, f"{incident.title} {incident.summary}", limit=_EARLIER + 1)
    except LumynError:
        return []
    return [one.as_dict() for one in near if one.incident.number < incident.number][:_EARLIER]


def _watch(home: Home, name: str) -> dict[str, Any]:
    try:
        return asdict(watch_named(home, name).watch) | {"now": check(home, name, keep=False), "problem": None}
    except LumynError as error:
        return {"name": name, "problem": error.message}
