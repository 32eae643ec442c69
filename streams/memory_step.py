"""Which step of arbitration ended it, told from the record alone (CONTRACTS: Arbitration)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from memory_service.recall import recorded
from schemas.errors import IntegrityError
from schemas.policy import MemorySettings
from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR
from schemas.verdict import SEVERITY
from streams.arbitration import must_escalate

StepName = Literal["block", "disputed_block", "escalate", "soften", "unavailable"]


@dataclass(frozen=True, slots=True)
class MemoryStep:
    """The step of arbitration that applied, the threshold it goes by, and whether it changed what the rules said.

    `number` is CONTRACTS' own (1, 2, 3; None where memory could not be asked). `score` is the neighbour's that it went
    by, and `memory_id` who that is.
    """

    name: StepName
    number: int | None
    changed_verdict: bool
    threshold: float | None = None
    score: float | None = None
    memory_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "step": self.number,
            "name": self.name,
            "changed_verdict": self.changed_verdict,
            "threshold": self.threshold,
            "score": self.score,
            "memory_id": self.memory_id,
        }


def memory_step(record: Mapping[str, Any]) -> MemoryStep | None:
    """The step that ended arbitration; None where none applied, or memory was not asked. Raises `IntegrityError`."""
    codes, memory = record["reason_codes"], record["memory"]
    settings = recorded_settings(record)
    if settings is None or record["control"]["switches"] or {CONTROL_STALE, INTERNAL_ERROR} & set(codes):
        return None
    if not memory["available"]:
        asked = settings.on_unavailable != "policy_only"
        return MemoryStep("unavailable", None, _changed(record)) if asked else None
    recall = recorded(record)
    harmful, bare = recall.nearest("harmful"), recall.nearest("harmful_without_text")
    if harmful is not None and harmful.score >= settings.failure_block:
        name: StepName = "block" if record["verdict"] == "DENY" else "disputed_block"
        return MemoryStep(name, 1, _changed(record), settings.failure_block, harmful.score, harmful.memory_id)
    if must_escalate(recall, settings):
        near = harmful is not None and harmful.score >= settings.failure_escalate
        hit, least = (harmful, settings.failure_escalate) if near else (bare, settings.failure_block)
        assert hit is not None
        return MemoryStep("escalate", 2, _changed(record), least, hit.score, hit.memory_id)
    if _softened(record):
        blocking = {rule["id"] for rule in record["matched_rules"] if rule["effect"] == "DENY"}
        soft = [hit for hit in recall.in_role("softening") if hit.score >= settings.soften and blocking <= {*hit.rules}]
        nearest = soft[0] if soft else None
        score, memory_id = (None, None) if nearest is None else (nearest.score, nearest.memory_id)
        return MemoryStep("soften", 3, True, settings.soften, score, memory_id)
    return None


def recorded_settings(record: Mapping[str, Any]) -> MemorySettings | None:
    """The memory settings that a record was decided with. Raises `IntegrityError` for ones not known here."""
    settings = record["memory"]["settings"]
    if settings is None:
        return None
    try:
        return MemorySettings(**settings)
    except TypeError:
        raise IntegrityError(
            "its memory settings are not ones that this version knows", where=f"decision {record['decision_id']}",
            help="was it decided by a newer one?",
        ) from None  # fmt: skip


def _changed(record: Mapping[str, Any]) -> bool:
    """Whether the verdict is not what the rules' effects give; of a default it is told by memory's own codes."""
    said = _rules_verdict(record)
    if said is not None:
        return bool(said != record["verdict"])
    return any(code.startswith("FAILURE_MEMORY_") or code == "STORAGE_UNAVAILABLE" for code in record["reason_codes"])


def _softened(record: Mapping[str, Any]) -> bool:
    return _rules_verdict(record) == "DENY" and record["verdict"] != "DENY"


def _rules_verdict(record: Mapping[str, Any]) -> str | None:
    effects = [rule["effect"] for rule in record["matched_rules"] if rule["effect"] is not None]
    return max(effects, key=lambda effect: SEVERITY[effect]) if effects else None
