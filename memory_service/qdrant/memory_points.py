"""How the memory lies in Qdrant: the collection of points with the watermark among them, ids, and filters on it.

A point's id is made of its decision and the version that opened it, so writing it again writes the same point. All of
it but its end is fixed for ever, which is why a reader may keep what it once read.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np

from memory_service.blocks import Array
from memory_service.fold import DecisionLabels, Standing
from memory_service.point import OPEN, Point
from memory_service.profile import MemoryProfile, amount_of, has_comparable_amount
from memory_service.qdrant.engine import (
    Condition,
    EnginePoint,
    Filter,
    HasId,
    IndexKind,
    IsEmpty,
    Match,
    PointId,
    Range,
)
from memory_service.store import Watermark
from memory_service.worth import LEAST_TRUST, oldest_that_counts
from schemas.canonical import decode_trusted, encode
from schemas.ids import time_ms_of
from schemas.label import FULL_TRUST, TRUST_STEP

LAYOUT: Final = 2
FAILURE: Final = "failure"
SUCCESS: Final = "success"
HARMFUL: Final = "harmful"
KNOWN: Final = "known"
"""Harmful or fine, not neutral."""
FINE: Final = "fine"
"""Fine, not contested, and of a labeller whom we trust by half at least."""
DENIED: Final = "denied"
"""Fine, and a DENY that failed: what softens."""
AMOUNTLESS: Final = "amountless"
"""Without an amount, not with one that can't be compared."""
INDEXES: Final[Mapping[str, IndexKind]] = {
    "tenant": "tenant",
    "action_type": "keyword",
    "from_version": "integer",
    "to_version": "integer",
    "roles": "keyword",
    "amount": "float",
    "trust": "integer",
    "at": "integer",
}
STILL_OPEN: Final = Filter(must=(Match("to_version", OPEN),))
"""A point may be written over while it is open; a closed one never opens again, whoever comes late."""

_NAMESPACE = uuid.UUID("6c1a0f0e-5d0b-5c1e-9d3f-2b6d6f5a7e10")
WATERMARK: Final[PointId] = str(uuid.uuid5(_NAMESPACE, "watermark"))
CONTENT: Final = ("memory_id", "tenant", "action_type", "from_version", "to_version", "trust", "at", "body")
"""The payload keys that `point_of` reads; the others are there to be searched by."""


def point_id(memory_id: str, from_version: int) -> PointId:
    """The id of the point that a version opened for a decision."""
    return str(uuid.uuid5(_NAMESPACE, f"{from_version}/{memory_id}"))


def engine_point(
    memory_id: str,
    labels: DecisionLabels,
    stands: Standing,
    versions: tuple[int, int],
    vector: Array,
    profile: MemoryProfile,
) -> EnginePoint:
    """A point as it is stored, in force from the first version up to the second."""
    facts = labels.decision["facts"]
    amount = amount_of(facts, profile)
    body = {
        "label": stands.label,
        "meaning": stands.meaning,
        "contested": stands.contested,
        "labeller": stands.labeller,
        "summary": stands.summary,
        "verdict": labels.decision["verdict"],
        "rules": labels.decision["rules"],
        "amount": amount,
        "comparable": has_comparable_amount(facts, profile),
    }
    payload = {
        "memory_id": memory_id,
        "tenant": labels.tenant,
        "action_type": labels.decision["action_type"],
        "from_version": versions[0],
        "to_version": versions[1],
        "trust": stands.trust,
        "at": time_ms_of(stands.at),
        "body": encode(body).decode(),
    }
    if amount is not None:
        payload["amount"] = float(amount)
    payload["roles"] = list(roles_of(point_of(payload, vector, versions[0])))
    return EnginePoint(point_id(memory_id, versions[0]), payload, vector)


def roles_of(point: Point) -> Iterator[str]:
    """What a point may be searched for as; one indexed list, so that each question is one condition."""
    if point.label in (FAILURE, SUCCESS):
        yield point.label
    if point.meaning == "harmful":
        yield HARMFUL
    if point.meaning != "neutral":
        yield KNOWN
    if point.meaning == "fine" and not point.contested and point.trust >= LEAST_TRUST:
        yield FINE
        if point.verdict == "DENY" and point.label == "failure":
            yield DENIED
    if point.amount is None and point.comparable:
        yield AMOUNTLESS


