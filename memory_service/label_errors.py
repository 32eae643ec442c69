"""Which labels are probably wrong: what a label's neighbours say of it, and how often its labeller errs.

Each label's neighbourhood gives a probability of "allowing is wrong" from its nearest neighbours, weighed as recall
weighs them. As in confident learning (Northcutt, Jiang and Chuang 2021) a label is suspect when that contradicts it;
how far it is believed depends on who said it. Labellers have one error rate each (the one-coin model of Dawid and
Skene 1979), estimated together with the labels by expectation maximisation: a label's neighbours count for what they
probably mean, so a labeller who errs often does not vouch for himself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from memory_service.blocks import UNIT, Array

_CELLS = 4_000_000
"""So many products are held at once: 16 MB of them, and twice that for their order."""
_ROUNDS = 20
_ENOUGH = 1e-6
_PRIOR_OBSERVATIONS = 1.0
_PRIOR_WRONG, _PRIOR_RIGHT = 1.0, 9.0
"""A labeller of whom nothing is known errs in one of ten, believed as much as ten labels."""
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """Each of n labels' k nearest others: (n, k) places and weights (0 to 1, as recall weighs), nearest first."""

    places: Indices
    scores: Floats

    @property
    def weights(self) -> Floats:
        """What a neighbour counts: its score to the fourth power, one observation at the most."""
        weights: Floats = np.clip(self.scores, 0, 1) ** 4
        return weights


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """Of n labels by m labellers: `wrong` (n,) and `harmful` (n,) probabilities, `error_rates` (m,).

    `harmful`: that allowing is wrong there, by the neighbours alone.
    """

    wrong: Floats
    harmful: Floats
    error_rates: Floats


def neighbourhood(queries: Array, vectors: Array, k: int, tick: Callable[[int], None]) -> Neighbourhood:
    """Exact: queries and vectors are (n, dimensions) in fixed point; row i of both is label i, which is left out."""
    count = len(vectors)
    k = min(k, count - 1)
    places = np.zeros((count, max(k, 0)), dtype=np.int64)
    scores = np.zeros((count, max(k, 0)), dtype=np.float64)
    if k <= 0:
        return Neighbourhood(places, scores)
    step = max(1, _CELLS // count)
    for start in range(0, count, step):
        dots = queries[start : start + step] @ vectors.T
        rows = np.arange(len(dots))
        dots[rows, start + rows] = -np.inf
        nearest = np.argpartition(dots, count - k, axis=1)[:, count - k :]
        values = np.take_along_axis(dots, nearest, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        places[start : start + step] = np.take_along_axis(nearest, order, axis=1)
        scores[start : start + step] = np.take_along_axis(values, order, axis=1) / UNIT
        tick(len(dots))
    return Neighbourhood(places, scores)


def label_errors(
    harmful: npt.NDArray[np.bool_], labellers: Indices, groups: list[tuple[Indices, Neighbourhood]]
) -> LabelErrors:
    """`harmful` (n,) is what the labels say, `labellers` (n,) who said it, numbered from 0.

    `groups` are the labels that are near one another at all (an action type each): their numbers, and among these
    their neighbourhood.
    """
    said = harmful.astype(np.float64)
    many = int(labellers.max()) + 1 if len(labellers) else 0
    each = np.bincount(labellers, minlength=many)
    wrong = np.full(len(said), _PRIOR_WRONG / (_PRIOR_WRONG + _PRIOR_RIGHT))
    near = np.full(len(said), 0.5)
    rates = np.full(many, wrong[0] if len(wrong) else 0.0)
    for _ in range(_ROUNDS):
        probably = said * (1 - wrong) + (1 - said) * wrong
        for members, around in groups:
            near[members] = _rates(probably[members], around)
        contrary = np.where(harmful, 1 - near, near)
        rate = rates[labellers]
        newly = contrary * rate / np.maximum(contrary * rate + (1 - contrary) * (1 - rate), 1e-300)
        moved = float(np.abs(newly - wrong).max(initial=0.0))
        wrong = newly
        sums = np.bincount(labellers, weights=wrong, minlength=many)
        rates = (sums + _PRIOR_WRONG) / (each + _PRIOR_WRONG + _PRIOR_RIGHT)
        if moved < _ENOUGH:
            break
    return LabelErrors(wrong, near, rates)


def _rates(probably: Floats, around: Neighbourhood) -> Floats:
    """Each label's share of harm around it, drawn towards the group's own share where few are near."""
    weights = around.weights
    base = float(probably.mean())
    harm = (weights * probably[around.places]).sum(axis=1)
    rates: Floats = (harm + _PRIOR_OBSERVATIONS * base) / (weights.sum(axis=1) + _PRIOR_OBSERVATIONS)
    return rates
