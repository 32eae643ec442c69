"""The files of a static model: how they are laid out, and the check of each against its manifest.

The weights are one int8 tensor in a safetensors file (https://github.com/huggingface/safetensors,
"Format"), a format small enough to read and write here without the library. Its metadata names the
tokenizer's digest and the limits on a text, so the digest of this one file covers everything that decides a
vector.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory_service.embedders.protocol import EmbedderUnavailable

DATA_DIRECTORY = Path(__file__).parent / "data"
MANIFEST = "MANIFEST.json"
TENSOR = "embeddings"
REINSTALL = "install `lumyn-streams` again; its model files are part of the package"


@dataclass(frozen=True)
class Weights:
    """One int8 row per token, all on one scale: float value = row * scale."""

    rows: NDArray[np.int8]  # (tokens, dimensions)
    scale: float
    tokenizer_sha256: str
    max_tokens: int
    max_characters: int


@dataclass(frozen=True)
class Manifest:
    """What `MANIFEST.json` says of the files beside it. Digests are lower-case hex of SHA-256."""

    name: str
    dimensions: int
    weights_file: str
    weights_sha256: str
    tokenizer_file: str
    tokenizer_sha256: str
    self_test_texts: tuple[str, ...]
    self_test_sha256: str

    @property
    def id(self) -> str:
        return f"{self.name}@sha256:{self.weights_sha256[:12]}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_manifest(directory: Path) -> Manifest:
    """Read the manifest; raises `EmbedderUnavailable` when it is missing or is not one."""
    path = directory / MANIFEST
    document = _read(path)
    try:
        fields: dict[str, Any] = json.loads(document)
        return Manifest(
            name=str(fields["name"]),
            dimensions=int(fields["dimensions"]),
            weights_file=str(fields["weights"]["file"]),
            weights_sha256=str(fields["weights"]["sha256"]),
            tokenizer_file=str(fields["tokenizer"]["file"]),
            tokenizer_sha256=str(fields["tokenizer"]["sha256"]),
            self_test_texts=tuple(str(text) for text in fields["self_test"]["texts"]),
            self_test_sha256=str(fields["self_test"]["sha256"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EmbedderUnavailable(
            f"the manifest of the static embedder cannot be read: {error!r}", where=str(path), help=REINSTALL
        ) from error


def read_checked(directory: Path, manifest: Manifest) -> tuple[Weights, bytes]:
    """Return the weights and the tokenizer's JSON, each after its digest was checked.

    Raises `EmbedderUnavailable` for a missing or altered file, and for weights made for another tokenizer.
    """
    weights = decode_weights(_checked(directory / manifest.weights_file, manifest.weights_sha256))
    tokenizer = _checked(directory / manifest.tokenizer_file, manifest.tokenizer_sha256)
    if weights.tokenizer_sha256 != manifest.tokenizer_sha256:
        raise EmbedderUnavailable(
            f"`{manifest.weights_file}` was made for another `{manifest.tokenizer_file}`",
            where=str(directory / manifest.tokenizer_file),
            help=REINSTALL,
        )
    if weights.rows.shape[1] != manifest.dimensions:
        raise EmbedderUnavailable(
            f"the manifest says {manifest.dimensions} dimensions, the weights have {weights.rows.shape[1]}",
            where=str(directory / MANIFEST),
            help=REINSTALL,
        )
    return weights, tokenizer


def encode_weights(weights: Weights) -> bytes:
    """The weights as a safetensors file; equal weights give equal bytes."""
    header = json.dumps(
        {
            "__metadata__": {
                "max_characters": str(weights.max_characters),
                "max_tokens": str(weights.max_tokens),
                "scale": repr(weights.scale),
                "tokenizer_sha256": weights.tokenizer_sha256,
            },
            TENSOR: {
                "dtype": "I8",
                "shape": list(weights.rows.shape),
                "data_offsets": [0, weights.rows.nbytes],
            },
        },
        separators=(",", ":"),
    ).encode()
    header += b" " * (-len(header) % 8)  # the format asks for an aligned tensor
    return len(header).to_bytes(8, "little") + header + np.ascontiguousarray(weights.rows).tobytes()


def decode_weights(data: bytes) -> Weights:
    """Read what `encode_weights` wrote; the rows are a read-only view of `data`.

    Only for bytes whose digest was checked: it trusts the header.
    """
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header["__metadata__"]
    rows = np.frombuffer(data, dtype=np.int8, offset=start).reshape(header[TENSOR]["shape"])
    return Weights(
        rows=rows,
        scale=float(metadata["scale"]),
        tokenizer_sha256=metadata["tokenizer_sha256"],
        max_tokens=int(metadata["max_tokens"]),
        max_characters=int(metadata["max_characters"]),
    )


def _checked(path: Path, expected: str) -> bytes:
    data = _read(path)
    actual = sha256(data)
    if actual != expected:
        raise EmbedderUnavailable(
            f"`{path.name}` is not the file its manifest names: sha256 is {actual}, should be {expected}",
            where=str(path),
            help=REINSTALL,
        )
    return data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EmbedderUnavailable(
            f"`{path.name}` of the static embedder cannot be read: {error.strerror}",
            where=str(path),
            help=REINSTALL,
        ) from error
