"""Any sentence-transformers model as an embedder: from a folder, or from what was fetched before; never from the net.

Better than the static model on free text, and slower by far. Its floats are PyTorch's: another version, or another kind
of processor, may round a few components otherwise. So a recall made again elsewhere can differ in the last place, where
the static embedder's can not.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory_service.embedders.protocol import EmbedderUnavailable

_CHARACTERS_A_TOKEN = 64
"""Of a text no more is looked at than this for each token that the model reads: a megabyte costs what a page does."""
_SAYS_WHAT_IT_IS = "modules.json"
_NOT_THE_MODEL = frozenset({"README.md", ".gitattributes", "LICENSE", "LICENSE.txt"})
_OTHER_RUNTIMES = frozenset({"onnx", "openvino", "coreml", "tf", "rust", "flax"})


class SentenceTransformerEmbedder:
    """`Embedder` over a sentence-transformers model. Loaded at once; one text at a time, so that no row shows others.

    Raises `EmbedderUnavailable` when the package, the folder or a part of the model is not there.
    """

    def __init__(self, name: str) -> None:
        """`name`: a folder, or a model's name (`all-MiniLM-L6-v2`, `org/name`) in the Hugging Face cache."""
        folder = _folder(name)
        self._model = _load(folder, name)
        most = self._model.get_max_seq_length() or 512
        self._most_characters = most * _CHARACTERS_A_TOKEN
        self._using = threading.Lock()
        ask = getattr(self._model, "get_embedding_dimension", None) or self._model.get_sentence_embedding_dimension
        dimensions = ask()
        if not dimensions:
            raise _unavailable(name, "does not say how many dimensions it gives", "use a model that gives one vector")
        self.dimensions = int(dimensions)
        self.id = f"sentence-transformers:{Path(name).name}-{_digest(folder)[:16]}-{most}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if isinstance(texts, str):
            raise TypeError("`embed` takes a sequence of texts, not one text")
        rows = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            readable = text[: self._most_characters].encode("utf-8", "ignore").decode("utf-8")
            if readable.strip():
                row[:] = self._one(readable)
        return rows

    def _one(self, text: str) -> NDArray[np.float64]:
        with self._using:  # tokenizers are not for two threads at once
            found = self._model.encode([text], batch_size=1, show_progress_bar=False, convert_to_numpy=True)[0]
        wide = np.asarray(found, dtype=np.float64)
        length = float(np.sqrt(wide @ wide))
        if not np.isfinite(length):
            raise EmbedderUnavailable(f"`{self.id}` gives values that are no numbers", help="use another model")
        return wide / length if length else wide


def _folder(name: str) -> Path:
    """The model's folder on this machine."""
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    if given.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise _unavailable(name, "is no folder", "name a folder with `modules.json`, or a model's name")
    hub = _imported("huggingface_hub")
    try:
        whole = name if "/" in name else f"sentence-transformers/{name}"
        return Path(hub.snapshot_download(whole, local_files_only=True))
    except Exception as error:  # the library has many, and no common one
        raise _unavailable(
            name,
            "is not on this machine",
            "models are not fetched at run time: give a folder, or fetch it once with "
            f"`python -c \"from sentence_transformers import SentenceTransformer as S; S('{name}')\"`",
        ) from error


def _load(folder: Path, name: str) -> Any:
    if not (folder / _SAYS_WHAT_IT_IS).is_file():
        raise _unavailable(name, f"has no `{_SAYS_WHAT_IT_IS}`", "name a folder that sentence-transformers has saved")
    library = _imported("sentence_transformers")
    try:
        return library.SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a broken folder makes of the libraries below
        detail = " ".join(str(error).split())[:200]
        raise _unavailable(name, f"can't be loaded: {type(error).__name__}: {detail}", "is it whole?") from error


def _imported(module: str) -> Any:
    """A library of the extra; told never to ask the net, which it would wait for."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return __import__(module)
    except ImportError as error:
        raise EmbedderUnavailable(
            f"the embedder `sentence-transformers` needs `{error.name or module}`",
            help="pip install 'lumyn-streams[transformers]'",
        ) from None


def _digest(folder: Path) -> str:
    """Of every file that can decide a vector, by its path."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        inner = path.relative_to(folder)
        if inner.name in _NOT_THE_MODEL or inner.parts[0] in _OTHER_RUNTIMES or inner.parts[0].startswith("."):
            continue
        with path.open("rb") as file:
            one = hashlib.file_digest(file, "sha256").digest()
        total.update(len(str(inner)).to_bytes(4) + str(inner).encode() + one)
    return total.hexdigest()


def _unavailable(name: str, why: str, help: str) -> EmbedderUnavailable:
    return EmbedderUnavailable(f"the model `{name}` {why}", help=help)
