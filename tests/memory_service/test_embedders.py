"""Embedders keep their protocol's promises, and the static one gives the same bits everywhere."""

import gc
import json
import math
import shutil
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from memory_service.embedders.cache import CachedEmbedder
from memory_service.embedders.model_files import (
    DATA_DIRECTORY,
    MANIFEST,
    Weights,
    decode_weights,
    encode_weights,
    read_manifest,
    sha256,
)
from memory_service.embedders.protocol import Embedder, EmbedderUnavailable
from memory_service.embedders.static import MAX_CHARACTERS, MAX_TOKENS, StaticEmbedder
from schemas.errors import LumynError

SENTENCES = (DATA_DIRECTORY / "probe_sentences.txt").read_text(encoding="utf-8").splitlines()
BLANK = ("", " ", "\n\t \r\n")
HOSTILE = {
    "NULs": "refund\x00 the\x00\x00 order",
    "emoji": "refund 🙂👩‍👩‍👧‍👦🏴‍☠️ the order",
    "lone surrogate": "refund \ud800 the order \udfff",
    "right to left": "\u202erefund\u202c את ההזמנה الطلب",
    "combining marks": "refund" + "\u0301" * 5000,
    "markers": "[CLS] [PAD] [UNK] [SEP] [MASK] ##refund",
    "one word of a megabyte": "x" * 1_000_000,
    "words of a megabyte": "refund the order " * 60_000,
    "a megabyte of NULs": "\x00" * 1_000_000,
}


