"""The recaller: asks a store in batches and puts what it finds into `Recall`s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from memory_service.blocks import UNIT, score_of, share_of
from memory_service.nearby import weighted_rate
from memory_service.point import Hit
from memory_service.profile import amount_of, has_comparable_amount, remembered_part
from memory_service.recall import Asked, CountedHit, Recall, unavailable
from memory_service.store import Found, Search, Searchable
from memory_service.vectoriser import Vectoriser, query_of
from schemas.canonical import tidy
from schemas.errors import MemoryUnavailable


class Recaller:
    """Recalls in batches: one embedding call and one search call for all."""

    def __init__(self, store: Searchable, vectoriser: Vectoriser, epoch: str) -> None:
        self._store = store
        self._vectoriser = vectoriser
        self._epoch = epoch

    def recall(self, asked: Sequence[Asked]) -> list[Recall]:
        """One recall a request, in order; all `unavailable` when the memory can't answer."""
        try:
            now = self._store.watermark().version if any(a.version is None for a in asked) else 0
        except MemoryUnavailable:
            return [unavailable()] * len(asked)
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
            )
            for a, part, vector in zip(asked, parts, vectors, strict=True)
        ]
        try:
            found = self._store.search(searches)
        except MemoryUnavailable:
            return [unavailable()] * len(asked)
        return [self._recall(search, f) for search, f in zip(searches, found, strict=True)]

    def _recall(self, search: Search, found: Found) -> Recall:
        rate = weighted_rate(found.nearby, UNIT)
        counted = [
            *_counted("harmful", found.harmful),
            *_counted("harmful_without_text", found.harmful_without_text),
            *_counted("fine", found.fine),
            *(c for hit in found.softening for c in _counted("softening", hit)),
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


def _counted(role: str, hit: Hit | None) -> list[CountedHit]:
    if hit is None:
        return []
    p = hit.point
    return [
        CountedHit(role, p.memory_id, p.meaning, p.verdict, p.rules, p.amount, p.contested, score_of(hit.dot), hit.dot)
    ]


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
