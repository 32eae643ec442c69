"""A scenario from an incident: its decisions as packs, the memory they meet, and what people said should have been."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lumyn.exporting import export_pack, write_whole
from lumyn.gamedays.expectations import check_text
from lumyn.gamedays.setting import write_events
from lumyn.home import Home
from lumyn.incidents.evidence import decisions_of
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Incident
from lumyn.lookup import sound_record
from memory_service.record_index import IndexedRecord
from schemas.errors import LumynError, StorageUnavailable, UsageError
from schemas.seal import is_sealed
from streams.backtest.outcomes import Outcomes, read_outcomes
from streams.topics import LABELS

MOST = 1000
"""Packs that are written at the most."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the scenario, how many packs and label events beside it, and what was left out."""

    path: Path
    packs: int
    labels: int | None
    expectations: int
    left_out: tuple[str, ...]


def write_scenario(
    home: Home,
    name: str,
    path: Path,
    *,
    memory: bool = True,
    policy: str | None = None,
    faults: bool = False,
    expect: Sequence[str] = (),
    limit: int = 200,
) -> Written:
    """Write a scenario, with a folder of packs and a file of label events beside it.

    It then needs no home to be played. `memory=False`: without the labels. `faults`: under the
    usual ones, which stand in a comment otherwise. `expect`: what else must hold, as text.
    Raises `NotFound`, `UsageError`, `ScenarioInvalid`.
    """
    for text in expect:
        check_text(text)
    incident = Incidents(home).show(name)
    if path.exists():
        raise UsageError("there is a file already", where=str(path), help="`--out` takes a new file")
    outcomes = read_outcomes(home.log, home.settings.tenant, home.log.end(LABELS, 0))
    belonging = decisions_of(home, incident).rows
    rows = _chosen(belonging, incident, outcomes, min(limit, MOST))
    if not rows:
        raise UsageError(
            f"{incident.id} has no decisions, so there is nothing to play",
            help=f"`lumyn incident add {incident.id} --decision ID`, or a query of its own",
        )
    records, packs, left_out = _packs(home, [row.decision_id for row in rows])
    if len(belonging) > len(rows):
        left_out.append(f"{len(belonging) - len(rows)} of {len(belonging)} decisions (`--limit`)")
    if not packs:
        raise UsageError(f"none of the {len(rows)} decisions can be exported: {left_out[0]}")
    folder, labels_file = f"{path.stem}-packs", f"{path.stem}-labels.jsonl"
    labels = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / folder).mkdir(exist_ok=True)
    except OSError as error:
        raise StorageUnavailable(f"can't be written: {error.strerror or error}", where=str(path.parent)) from None
    if memory:
        types = {record["request"]["action"]["type"] for record in records}
        labels = write_events(home, home.settings.tenant, types, path.parent / labels_file)
    for decision_id, pack in packs:
        write_whole(path.parent / folder / f"decision_{decision_id}.zip", pack)
    judged = [_meaning(outcomes, record["decision_id"], record["verdict"]) is not None for record in records]
    expected = [line for record in records if (line := _expectation(home, record, outcomes)) is not None]
    expected += [f"  - {_quoted(one)}" for one in expect]
    text = _text(incident, folder, labels_file if labels else None, policy, usual_faults(judged, faults), expected)
    if not expected or any(record["verdict"] != "ALLOW" for record in records):
        text += '  - {that: "flips.to_ALLOW == 0", why: what was stopped stays stopped}\n'
    write_whole(path, text.encode())
    return Written(path, len(packs), labels, text.partition("\nexpect:")[2].count("\n  - "), tuple(left_out))


def _chosen(rows: Sequence[IndexedRecord], incident: Incident, outcomes: Outcomes, limit: int) -> list[IndexedRecord]:
    """At most `limit` in their order: first those that were linked or judged, which it is about; then the oldest."""
    linked = set(incident.decisions)

    def is_only_near(row: IndexedRecord) -> bool:
        return row.decision_id not in linked and _meaning(outcomes, row.decision_id, row.verdict) is None

    kept = {row.decision_id for row in sorted(rows, key=is_only_near)[:limit]}
    return [row for row in rows if row.decision_id in kept]