class EmbedderContract:
    """What holds for every embedder: subclass as `Test...` and give the fixture `embedder`."""

    @pytest.fixture
    def embedder(self) -> Embedder:
        raise NotImplementedError

    def test_a_batch_gives_one_float32_row_per_text(self, embedder: Embedder) -> None:
        for size in (0, 1, 3):
            rows = embedder.embed(SENTENCES[:size])
            assert rows.shape == (size, embedder.dimensions)
            assert rows.dtype == np.float32

    def test_rows_have_unit_length(self, embedder: Embedder) -> None:
        lengths = np.linalg.norm(embedder.embed(SENTENCES).astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-6)

    def test_blank_text_gives_a_row_of_zeros(self, embedder: Embedder) -> None:
        rows = embedder.embed(["refund", *BLANK, "refund"])
        assert not rows[1:-1].any()
        assert rows[0].any() and rows[-1].any()

    def test_the_same_batch_gives_the_same_rows(self, embedder: Embedder) -> None:
        assert embedder.embed(SENTENCES).tobytes() == embedder.embed(SENTENCES).tobytes()

    def test_rows_follow_the_order_of_their_texts(self, embedder: Embedder) -> None:
        forwards, backwards = embedder.embed(SENTENCES), embedder.embed(SENTENCES[::-1])
        np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-5)

    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
    def test_hostile_text_gives_a_finite_row(self, embedder: Embedder, text: str) -> None:
        row = embedder.embed([text])[0].astype(np.float64)
        assert np.isfinite(row).all()
        assert np.linalg.norm(row) == pytest.approx(1, abs=1e-6) or not row.any()

    @pytest.mark.parametrize(
        ("text", "similar", "unrelated"),
        [
            (
                "refund the customer for a damaged parcel",
                "give the buyer their money back, the package arrived broken",
                "restart the payment worker pods",
            ),
            (
                "delete all rows from the production database",
                "drop a table on the live database",
                "book a flight to Seattle for three passengers",
            ),
            (
                "approve a mortgage for a first-time buyer",
                "grant a home loan",
                "post an announcement on social media",
            ),
        ],
    )
    def test_similar_sentences_are_nearer_than_unrelated_ones(
        self, embedder: Embedder, text: str, similar: str, unrelated: str
    ) -> None:
        near, far = embedder.embed([similar, unrelated]) @ embedder.embed([text])[0]
        assert near > far + 0.1

    def test_a_bare_string_is_refused(self, embedder: Embedder) -> None:
        with pytest.raises(TypeError):
            embedder.embed("refund")

    def test_changing_a_result_does_not_change_the_next_one(self, embedder: Embedder) -> None:
        first = embedder.embed(["refund"])
        before = first.copy()
        first[:] = 7
        np.testing.assert_array_equal(embedder.embed(["refund"]), before)

    def test_threads_can_share_it(self, embedder: Embedder) -> None:
        expected = embedder.embed(SENTENCES)
        results: dict[int, NDArray[np.float32]] = {}
        threads = [
            threading.Thread(target=lambda n=n: results.update({n: embedder.embed(SENTENCES)}))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 4
        for rows in results.values():
            np.testing.assert_allclose(rows, expected, atol=1e-5)


class BitExactContract(EmbedderContract):
    """What holds besides for embedders whose vectors can be made again bit for bit."""

    def test_a_row_depends_on_its_own_text_alone(self, embedder: Embedder) -> None:
        alone = np.concatenate([embedder.embed([text]) for text in SENTENCES])
        noise = ["x " * 5000, "", *HOSTILE.values()]
        together = embedder.embed([*noise, *SENTENCES, *noise])[len(noise) : -len(noise)]
        assert together.tobytes() == alone.tobytes()
        assert embedder.embed(SENTENCES[::-1])[::-1].tobytes() == alone.tobytes()

    def test_another_process_gives_the_same_id_and_bits(self, embedder: Embedder) -> None:
        program = (
            "import hashlib, sys; from memory_service.embedders.static import StaticEmbedder;"
            "e = StaticEmbedder(); print(e.id, hashlib.sha256(e.embed(sys.argv[1:]).tobytes()).hexdigest())"
        )
        texts = SENTENCES[:20]
        out = subprocess.run(
            [sys.executable, "-c", program, *texts], capture_output=True, text=True, check=True, cwd=ROOT
        ).stdout
        assert out.split() == [embedder.id, sha256(embedder.embed(texts).tobytes())]


ROOT = DATA_DIRECTORY.parents[2]


@pytest.fixture(scope="module")
def static() -> StaticEmbedder:
    return StaticEmbedder()


class TestStaticEmbedder(BitExactContract):
    @pytest.fixture
    def embedder(self, static: StaticEmbedder) -> Embedder:
        return static


class TestCachedEmbedder(BitExactContract):
    @pytest.fixture
    def embedder(self, static: StaticEmbedder) -> Embedder:
        return CachedEmbedder(static, size=50)


# The shipped model


def test_the_id_names_the_digest_of_the_weights_file(static: StaticEmbedder) -> None:
    digest = sha256((DATA_DIRECTORY / "static-minilm-256-int8.safetensors").read_bytes())
    assert static.id == f"static-minilm-256-int8@sha256:{digest[:12]}"
    assert static.dimensions == 256


def test_a_row_is_the_integer_sum_of_its_tokens_rows(static: StaticEmbedder) -> None:
    manifest = read_manifest(DATA_DIRECTORY)
    table = decode_weights((DATA_DIRECTORY / manifest.weights_file).read_bytes()).rows
    vocabulary = json.loads((DATA_DIRECTORY / manifest.tokenizer_file).read_bytes())["model"]["vocab"]
    order, payment = (table[vocabulary[token]].tolist() for token in ("order", "payment"))
    total = [x + 2 * y for x, y in zip(order, payment, strict=True)]
    length = math.sqrt(sum(x * x for x in total))
    assert static.embed(["Payment ORDER payment"])[0].tolist() == [
        float(np.float32(x / length)) for x in total
    ]


def test_unknown_words_add_nothing(static: StaticEmbedder) -> None:
    rows = static.embed(["🙂", "refund", "refund 🙂"])
    assert not rows[0].any()
    assert rows[1].tobytes() == rows[2].tobytes()


def test_a_marker_in_a_text_is_read_as_a_word(static: StaticEmbedder) -> None:
    rows = static.embed(["[PAD]", "pad", "[UNK]"])
    assert rows[0] @ rows[1] > 0.9
    assert rows[2].any()


def test_text_is_cut_at_a_fixed_number_of_tokens(static: StaticEmbedder) -> None:
    # Words of one token each, of two kinds, so that the direction shows how many of each were counted.
    nearly_full = "order " * (MAX_TOKENS - 1)
    rows = static.embed([nearly_full + "flight", nearly_full + "flight flight", nearly_full])
    assert rows[0].tobytes() == rows[1].tobytes()
    assert rows[0].tobytes() != rows[2].tobytes()


def test_text_is_cut_at_a_fixed_number_of_characters(static: StaticEmbedder) -> None:
    gap = " " * (MAX_CHARACTERS - len("refund" + "order"))
    rows = static.embed([f"refund{gap}order", f"refund{gap} order", "refund order", "refund orde"])
    assert rows[0].tobytes() == rows[2].tobytes()
    assert rows[1].tobytes() == rows[3].tobytes()


def test_nothing_is_loaded_before_the_first_text() -> None:
    program = (
        "import sys; from memory_service.embedders.static import StaticEmbedder; e = StaticEmbedder(); e.id;"
        "print('tokenizers' in sys.modules); e.embed(['refund']); print('tokenizers' in sys.modules)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert out.split() == ["False", "True"]


def test_the_licence_goes_with_the_model() -> None:
    manifest = json.loads((DATA_DIRECTORY / MANIFEST).read_text())
    assert manifest["licence"] == "Apache-2.0"
    assert "Apache License" in (DATA_DIRECTORY / "LICENSE").read_text()
    assert manifest["origin"]["model"].split("/")[1] in (DATA_DIRECTORY / "NOTICE").read_text()


def test_weights_survive_their_file_format() -> None:
    rows = np.arange(-6, 6, dtype=np.int8).reshape(3, 4)
    weights = Weights(rows, scale=0.1, tokenizer_sha256="ab", max_tokens=5, max_characters=9)
    data = encode_weights(weights)
    again = decode_weights(data)
    np.testing.assert_array_equal(again.rows, rows)
    assert (again.scale, again.tokenizer_sha256, again.max_tokens, again.max_characters) == (0.1, "ab", 5, 9)
    assert encode_weights(again) == data


# Tampering


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model that a test may damage."""
    shutil.copytree(DATA_DIRECTORY, tmp_path / "model")
    return tmp_path / "model"


def edit_manifest(model: Path, part: str, key: str, value: object) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    manifest[part][key] = value
    (model / MANIFEST).write_text(json.dumps(manifest))


def refusal(model: Path) -> EmbedderUnavailable:
    with pytest.raises(EmbedderUnavailable) as caught:
        StaticEmbedder(model).embed(["refund"])
    return caught.value


def test_an_undamaged_copy_is_accepted(model: Path, static: StaticEmbedder) -> None:
    assert StaticEmbedder(model).embed(SENTENCES).tobytes() == static.embed(SENTENCES).tobytes()


@pytest.mark.parametrize("name", ["static-minilm-256-int8.safetensors", "tokenizer.json"])
def test_one_changed_byte_is_found(model: Path, name: str) -> None:
    data = bytearray((model / name).read_bytes())
    data[-100] ^= 1
    (model / name).write_bytes(data)
    error = refusal(model)
    assert name in error.message and error.where == str(model / name) and error.help
    assert sha256(bytes(data)) in error.message


@pytest.mark.parametrize("name", ["static-minilm-256-int8.safetensors", "tokenizer.json", MANIFEST])
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    assert name in refusal(model).message


def test_a_changed_digest_in_the_manifest_is_found(model: Path) -> None:
    edit_manifest(model, "weights", "sha256", "0" * 64)
    assert "0" * 64 in refusal(model).message


def test_a_tokenizer_swapped_together_with_its_digest_is_found(model: Path) -> None:
    tokenizer = (model / "tokenizer.json").read_bytes().replace(b'"lowercase":true', b'"lowercase":false')
    (model / "tokenizer.json").write_bytes(tokenizer)
    edit_manifest(model, "tokenizer", "sha256", sha256(tokenizer))
    assert "another `tokenizer.json`" in refusal(model).message


def test_weights_swapped_together_with_their_digest_have_another_id(
    model: Path, static: StaticEmbedder
) -> None:
    path = model / "static-minilm-256-int8.safetensors"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    edit_manifest(model, "weights", "sha256", sha256(bytes(data)))
    assert StaticEmbedder(model).id != static.id


def test_libraries_that_give_other_vectors_are_found(model: Path) -> None:
    edit_manifest(model, "self_test", "sha256", "0" * 64)
    error = refusal(model)
    assert "other vectors" in error.message and "tokenizers" in (error.help or "")


def test_dimensions_that_the_weights_do_not_have_are_found(model: Path) -> None:
    manifest = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**manifest, "dimensions": 128}))
    assert "128 dimensions" in refusal(model).message


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"name": "x", "dimensions": "many"}', "\ufeff\x00"])
def test_a_manifest_that_is_not_one_is_refused(model: Path, text: str) -> None:
    (model / MANIFEST).write_text(text, encoding="utf-8")
    assert refusal(model).where == str(model / MANIFEST)


def test_the_error_is_part_of_the_error_family(model: Path) -> None:
    (model / MANIFEST).unlink()
    error = refusal(model)
    assert isinstance(error, LumynError)
    assert (error.code, error.exit_code) == ("embedder_unavailable", 4)


# The cache


class Counting:
    """An embedder that keeps what it was asked."""

    id = "counting"
    dimensions = 2

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(texts))
        if "broken" in texts:
            raise EmbedderUnavailable("broken")
        return np.array([[len(text), len(self.asked)] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_a_known_text_is_not_asked_again() -> None:
    inner = Counting()
    cached = CachedEmbedder(inner, size=10)
    first = cached.embed(["a", "bb", "a"])
    second = cached.embed(["bb", "ccc", "a"])
    assert inner.asked == [["a", "bb"], ["ccc"]]
    assert first.tolist() == [[1, 1], [2, 1], [1, 1]]
    assert second.tolist() == [[2, 1], [3, 2], [1, 1]]


def test_the_cache_has_the_id_of_what_it_caches(static: StaticEmbedder) -> None:
    cached = CachedEmbedder(static)
    assert (cached.id, cached.dimensions) == (static.id, static.dimensions)


def test_the_cache_gives_the_rows_of_what_it_caches(static: StaticEmbedder) -> None:
    cached = CachedEmbedder(static, size=100)
    for _ in range(2):
        assert cached.embed(SENTENCES).tobytes() == static.embed(SENTENCES).tobytes()


def test_the_cache_is_bounded_and_drops_the_least_recently_used() -> None:
    inner = Counting()
    cached = CachedEmbedder(inner, size=2)
    cached.embed(["a", "b"])
    cached.embed(["a"])
    cached.embed(["c"])
    assert len(cached) == 2
    cached.embed(["a", "c"])
    assert inner.asked == [["a", "b"], ["c"]]
    cached.embed(["b"])
    assert inner.asked[-1] == ["b"]


def test_a_batch_larger_than_the_cache_is_answered() -> None:
    cached = CachedEmbedder(Counting(), size=1)
    assert cached.embed(["a", "bb", "ccc"])[:, 0].tolist() == [1, 2, 3]
    assert len(cached) == 1


def test_a_cached_row_does_not_keep_its_batch_in_memory() -> None:
    class Watched(Counting):
        def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            rows = super().embed(texts).copy()  # owns its memory, as a view would not
            batches.append(weakref.ref(rows))
            return rows

    batches: list[weakref.ref[NDArray[np.float32]]] = []
    cached = CachedEmbedder(Watched(), size=1)
    cached.embed(["a", "b"])
    gc.collect()
    assert [batch() for batch in batches] == [None]


def test_a_failure_is_passed_on_and_nothing_is_kept() -> None:
    cached = CachedEmbedder(Counting(), size=10)
    with pytest.raises(EmbedderUnavailable):
        cached.embed(["a", "broken"])
    assert len(cached) == 0


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_without_room_is_refused(size: int) -> None:
    with pytest.raises(ValueError):
        CachedEmbedder(Counting(), size=size)
