"""Requests to vectors, and the weighted queries that are compared with them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from memory_service.blocks import (
    BLOCKS,
    FIXED_DIMS,
    MOST_TEXT_DIMS,
    SCALE,
    SLICES,
    Array,
    categories_block,
    fixed_point,
    numbers_block,
)
from memory_service.embedders.protocol import Embedder
from memory_service.profile import DEFAULT_PROFILE, MemoryFacts, MemoryProfile, facts_of
from schemas.canonical import tidy
from schemas.errors import BadConfig

VECTORISER = "blocks/1"
_TEXTS_KEPT = 4096
_LONGEST_KEPT = 1024
_TEXT, _CATEGORIES, _NUMBERS = (SLICES[name] for name in BLOCKS)


@dataclass(frozen=True, slots=True)
class Vector:
    """An unweighted point vector (text dimensions + 192,) in fixed point, its blocks that are not empty, its facts."""

    values: Array
    blocks: frozenset[str]
    facts: int


@dataclass(frozen=True, slots=True)
class Query:
    """A weighted query, as long as the vector, and without text; the share of the policy's weights that it carries."""

    full: Array
    without_text: Array | None
    coverage: float
    facts: int


class Vectoriser:
    """Three blocks: text by an embedder, categories and numbers by hashing. `id` names all that decides a vector."""

    def __init__(self, embedder: Embedder, profile: MemoryProfile = DEFAULT_PROFILE) -> None:
        if not 1 <= embedder.dimensions <= MOST_TEXT_DIMS:
            raise BadConfig(
                f"embedder `{embedder.id}` gives {embedder.dimensions} dimensions, the text block takes 1 to "
                f"{MOST_TEXT_DIMS}",
                help="use another embedder",
            )
        self.dimensions = embedder.dimensions + FIXED_DIMS
        self._embedder = embedder
        self._texts: dict[str, Array] = {}
        self.profile = profile
        self.id = f"{VECTORISER}+{profile.id}+{embedder.id}"

    @property
    def has_default_profile(self) -> bool:
        """Whether facts are placed by their names and kinds alone."""
        return self.profile == DEFAULT_PROFILE

    def vectorise(self, parts: Sequence[Mapping[str, Any]]) -> list[Vector]:
        """Vectors of requests' remembered parts, in order; the texts are embedded in one call."""
        facts = [facts_of(part, self.profile) for part in parts]
        known = self._texts
        blocks = {f.text: row for f in facts if (row := known.get(f.text)) is not None}  # one look: threads share it
        texts = sorted({f.text for f in facts if f.text and f.text not in blocks})
        if texts:
            rows = self._embedder.embed(texts)
            fresh = {text: fixed_point(row.astype(np.float64)) for text, row in zip(texts, rows, strict=True)}
            blocks |= fresh
            if len(known) + len(fresh) > _TEXTS_KEPT:
                known.clear()
            known.update((text, row) for text, row in fresh.items() if len(text) <= _LONGEST_KEPT)
        return [self._vector(f, blocks.get(f.text)) for f in facts]

    def _vector(self, facts: MemoryFacts, text: Array | None) -> Vector:
        values = np.zeros(self.dimensions, dtype=np.float32)
        filled = []
        if text is not None and text.any():
            values[_TEXT] = text
            filled.append("text")
        if facts.categories and (block := categories_block(facts.categories)).any():
            values[_CATEGORIES] = block
            filled.append("categories")
        if facts.numbers and (block := numbers_block(facts.numbers)).any():
            values[_NUMBERS] = block
            filled.append("numbers")
        return Vector(values, frozenset(filled), facts.count)


def query_of(vector: Vector, weights: Mapping[str, float]) -> Query:
    """Weigh a vector as a policy says; weights are renormalised over its non-empty blocks.

    Block weights multiply the query only: a point's blocks are stored unweighted, so one memory serves every policy.
    """
    full, without_text, coverage = _factors(tuple(weights.items()), vector.blocks, len(vector.values))
    values = vector.values.astype(np.float64)
    return Query(
        full=np.rint(values * full).astype(np.float32),
        without_text=None if without_text is None else np.rint(values * without_text).astype(np.float32),
        coverage=coverage,
        facts=vector.facts,
    )


_Factors = npt.NDArray[np.float64]


@lru_cache(maxsize=256)
def _factors(
    weights: tuple[tuple[str, float], ...], blocks: frozenset[str], dimensions: int
) -> tuple[_Factors, _Factors | None, float | int]:
    """What each dimension is multiplied with, the same without text, and the coverage."""
    weight = dict(weights)
    total = sum(weight.values())
    present = {name: weight[name] for name in BLOCKS if name in blocks and weight[name] > 0}
    coverage = sum(present.values()) / total if total else 0.0
    without = {name: weight for name, weight in present.items() if name != "text"}
    return (
        _spread(present, dimensions),
        _spread(without, dimensions) if without and "text" in blocks else None,
        tidy(round(coverage, 6)),
    )


def _spread(weights: Mapping[str, float], dimensions: int) -> _Factors:
    """(dimensions,) each block's share, 0 where it has none."""
    out = np.zeros(dimensions, dtype=np.float64)
    total = sum(weights.values())
    for name, weight in weights.items():
        out[SLICES[name]] = weight / total
    return out


def largest_dot(dimensions: int) -> int:
    """The bound of any dot product of such vectors, below 2^24: why float32 is exact.

    Rounding lengthens a block of d dimensions by at most sqrt(d)/2, in the point and twice in the query; the weights
    sum to 1. By Cauchy and Schwarz the sum over three blocks stays below this square.
    """
    return (SCALE + math.isqrt(dimensions) + 1) ** 2
