"""Label errors: planted wrong labels come first, and a labeller who errs is told from those who don't."""

from __future__ import annotations

import numpy as np
import pytest

from memory_service.blocks import SCALE
from memory_service.label_errors import label_errors, neighbourhood


def planted(seed: int, wrong_of: float, groups: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two clouds, harmful and fine, 300 labels by ten people; a share of all is labelled wrongly by one more."""
    pick = np.random.default_rng(seed)
    truth = pick.random(300 * groups) < 0.5
    centres = pick.normal(size=(2, 32))
    points = centres[truth.astype(int)] + 0.6 * pick.normal(size=(len(truth), 32))
    vectors = np.rint(SCALE * points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    bad = pick.random(len(truth)) < wrong_of
    labellers = np.where(bad, 10, pick.integers(0, 10, len(truth)))
    return vectors, np.where(bad, ~truth, truth), labellers, bad


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.1, 0.3])
def test_wrong_labels_of_one_labeller_come_first(seed: int, share: float) -> None:
    vectors, said, labellers, bad = planted(seed, share)
    around = neighbourhood(vectors, vectors, 15, lambda count: None)
    found = label_errors(said, labellers, [(np.arange(len(said)), around)])
    first = np.argsort(-found.wrong, kind="stable")[: int(bad.sum())]
    assert bad[first].mean() > 0.9
    assert found.error_rates[10] > 0.3 and (found.error_rates[:10] < 0.1).all()


def test_neighbours_are_the_exact_nearest_without_oneself() -> None:
    pick = np.random.default_rng(1)
    vectors = np.rint(pick.normal(size=(50, 8)) * 500).astype(np.float32)
    around = neighbourhood(vectors, vectors, 5, lambda count: None)
    for row in range(50):
        dots = vectors @ vectors[row]
        dots[row] = -np.inf
        assert sorted(around.scores[row], reverse=True) == list(around.scores[row])
        assert set(around.places[row]) == set(np.argsort(-dots)[:5]) or len(set(dots)) < 50


def test_the_search_in_parts_is_the_search_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    pick = np.random.default_rng(2)
    vectors = np.rint(pick.normal(size=(40, 8)) * 500).astype(np.float32)
    whole = neighbourhood(vectors, vectors, 7, lambda count: None)
    monkeypatch.setattr("memory_service.label_errors._CELLS", 120)
    parts = neighbourhood(vectors, vectors, 7, lambda count: None)
    assert (whole.scores == parts.scores).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_labels_are_no_trouble(count: int) -> None:
    vectors = np.full((count, 4), 1000, dtype=np.float32)
    around = neighbourhood(vectors, vectors, 15, lambda done: None)
    groups = [(np.arange(count), around)] if count else []
    found = label_errors(np.ones(count, dtype=bool), np.zeros(count, dtype=np.int64), groups)
    assert len(found.wrong) == count and (found.wrong < 0.2).all()


def test_a_label_with_nobody_near_is_judged_by_its_labeller_alone() -> None:
    vectors = (np.eye(6) * SCALE).astype(np.float32)
    around = neighbourhood(vectors, vectors, 3, lambda count: None)
    found = label_errors(np.array([True, False] * 3), np.zeros(6, dtype=np.int64), [(np.arange(6), around)])
    assert (found.wrong < 0.15).all()
