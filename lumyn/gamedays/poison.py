"""Poisoning: a labeller who says the opposite of a share of what the memory holds, or of what was just decided."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from lumyn.gamedays.scenario import Fault, Scenario
from lumyn.gamedays.stage import Stage
from schemas.canonical import decode_trusted, encode
from schemas.errors import LumynError, UsageError
from schemas.ids import iso_time
from schemas.label import LabelEvent
from streams.log import Append
from streams.reading import all_messages, is_embedded, messages, object_in
from streams.topics import LABELS, RECORDS

_OTHER = {"failure": "success", "success": "failure"}
_AT_ONCE = 1000


def poisoned(stage: Stage, fault: Fault, at: int, scenario: Scenario) -> int:
    """Say it; how many labels that were. Raises `UsageError` when there is nothing to speak of."""
    of = fault.options.get("of", "remembered")
    said = _of_decided(stage, fault, at) if of == "decided" else _of_remembered(stage, fault, at)
    if not said:
        nothing = "the memory is empty" if of == "remembered" else "nothing was decided yet"
        raise UsageError(
            f"nothing to poison: {nothing} at request {at}",
            where=f"{scenario.path}:{fault.mark.line}:{fault.mark.column}",
            help="`of: decided` poisons decisions of the game day; `of: remembered` what the memory was copied with",
        )
    return said


def chosen(names: Sequence[str], share: float, seed: str) -> list[str]:
    """A share of names, at least one, by a hash of each: the same ones every time."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return ranked[: max(1, round(share * len(names)))] if names else []


def _of_remembered(stage: Stage, fault: Fault, at: int) -> int:
    """The opposite of the last word on decisions that the memory holds.

    Their records are not on the stage, so the events are written as the label agent would have written them.
    """
    home = stage.home
    assert is_embedded(home.log)  # `run` refuses it elsewhere
    last: dict[str, LabelEvent] = {}
    for message in messages(home.log, LABELS, 0):
        told: LabelEvent = decode_trusted(message.value)
        if told["decision"] is not None and told["type"] == "label" and told["label"] in _OTHER:
            last[told["decision_id"]] = told
    there = sorted(p.memory_id for p in home.memory.store().points() if p.memory_id in last)
    names = chosen(there, fault.options.get("share", 1.0), f"{fault.name}/{at}")
    version, now = home.log.end(LABELS, 0), iso_time(_now(stage))
    appends = []
    for number, name in enumerate(names, start=1):
        before = last[name]
        should = {"ALLOW": "DENY", "DENY": "ALLOW"}.get(str(before["should"])) if before["should"] else None
        event: dict[str, Any] = {
            **before, "version": version + number, "event_id": f"gameday-{fault.name}-{number}", "type": "label",
            "label": before["label"] if should else _OTHER[str(before["label"])], "should": should, "summary": "",
            "actor": fault.options["labeller"], "at": now, "job": None,
        }  # fmt: skip
        appends.append(Append(LABELS, encode(event, finite=True), name.encode()))
    for start in range(0, len(appends), _AT_ONCE):
        home.log.append(appends[start : start + _AT_ONCE])
    return len(names)


def _of_decided(stage: Stage, fault: Fault, at: int) -> int:
    """That all was fine: of an ALLOW that it was right, of anything else that it should have been ALLOW."""
    home = stage.home
    found = {str(r["decision_id"]): r for r in map(object_in, all_messages(home.log, RECORDS))}
    names = chosen(sorted(found), fault.options.get("share", 1.0), f"{fault.name}/{at}")
    requests: list[Any] = []
    for number, name in enumerate(names, start=1):
        allowed = found[name]["verdict"] == "ALLOW"
        requests.append(
            {
                "event_id": f"gameday-{fault.name}-{number}", "decision_id": name, "tenant": found[name]["tenant"],
                "type": "label", "label": "success" if allowed else "failure", "should": None if allowed else "ALLOW",
                "summary": "", "actor": fault.options["labeller"],
            }
        )  # fmt: skip
    version = 0
    for answer in home.labels.label(requests):
        if isinstance(answer, LumynError):
            raise answer
        version = answer["version"]
    if version:
        home.remembers(version, 30.0)
    return len(names)


def _now(stage: Stage) -> int:
    """The newest time in the stage's log: labels are made now."""
    times = [message.time_ms for message in all_messages(stage.home.log, RECORDS)]
    return max(times, default=0)