def point_of(payload: Mapping[str, Any], vector: Array, version: int) -> Point:
    """A stored point as of a version: an end beyond that has not come yet.

    Raises KeyError, TypeError or ValueError when it is no point.
    """
    body = decode_trusted(payload["body"])
    to_version = payload["to_version"]
    return Point(
        memory_id=payload["memory_id"],
        tenant=payload["tenant"],
        action_type=payload["action_type"],
        meaning=body["meaning"],
        label=body["label"],
        verdict=body["verdict"],
        rules=tuple(body["rules"]),
        amount=body["amount"],
        contested=body["contested"],
        comparable=body["comparable"],
        labeller=body["labeller"],
        summary=body["summary"],
        trust=payload["trust"],
        at_ms=payload["at"],
        from_version=payload["from_version"],
        to_version=to_version if to_version <= version else OPEN,
        vector=vector,
    )


# the watermark


def no_vector(dimensions: int) -> Array:
    """The vector of what is no memory."""
    return np.zeros(dimensions, dtype=np.float32)


def watermark_point(mark: Watermark, dimensions: int) -> EnginePoint:
    """The watermark, a point among the points: one search call brings both. It has no tenant, so no search finds it."""
    payload: dict[str, Any] = {
        "layout": LAYOUT,
        "epoch": mark.epoch,
        "version": mark.version,
        "count": mark.count,
        "vectoriser_id": mark.vectoriser_id,
    }
    if mark.at_ms is not None:
        payload["at"] = mark.at_ms
    return EnginePoint(WATERMARK, payload, no_vector(dimensions))


@dataclass(frozen=True, slots=True)
class StoredMark:
    """A watermark as found, with the layout that it speaks of."""

    layout: Any
    mark: Watermark


def watermark_of(payload: Mapping[str, Any]) -> StoredMark:
    """A stored watermark. Raises KeyError, TypeError or ValueError when it is none."""
    at, numbers = payload.get("at"), (payload["version"], payload["count"])
    if any(not isinstance(number, int) for number in (*numbers, 0 if at is None else at)):
        raise ValueError(f"the watermark holds {dict(payload)}")
    mark = Watermark(payload["epoch"], *numbers, payload["vectoriser_id"], at)
    return StoredMark(payload["layout"], mark)


IS_WATERMARK: Final = Filter(must=(HasId((WATERMARK,)),))


def not_beyond(version: int) -> Filter:
    """What may be written over by something of a version: nothing that is newer."""
    return Filter(must=(Range("version", lte=version),))


# which points


@lru_cache(maxsize=1024)
def in_force(version: int, tenant: str | None = None, action_type: str | None = None) -> Filter:
    """The points in force at a version, of a tenant and an action type, or of all."""
    must: list[Condition] = []
    if tenant is not None:
        must.append(Match("tenant", tenant))
    if action_type is not None:
        must.append(Match("action_type", action_type))
    return Filter(must=(*must, Range("from_version", lte=version), Range("to_version", gt=version)))


def of(base: Filter, *conditions: Condition) -> Filter:
    """A filter with more conditions."""
    return Filter(must=(*base.must, *conditions), should=base.should, must_not=base.must_not)


def as_role(role: str) -> Condition:
    """That a point has a role."""
    return Match("roles", role)


def not_much_more(amount: float | int | None, within: float) -> tuple[Condition, ...]:
    """The gate for harmful points: amounts up to `amount x within`, and those without one."""
    if amount is None:
        return ()
    return (Filter(should=(IsEmpty("amount"), Range("amount", lte=amount * within))),)


def not_much_less(amount: float | int | None, within: float, comparable: bool) -> tuple[Condition, ...] | None:
    """The gate for fine points: amounts from `amount / within` on; without amounts those that have none either.

    None: no point passes.
    """
    if amount is not None:
        return (Range("amount", gte=amount / within),)
    return (as_role(AMOUNTLESS),) if comparable else None


def not_too_old(at_ms: int, half_life_ms: int | None) -> tuple[Condition, ...]:
    """The gate for fine points where labels age: how old one may be, asked at a time, goes by the trust in it."""
    if half_life_ms is None:
        return ()
    trusts = range(LEAST_TRUST, FULL_TRUST + 1, TRUST_STEP)
    young = [
        Filter(must=(Match("trust", trust), Range("at", gte=at_ms - oldest_that_counts(trust, half_life_ms))))
        for trust in trusts
    ]
    return (Filter(should=tuple(young)),)
