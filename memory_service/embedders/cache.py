"""Remembers the vectors of recent texts, because agents ask about the same few sentences again and again."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from memory_service.embedders.protocol import Embedder


class CachedEmbedder:
    """`Embedder` that asks `inner` only for texts it has not seen lately; same id, same rows.

    Holds the `size` most recently used texts, about `4 * dimensions` bytes each; as keys it keeps digests,
    so a long text costs no more than a short one. Raises `ValueError` when `size` is below 1, and whatever
    `inner` raises, in which case nothing is kept.
    """

    def __init__(self, inner: Embedder, size: int = 8192) -> None:
        if size < 1:
            raise ValueError(f"the size of the cache must be at least 1, not {size}")
        self._inner = inner
        self._size = size
        self._rows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def id(self) -> str:
        return self._inner.id

    @property
    def dimensions(self) -> int:
        return self._inner.dimensions

    def __len__(self) -> int:
        return len(self._rows)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise TypeError("`embed` takes a sequence of texts, not one text")
        keys = [_key(text) for text in texts]
        known: dict[bytes, NDArray[np.float32]] = {}
        missing: dict[bytes, str] = {}
        with self._lock:
            for key, text in zip(keys, texts, strict=True):
                if key in self._rows:
                    self._rows.move_to_end(key)
                    known[key] = self._rows[key]
                else:
                    missing[key] = text
        if missing:
            # Outside the lock, so that a slow embedder does not hold up callers whose texts are all known.
            fresh = self._inner.embed(list(missing.values()))
            # Each row is copied: a view would keep the whole batch alive as long as one of its rows is
            # cached.
            known.update({key: row.copy() for key, row in zip(missing, fresh, strict=True)})
            self._keep({key: known[key] for key in missing})
        rows = np.empty((len(keys), self.dimensions), dtype=np.float32)
        for row, key in zip(rows, keys, strict=True):
            row[:] = known[key]
        return rows

    def _keep(self, fresh: dict[bytes, NDArray[np.float32]]) -> None:
        with self._lock:
            self._rows.update(fresh)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
