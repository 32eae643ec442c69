"""A cheap embedder of any number of dimensions, for what must hold with every embedder."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Hashing:
    """A text's checksum is the seed of its vector."""

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self.id = f"hashing-{dimensions}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        seeds = [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(self.dimensions) for seed in seeds]
        return np.array([row / np.linalg.norm(row) for row in rows], dtype=np.float32).reshape(-1, self.dimensions)
