"""The three blocks of a memory vector, in fixed point, so that a float32 dot product is exact on every engine.

Each block is unit length, scaled by 2048 and rounded to integers. A weighted query is scaled likewise, so every
partial sum of a dot product is an integer below 2^24, which float32 holds exactly in any order of summation.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from schemas.canonical import tidy

Array = npt.NDArray[np.float32]

SCALE = 2048
UNIT = SCALE * SCALE
CATEGORY_DIMS = 128
NUMBER_DIMS = 64
FIXED_DIMS = CATEGORY_DIMS + NUMBER_DIMS
MOST_TEXT_DIMS = 8192
"""The text block has as many dimensions as the embedder gives; up to so many every dot product is exact."""
BLOCKS = ("text", "categories", "numbers")
SLICES = {
    "text": slice(0, -FIXED_DIMS),
    "categories": slice(-FIXED_DIMS, -NUMBER_DIMS),
    "numbers": slice(-NUMBER_DIMS, None),
}
_DIMS_PER_CATEGORY = 4
_LONGEST_KEPT = 2048
_MAGNITUDE = 16.0
_FREQUENCIES = np.array(
    [NormalDist().inv_cdf(0.5 + (k + 0.5) / NUMBER_DIMS) for k in range(NUMBER_DIMS // 2)], dtype=np.float64
)


def fixed_point(block: npt.NDArray[np.float64]) -> Array:
    """A block (any length, float64) as unit length x 2048, rounded to integers, float32; zeros stay zeros."""
    norm = math.sqrt(float(np.dot(block, block)))
    if norm == 0.0:
        return np.zeros(block.shape, dtype=np.float32)
    return np.rint(block * (SCALE / norm)).astype(np.float32)


def _category_places(fact: str) -> tuple[tuple[int, float], ...]:
    raw = hashlib.sha256(fact.encode("utf-8", "surrogatepass")).digest()
    return tuple((raw[2 * k] % CATEGORY_DIMS, 1.0 if raw[2 * k + 1] & 1 else -1.0) for k in range(_DIMS_PER_CATEGORY))


def categories_block(categories: Sequence[str]) -> Array:
    """(128,) signed hashing of `name=value` facts (Weinberger et al. 2009; sparse, four places a fact)."""
    if sum(map(len, categories)) > _LONGEST_KEPT:  # what strangers send must not fill the memory
        return _categories_block(tuple(categories))
    return _kept_categories(tuple(categories)).copy()


def _categories_block(categories: tuple[str, ...]) -> Array:
    block = [0.0] * CATEGORY_DIMS
    for fact in categories:
        for place, sign in (_category_places if len(fact) > _LONGEST_KEPT else _kept_places)(fact):
            block[place] += sign
    return fixed_point(np.array(block, dtype=np.float64))


_kept_places = lru_cache(maxsize=16384)(_category_places)
_kept_categories = lru_cache(maxsize=4096)(_categories_block)
"""Kept, because requests of one kind share their categories."""


def _signs(name: str) -> npt.NDArray[np.float64]:
    raw = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
    return np.array([1.0 if raw[k // 8] >> (k % 8) & 1 else -1.0 for k in range(NUMBER_DIMS // 2)])


def numbers_block(numbers: Sequence[tuple[str, float]]) -> Array:
    """(64,) log-magnitudes as fixed cosine and sine features, one sign pattern a name.

    Two values of one name meet in a Gaussian kernel over log2(1 + 16|v|): 500 and 600 score 0.97, twice as much
    0.6, a thousand times as much 0. Random Fourier features (Rahimi and Recht 2007), with quantiles for draws.
    """
    block = np.zeros(NUMBER_DIMS, dtype=np.float64)
    for name, value in numbers:
        block += (_number_features if len(name) > _LONGEST_KEPT else _kept_features)(name, value)
    return fixed_point(block)


def _number_features(name: str, value: float) -> npt.NDArray[np.float64]:
    """(64,) one number's part of the block."""
    magnitude = math.copysign(math.log2(1.0 + _MAGNITUDE * min(abs(value), 1e300)), value)
    angle = _FREQUENCIES * magnitude
    sign = (_signs if len(name) > _LONGEST_KEPT else _kept_signs)(name)
    return np.concatenate([sign * np.cos(angle), sign * np.sin(angle)])


_kept_signs = lru_cache(maxsize=4096)(_signs)
_kept_features = lru_cache(maxsize=8192)(_number_features)
"""Kept, because counts and rates come back again and again."""


_SAME = UNIT - UNIT // SCALE


def score_of(dot: int) -> float:
    """A fixed-point dot product as a similarity, at most 1; within rounding of 1 it is 1, so the same is the same."""
    return 1 if dot >= _SAME else tidy(dot / UNIT)


@lru_cache(maxsize=65536)
def share_of(dot: int) -> float:
    """One block's part of a similarity; kept, because blocks repeat."""
    return tidy(dot / UNIT)