def _meaning(outcomes: Outcomes, name: str, verdict: str) -> str | None:
    """`harmful` or `fine`; None: nobody said what decides it."""
    told = outcomes.of(name, verdict).meaning  # type: ignore[arg-type]
    return told if told in ("harmful", "fine") else None


def _packs(
    home: Home, names: Sequence[str]
) -> tuple[list[Mapping[str, Any]], list[tuple[str, bytes]], list[str]]:
    records, packs, left_out = [], [], []
    for name in names:
        try:
            raw, record = sound_record(home, name)
            if is_sealed(record):
                left_out.append(f"{name}: it is sealed, and can't be opened here")
                continue
            packs.append((name, export_pack(home, raw, record)))
            records.append(record)
        except LumynError as error:
            left_out.append(f"{name}: {error.message}")
    return records, packs, left_out


def _expectation(home: Home, record: Mapping[str, Any], outcomes: Outcomes) -> str | None:
    """What people said of a decision, as what must hold from now on; None: they said nothing that decides."""
    name, verdict = record["decision_id"], record["verdict"]
    meaning = _meaning(outcomes, name, verdict)
    if meaning is None:
        return None
    if meaning == "harmful":
        must = "not: ALLOW"
    else:
        must = "verdict: ALLOW" if verdict == "ALLOW" else "not: DENY"
    why = f"it was {verdict}, and {'allowing it was wrong' if meaning == 'harmful' else 'allowing it is right'}"
    words = [event["summary"] for event in home.events(name) if event["type"] == "label" and event["summary"]]
    if words:
        why += f": {words[-1]}"
    return f"  - {{request: {name}, {must}, why: {_quoted(why)}}}"


def _text(
    incident: Incident,
    folder: str,
    labels: str | None,
    policy: str | None,
    faults: Sequence[str],
    expected: Sequence[str],
) -> str:
    lines = [
        f"# Made from {incident.id}. Its decisions stand beside it as packs: it needs no home to be played.",
        "gameday: 1",
        f"name: {incident.id}",
        f"why: {_quoted(incident.title)}",
        f"incident: {incident.id}",
        "",
        "replay:",
        f"  packs: [{_quoted(folder)}]",
        f"policy: {_quoted(policy)}" if policy else "# policy: FILE   else what is active here, or LUMYN_POLICY",
        f"memory: {_quoted(labels)}" if labels else "memory: none",
        "",
        *faults,
        "",
        "expect:",
        *expected,
    ]
    return "\n".join(lines) + "\n"


def usual_faults(judged: Sequence[bool], wanted: bool) -> list[str]:
    """The usual faults: each request comes three times over, and twice, and the memory is down for up to half of them.

    Not for those of which something is expected: an outage abstains whatever the policy, which shows nothing of it.
    """
    lines = ["faults:", "  - traffic: x3", "  - duplicate_delivery: always"]
    first, last = _longest(judged)
    if last and len(judged) > 1:
        first = max(first, last - len(judged) // 2 + 1)
        lines.append(f"  - qdrant_down: {{from: {first}" + ("}" if last == len(judged) else f", to: {last}}}"))
    said = "# What goes wrong meanwhile; a fault lasts from request `from` to `to`, or on to the end."
    return [said, *(lines if wanted else [f"# {line}" for line in lines])]


def _longest(judged: Sequence[bool]) -> tuple[int, int]:
    """The longest run of requests that nobody judged, the last of such: from where to where, from 1; (0, 0): none."""
    best, first = (0, 0), 1
    for number, is_judged in enumerate(judged, start=1):
        if is_judged:
            first = number + 1
        elif number - first >= best[1] - best[0] or not best[1]:
            best = (first, number)
    return best


def _quoted(text: str | None) -> str:
    """As a YAML text: JSON is YAML, and whatever is in it stays text."""
    return json.dumps(text, ensure_ascii=True)
