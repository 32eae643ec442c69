"""How good probabilities are: AUC, Brier score, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def auc(truth: Sequence[bool], scores: Sequence[float]) -> float:
    """Area under the ROC curve (Mann-Whitney, ties by half)."""
    values, positive = np.asarray(scores), np.asarray(truth, dtype=bool)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def brier(truth: Sequence[bool], scores: Sequence[float]) -> float:
    """Mean squared error of the probabilities."""
    return float(np.mean((np.asarray(scores) - np.asarray(truth, dtype=float)) ** 2))


def reliability(truth: Sequence[bool], scores: Sequence[float], bins: int = 10) -> list[dict[str, Any]]:
    """Of each tenth of the range: how many, the mean probability, and how many were harmful."""
    values, positive = np.asarray(scores), np.asarray(truth, dtype=float)
    places = np.minimum((values * bins).astype(int), bins - 1)
    return [
        {"bin": f"{b / bins:.1f}-{(b + 1) / bins:.1f}", "count": int(here.sum()), "said": float(values[here].mean()),
         "was": float(positive[here].mean())}
        for b in range(bins)
        if (here := places == b).any()
    ]  # fmt: skip
