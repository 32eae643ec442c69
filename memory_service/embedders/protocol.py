"""What every text embedder promises to the vectoriser."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import LumynError


class EmbedderUnavailable(LumynError):
    """The embedder cannot be loaded, or what was loaded is not what its manifest says."""

    code = "embedder_unavailable"
    exit_code = 4


class Embedder(Protocol):
    """Turns texts into unit vectors; safe to share between threads.

    A row depends on its own text alone: the other texts of the batch and their order must not show in it.
    """

    @property
    def id(self) -> str:
        """Stable name, with a digest of everything that decides the vectors; vectors of two ids never mix."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one row per text: float32, shape `(len(texts), dimensions)`, each of Euclidean length 1.

        A text that says nothing (blank, or without a known token) gets a row of zeros. Any `str` is accepted,
        of any size, with NULs and lone surrogates. The array is the caller's own.

        Raises `TypeError` for a bare `str` (it would be read as a batch of characters) and
        `EmbedderUnavailable` when the model cannot be loaded.
        """
        ...
