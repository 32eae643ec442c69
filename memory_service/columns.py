"""Points as columns: arrays that grow with the points, so that one more point costs no more than itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memory_service.blocks import BLOCKS
from memory_service.point import Point
from memory_service.worth import LEAST_TRUST

_KINDS: dict[str, Any] = {
    "from": np.int64,
    "to": np.int64,
    "id": "U26",
    "amount": np.float64,
    "amountless": np.bool_,
    "failure": np.bool_,
    "success": np.bool_,
    "harmful": np.bool_,
    "known": np.bool_,
    "fine": np.bool_,
    "denied": np.bool_,
    "trust": np.int64,
    "at": np.int64,
    "pair": np.intp,
    **dict.fromkeys(BLOCKS, np.intp),
}
_FIRST = 64


class Columns:
    """What a search filters and sorts by, and each block's row number; `named` holds views of the same length.

    `pair` numbers the pairs of a text row and a categories row.
    """

    def __init__(self) -> None:
        self._arrays = {name: np.zeros(_FIRST, dtype=kind) for name, kind in _KINDS.items()}
        self._count = 0
        self._named: Mapping[str, Any] | None = None

    @property
    def named(self) -> Mapping[str, Any]:
        """The columns; good until the next change."""
        if self._named is None:
            self._named = {name: values[: self._count] for name, values in self._arrays.items()}
        return self._named

    def append(self, point: Point, pair: int, rows: Sequence[int]) -> None:
        """Add a point, with its pair's number and its row number in each block."""
        at = self._count
        if at == len(self._arrays["to"]):
            self._arrays = {n: np.concatenate([values, np.zeros_like(values)]) for n, values in self._arrays.items()}
        ids = self._arrays["id"]
        if len(point.memory_id) > ids.dtype.itemsize // 4:
            self._arrays["id"] = ids.astype(f"U{len(point.memory_id)}")
        fine = point.meaning == "fine" and not point.contested and point.trust >= LEAST_TRUST
        values = (
            point.from_version,
            point.to_version,
            point.memory_id,
            np.nan if point.amount is None else point.amount,
            point.amount is None and point.comparable,
            point.label == "failure",
            point.label == "success",
            point.meaning == "harmful",
            point.meaning != "neutral",
            fine,
            fine and point.verdict == "DENY" and point.label == "failure",
            point.trust,
            point.at_ms,
            pair,
            *rows,
        )
        for array, value in zip(self._arrays.values(), values, strict=True):
            array[at] = value
        self._count += 1
        self._named = None

    def end(self, at: int, point: Point) -> None:
        """The same point, with its end."""
        self._arrays["to"][at] = point.to_version
        self._named = None
