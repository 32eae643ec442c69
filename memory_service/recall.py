"""Recall: what memory says about a request, in the form that the decider and the record use. No numpy here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.policy import MemorySettings


@dataclass(frozen=True, slots=True)
class CountedHit:
    """A neighbour in the role that arbitration uses it in; `dot` orders, `score` meets thresholds."""

    role: str
    memory_id: str
    meaning: str
    verdict: str
    rules: tuple[str, ...]
    amount: float | int | None
    contested: bool
    score: float
    dot: int


_NOTHING: dict[str, Any] = {
    "failure_similarity": {"score": 0, "top_k": []},
    "success_similarity": {"score": 0, "top_k": []},
    "nearby": {"failure_rate": None, "lower": 0, "upper": 1, "n_effective": 0},
    "uncertainty_score": 1,
}


@dataclass(frozen=True, slots=True)
class Recall:
    """What memory answered, or that it was off or unavailable. Frozen: a decision is a function of it."""

    mode: str
    available: bool
    version: int | None = None
    epoch: str | None = None
    vectoriser_id: str | None = None
    coverage: float = 0
    facts: int = 0
    signals: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)
    counted: tuple[CountedHit, ...] = ()

    def nearest(self, role: str) -> CountedHit | None:
        """The nearest neighbour in a role."""
        return next((hit for hit in self.counted if hit.role == role), None)

    def in_role(self, role: str) -> tuple[CountedHit, ...]:
        """All neighbours counted in a role, nearest first."""
        return tuple(hit for hit in self.counted if hit.role == role)

    def memory_facts(self) -> dict[str, Any] | None:
        """The `memory.*` facts that rules may test; None when memory is off or unavailable."""
        if self.mode == "off" or not self.available:
            return None
        return {
            "available": True,
            "nearby": self.signals["nearby"],
            "failure_similarity": self.signals["failure_similarity"]["score"],
            "success_similarity": self.signals["success_similarity"]["score"],
            "uncertainty_score": self.signals["uncertainty_score"],
        }

    def as_record(self) -> dict[str, Any]:
        """The record's `memory` part."""
        return {
            "mode": self.mode,
            "available": self.available,
            "version": self.version,
            "epoch": self.epoch,
            "vectoriser_id": self.vectoriser_id,
            "coverage": self.coverage,
            "facts": self.facts,
            "counted": [
                {
                    "role": h.role,
                    "memory_id": h.memory_id,
                    "meaning": h.meaning,
                    "verdict": h.verdict,
                    "rules": list(h.rules),
                    "amount": h.amount,
                    "contested": h.contested,
                    "score": h.score,
                    "dot": h.dot,
                }
                for h in self.counted
            ],
        }


OFF = Recall("off", False)


def unavailable() -> Recall:
    """Memory was wanted and could not answer."""
    return Recall("exact", False)


def recorded(record: Mapping[str, Any]) -> Recall:
    """The recall that a record was decided on, from the record alone."""
    memory = record["memory"]
    return Recall(
        mode=memory["mode"],
        available=memory["available"],
        version=memory["version"],
        epoch=memory["epoch"],
        vectoriser_id=memory["vectoriser_id"],
        coverage=memory["coverage"],
        facts=memory["facts"],
        signals=record["risk_signals"],
        counted=tuple(CountedHit(**{**hit, "rules": tuple(hit["rules"])}) for hit in memory["counted"]),
    )


@dataclass(frozen=True, slots=True)
class MemoryChoice:
    """Which memory is asked: the embedder, as configuration names it, and the id of the vectoriser that it gives.

    `profile` is the memory profile as canonical JSON; None: the default one.
    """

    embedder: str
    vectoriser_id: str
    profile: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """One recall to make: a request, under which settings, as of which version, leaving out which decision.

    Without a version it is the memory's present one, which whoever keeps the memory fills in. Without a choice it is
    the configured embedder's memory.
    """

    request: Mapping[str, Any]
    settings: MemorySettings
    version: int | None = None
    leave_out: str | None = None
    choice: MemoryChoice | None = None
