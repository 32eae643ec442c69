"""The recaller: asks a store in batches and puts what it finds into `Recall`s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from memory_service.blocks import UNIT, score_of, share_of
from memory_service.nearby import similarity_weight, weighted_rate
from memory_service.point import Hit
from memory_service.profile import amount_of, has_comparable_amount, remembered_part
from memory_service.recall import Asked, CountedHit, Recall, unavailable
from memory_service.store import Found, Search, Searchable
from memory_service.vectoriser import Vectoriser, query_of
from memory_service.worth import decay
from schemas.canonical import tidy
from schemas.errors import MemoryUnavailable
from schemas.label import FULL_TRUST


@dataclass(frozen=True, slots=True)
class Term:
    """One neighbour's part in `nearby`: its weight is similarity (its score, at most 1, ^ 4) x trust x decay."""

    memory_id: str
    harmful: bool
    labeller: str
    score: float
    similarity: float
    trust: float
    age_ms: int
    decay: float
    weight: float


class Recaller:
    """Recalls in batches: one embedding call and one search call for all."""

    def __init__(self, store: Searchable, vectoriser: Vectoriser, epoch: str) -> None:
        self._store = store
        self._vectoriser = vectoriser
        self._epoch = epoch

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        """One recall a request, in order; all `unavailable` when the memory can't answer."""
        try:
            return [self._recall(search, found) for search, found in self._search(asked)]
        except MemoryUnavailable:
            return [unavailable()] * len(asked)

    def nearby(self, asked: Asked) -> list[Term]:
        """What `nearby` is made of, the nearest first. Raises `MemoryUnavailable`."""
        ((_, found),) = self._search([asked], named=True)
        worths = found.worths or (1.0,) * len(found.nearby)
        return [
            _term(asked, hit, harmful, worth)
            for hit, (_, harmful), worth in zip(found.named, found.nearby, worths, strict=True)
        ]

    def _search(self, asked: Sequence[Asked], *, named: bool = False) -> list[tuple[Search, Found]]:
        """What the memory finds for each. Raises `MemoryUnavailable`."""
        if any(a.version is None for a in asked):
            now = self._store.watermark().version
        else:
            now = 0
        parts = [remembered_part(a.request) for a in asked]
        vectors = self._vectoriser.vectorise(parts)
        searches = [
            Search(
                tenant=a.request["tenant"],
                action_type=a.request["action"]["type"],
                version=a.version if a.version is not None else now,
                query=query_of(vector, a.settings.weights),
                amount=amount_of(part, self._vectoriser.profile),
                amount_within=a.settings.amount_within,
                top_k=a.settings.top_k,
                neighbours=a.settings.neighbours,
                leave_out=a.leave_out,
                comparable=has_comparable_amount(part, self._vectoriser.profile),
                half_life_ms=a.settings.half_life_ms,
                at_ms=_time_of(a),
                named=named,
            )
            for a, part, vector in zip(asked, parts, vectors, strict=True)
        ]
        return list(zip(searches, self._store.search(searches), strict=True))

    def _recall(self, search: Search, found: Found) -> Recall:
        rate = weighted_rate(found.nearby, UNIT, found.worths)
        counted = [
            *_counted(search, "harmful", found.harmful),
            *_counted(search, "harmful_without_text", found.harmful_without_text),
            *_counted(search, "fine", found.fine),
            *(c for hit in found.softening for c in _counted(search, "softening", hit)),
        ]
        return Recall(
            mode="exact",
            available=True,
            version=search.version,
            epoch=self._epoch,
            vectoriser_id=self._vectoriser.id,
            coverage=search.query.coverage,
            facts=search.query.facts,
            signals={
                "failure_similarity": _similarity(found.failures),
                "success_similarity": _similarity(found.successes),
                "nearby": {
                    "failure_rate": rate.rate,
                    "lower": rate.lower,
                    "upper": rate.upper,
                    "n_effective": rate.n_effective,
                },
                "uncertainty_score": tidy(round(rate.upper - rate.lower, 6)),
            },
            counted=tuple(counted),
        )


def _counted(search: Search, role: str, hit: Hit | None) -> list[CountedHit]:
    if hit is None:
        return []
    p, dot = hit.point, hit.dot
    age_ms = 0 if search.half_life_ms is None else max(0, search.at_ms - p.at_ms)
    return [
        CountedHit(
            role, p.memory_id, p.meaning, p.verdict, p.rules, p.amount, p.contested, score_of(dot), dot, p.trust, age_ms
        )
    ]


def _time_of(asked: Asked) -> int:
    if asked.at_ms is None and asked.settings.half_life_days is not None:
        raise ValueError("a recall with a half-life needs the time of asking")
    return asked.at_ms or 0


def _term(asked: Asked, hit: Hit, harmful: bool, worth: float) -> Term:
    p, half_life_ms = hit.point, asked.settings.half_life_ms
    age_ms = 0 if half_life_ms is None else max(0, _time_of(asked) - p.at_ms)
    similarity = similarity_weight(hit.dot, UNIT)
    return Term(
        memory_id=p.memory_id,
        harmful=harmful,
        labeller=p.labeller,
        score=share_of(min(hit.dot, UNIT)),
        similarity=similarity,
        trust=p.trust / FULL_TRUST,
        age_ms=age_ms,
        decay=1.0 if half_life_ms is None else decay(age_ms, half_life_ms),
        weight=similarity * worth,
    )


def _by_block(text: int, categories: int, numbers: int) -> dict[str, Any]:
    return {"text": share_of(text), "categories": share_of(categories), "numbers": share_of(numbers)}


def _similarity(hits: Sequence[Hit]) -> dict[str, Any]:
    return {
        "score": max(0, score_of(hits[0].dot)) if hits else 0,
        "top_k": [
            {
                "memory_id": h.point.memory_id,
                "label": h.point.label,
                "verdict": h.point.verdict,
                "score": score_of(h.dot),
                "summary": h.point.summary,
                "score_by_block": _by_block(*h.dots),
            }
            for h in hits
        ],
    }
