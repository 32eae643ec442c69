"""The default embedder: a static model, added up in integers so that every machine gets the same bits.

Each token has one int8 row; a text's vector is the sum of its tokens' rows, scaled to length 1. The sum and
the squared length are exact integers, and the only rounding left is one square root, one division and one
narrowing to float32, which IEEE 754 fixes. So a row does not depend on the CPU, the batch or the order of
work.
"""

import math
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memory_service.embedders.model_files import (
    DATA_DIRECTORY,
    MANIFEST,
    Manifest,
    Weights,
    read_checked,
    read_manifest,
    sha256,
)
from memory_service.embedders.protocol import EmbedderUnavailable

# A model is made with these limits and carries them: changing them here changes the next model, not this
# one. With int8 rows, 2,048 tokens keep each sum below 2^18 and the squared length below 2^44, where floats
# are exact.
MAX_TOKENS = 2048
# Only so many are looked at at all, so that a megabyte costs no more than a few pages.
MAX_CHARACTERS = 32_768


class StaticModel:
    """Weights and their tokenizer, loaded: `StaticEmbedder` without the files."""

    def __init__(self, weights: Weights, tokenizer_json: bytes) -> None:
        # Imported here because only embedding needs it: a command that embeds nothing should not wait for it.
        from tokenizers import Tokenizer

        self._weights = weights
        self._tokenizer = Tokenizer.from_buffer(tokenizer_json)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `Embedder.embed`."""
        rows = np.zeros((len(texts), self._weights.rows.shape[1]), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            tokens = self._tokens(text)
            if tokens:
                total = self._weights.rows[tokens].sum(axis=0, dtype=np.int64)
                squared_length = int((total * total).sum())
                if squared_length:
                    row[:] = total / math.sqrt(squared_length)
        return rows

    def _tokens(self, text: str) -> list[int]:
        # Lone surrogates are legal in a Python str but not in UTF-8, which the tokenizer reads.
        readable = text[: self._weights.max_characters].encode("utf-8", "ignore").decode("utf-8")
        # One text at a time: the tokenizer's own batches start a thread pool, which does not survive a fork.
        ids: list[int] = self._tokenizer.encode(readable, add_special_tokens=False).ids
        return ids[: self._weights.max_tokens]


class StaticEmbedder:
    """`Embedder` over the model that is shipped in the package; needs no network and no other file.

    Of a text, the first 2,048 tokens of the first 32,768 characters count. The manifest is read at once,
    weights and tokenizer at the first `embed`, after their digests were checked. Raises
    `EmbedderUnavailable`.
    """

    def __init__(self, directory: Path = DATA_DIRECTORY) -> None:
        self._directory = directory
        self._manifest = read_manifest(directory)
        self._model: StaticModel | None = None
        self._loading = threading.Lock()

    @property
    def id(self) -> str:
        return self._manifest.id

    @property
    def dimensions(self) -> int:
        return self._manifest.dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise TypeError("`embed` takes a sequence of texts, not one text")
        return self._loaded().embed(texts)

    def _loaded(self) -> StaticModel:
        with self._loading:
            if self._model is None:
                model = StaticModel(*read_checked(self._directory, self._manifest))
                _self_test(model, self._manifest, self._directory)
                self._model = model
            return self._model


def self_test_digest(model: StaticModel, texts: Sequence[str]) -> str:
    """SHA-256 of the rows of `texts`, little-endian float32."""
    return sha256(model.embed(texts).astype("<f4").tobytes())


def _self_test(model: StaticModel, manifest: Manifest, directory: Path) -> None:
    # Digests hold the files still, not the libraries: another `tokenizers` could split a text in another way,
    # and every stored vector would then be compared with vectors of a different kind.
    if self_test_digest(model, manifest.self_test_texts) != manifest.self_test_sha256:
        import tokenizers

        raise EmbedderUnavailable(
            f"`{manifest.id}` gives other vectors here than when it was made",
            where=str(directory / MANIFEST),
            help=f"`tokenizers` {tokenizers.__version__} or `numpy` {np.__version__} does not do what the "
            "version in the manifest does; install that one",
        )
