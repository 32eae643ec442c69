"""What decided, told from the record alone: a rule, the default, memory, or what goes before all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR
from streams.memory_step import MemoryStep


def decided_by(record: Mapping[str, Any], step: MemoryStep | None) -> tuple[str, Mapping[str, Any] | None]:
    """`rule` with the first whose effect is the verdict; else `default`, `memory`, `memory_unavailable`,
    `kill_switch`, `control_stale` or `internal_error`. `step`: what memory did (`memory_step`).
    """
    if INTERNAL_ERROR in record["reason_codes"]:
        return "internal_error", None
    if record["control"]["switches"]:
        return "kill_switch", None
    if CONTROL_STALE in record["reason_codes"]:
        return "control_stale", None
    if step is not None and step.changed_verdict:
        return "memory_unavailable" if step.name == "unavailable" else "memory", None
    found = next((rule for rule in record["matched_rules"] if rule["effect"] == record["verdict"]), None)
    return ("rule", found) if found is not None else ("default", None)
