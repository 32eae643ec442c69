"""Requests to vectors, and the weighted queries that are compared with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from memory_service.blocks import (
    BLOCKS,
    DIMS,
    SCALE,
    SLICES,
    TEXT_DIMS,
    Array,
    categories_block,
    fixed_point,
    numbers_block,
)
from memory_service.embedders.protocol import Embedder
from memory_service.profile import PROFILE_ID, MemoryFacts, facts_of
from schemas.canonical import tidy
from schemas.errors import BadConfig

VECTORISER = "blocks/1"


@dataclass(frozen=True, slots=True)
class Vector:
    """An unweighted point vector (448,) in fixed point, which blocks are not empty, and how many facts it has."""

    values: Array
    blocks: frozenset[str]
    facts: int


@dataclass(frozen=True, slots=True)
class Query:
    """A weighted query (448,), the same without text, the share of the policy's weights that it carries."""

    full: Array
    without_text: Array | None
    coverage: float
    facts: int


class Vectoriser:
    """Three blocks: text by an embedder, categories and numbers by hashing. `id` names all that decides a vector."""

    def __init__(self, embedder: Embedder) -> None:
        if embedder.dimensions != TEXT_DIMS:
            raise BadConfig(
                f"embedder `{embedder.id}` gives {embedder.dimensions} dimensions, the text block has {TEXT_DIMS}",
                help="use an embedder with as many dimensions",
            )
        self._embedder = embedder
        self.id = f"{VECTORISER}+{PROFILE_ID}+{embedder.id}"

    def vectorise(self, parts: Sequence[Mapping[str, Any]]) -> list[Vector]:
        """Vectors of requests' remembered parts, in order; the texts are embedded in one call."""
        facts = [facts_of(part) for part in parts]
        texts = sorted({f.text for f in facts if f.text})
        embedded = dict(zip(texts, self._embedder.embed(texts), strict=True)) if texts else {}
        return [_vector(f, embedded.get(f.text)) for f in facts]


def _vector(facts: MemoryFacts, text: Array | None) -> Vector:
    values = np.zeros(DIMS, dtype=np.float32)
    if text is not None:
        values[SLICES["text"]] = fixed_point(text.astype(np.float64))
    if facts.categories:
        values[SLICES["categories"]] = categories_block(facts.categories)
    if facts.numbers:
        values[SLICES["numbers"]] = numbers_block(facts.numbers)
    filled = frozenset(name for name in BLOCKS if values[SLICES[name]].any())
    return Vector(values, filled, facts.count)


def query_of(vector: Vector, weights: Mapping[str, float]) -> Query:
    """Weigh a vector as a policy says; weights are renormalised over its non-empty blocks.

    Block weights multiply the query only: a point's blocks are stored unweighted, so one memory serves every policy.
    """
    total = sum(weights.values())
    present = {name: weights[name] for name in BLOCKS if name in vector.blocks and weights[name] > 0}
    coverage = sum(present.values()) / total if total else 0.0
    without = {name: weight for name, weight in present.items() if name != "text"}
    return Query(
        full=_weigh(vector.values, present),
        without_text=_weigh(vector.values, without) if without and "text" in vector.blocks else None,
        coverage=tidy(round(coverage, 6)),
        facts=vector.facts,
    )


def _weigh(values: Array, weights: Mapping[str, float]) -> Array:
    out = np.zeros(DIMS, dtype=np.float32)
    total = sum(weights.values())
    for name, weight in weights.items():
        part = SLICES[name]
        out[part] = np.rint(values[part].astype(np.float64) * (weight / total))
    return out


def largest_dot() -> int:
    """The bound of any dot product, below 2^24: why float32 is exact."""
    return (SCALE + DIMS) ** 2
