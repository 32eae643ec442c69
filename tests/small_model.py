"""A second real embedder: the shipped static model with fewer dimensions, in a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

from memory_service.embedders.model_files import (
    DATA_DIRECTORY,
    MANIFEST,
    Weights,
    encode_weights,
    read_checked,
    read_manifest,
    sha256,
)
from memory_service.embedders.static import StaticModel, self_test_digest


def small_model(folder: Path, dimensions: int = 64) -> Path:
    """Write it; another number of dimensions is another embedder."""
    manifest = read_manifest(DATA_DIRECTORY)
    weights, tokenizer = read_checked(DATA_DIRECTORY, manifest)
    cut = Weights(
        weights.rows[:, :dimensions].copy(),
        weights.scale,
        weights.tokenizer_sha256,
        weights.max_tokens,
        weights.max_characters,
    )
    data = encode_weights(cut)
    folder.mkdir(parents=True)
    (folder / "small.safetensors").write_bytes(data)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    texts = list(manifest.self_test_texts)
    said = {
        "name": f"small-{dimensions}",
        "dimensions": dimensions,
        "weights": {"file": "small.safetensors", "sha256": sha256(data)},
        "tokenizer": {"file": "tokenizer.json", "sha256": manifest.tokenizer_sha256},
        "self_test": {"texts": texts, "sha256": self_test_digest(StaticModel(cut, tokenizer), texts)},
    }
    (folder / MANIFEST).write_text(json.dumps(said))
    return folder
