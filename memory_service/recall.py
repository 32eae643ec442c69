"""Recall: what memory says about a request, in the form that the decider and the record use. No numpy here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.canonical import tidy
from schemas.label import FULL_TRUST
from schemas.policy import MemorySettings


@dataclass(frozen=True, slots=True)
class CountedHit:
    """A neighbour in the role that arbitration uses it in; `dot` orders, `score` meets thresholds.

    `trust` is in hundredths, `age_ms` where labels age; arbitration asks for neither, the search did.
    """

    role: str
    memory_id: str
    meaning: str
    verdict: str
    rules: tuple[str, ...]
    amount: float | int | None
    contested: bool
    score: float
    dot: int
    trust: int = FULL_TRUST
    age_ms: int = 0

    def as_record(self) -> dict[str, Any]:
        """As a record holds it; trust (0 to 1) and age only where they are not full and none."""
        value: dict[str, Any] = {
            "role": self.role,
            "memory_id": self.memory_id,
            "meaning": self.meaning,
            "verdict": self.verdict,
            "rules": list(self.rules),
            "amount": self.amount,
            "contested": self.contested,
            "score": self.score,
            "dot": self.dot,
        }
        if self.trust != FULL_TRUST:
            value["trust"] = tidy(self.trust / FULL_TRUST)
        if self.age_ms:
            value["age_ms"] = self.age_ms
        return value


def counted_hit(value: Mapping[str, Any]) -> CountedHit:
    """The inverse of `CountedHit.as_record`. Raises TypeError, KeyError or ValueError for what is none."""
    trust = round(value.get("trust", 1) * FULL_TRUST)
    return CountedHit(**{**value, "rules": tuple(value["rules"]), "trust": trust})


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
            "counted": [hit.as_record() for hit in self.counted],
        }


OFF = Recall("off", False)


def nothing_known(recall: Recall) -> Recall:
    """The same memory, had it known nothing like this."""
    return Recall(
        recall.mode, True, recall.version, recall.epoch, recall.vectoriser_id, recall.coverage, recall.facts
    )


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
        counted=tuple(map(counted_hit, memory["counted"])),
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

    Without a version it is the memory's present one, which whoever keeps the memory fills in. `at_ms` is the log's time
    of the decision, from which labels have their age; settings with a half-life need it. Without a choice it is the
    configured embedder's memory.
    """

    request: Mapping[str, Any]
    settings: MemorySettings
    version: int | None = None
    leave_out: str | None = None
    at_ms: int | None = None
    choice: MemoryChoice | None = None
