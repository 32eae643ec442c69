"""The memory neighbours of a decision as a picture: how near each was, which label it has, which thresholds it met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

LEFT, RIGHT, MIDDLE, STEP = 70.0, 700.0, 92.0, 22.0
_LANES: Final = {"failure": -1, "success": 1}
_THRESHOLDS: Final = ("failure_block", "failure_escalate", "soften", "success_support")
_ROLES: Final = {"harmful": "harmful", "harmful_without_text": "harmful, wording left out", "fine": "fine",
                 "softening": "softening"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """A neighbour. `number` ties it to its row in the table; `x`, `y` are its place."""

    number: int
    memory_id: str
    label: str
    meaning: str
    roles: tuple[str, ...]
    verdict: str
    score: float
    blocks: tuple[tuple[str, float], ...]
    summary: str
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold that is on the picture."""

    name: str
    value: float
    x: float
    above: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """Marks by nearness; `ticks` are (x, score). The request stands at the right, at 1."""

    marks: tuple[Mark, ...]
    limits: tuple[Limit, ...]
    ticks: tuple[tuple[float, float], ...]
    block_names: tuple[str, ...]
    height: float


def picture(record: Mapping[str, Any]) -> Picture | None:
    """The picture of a record's memory; None where it met nothing."""
    signals, memory = record["risk_signals"], record["memory"]
    found: dict[str, dict[str, Any]] = {}
    for kind in ("failure", "success"):
        for hit in signals[f"{kind}_similarity"]["top_k"]:
            found.setdefault(
                hit["memory_id"],
                {"label": hit["label"], "lane": kind, "verdict": hit["verdict"], "score": hit["score"],
                 "blocks": tuple(sorted(hit["score_by_block"].items())), "summary": hit["summary"],
                 "meaning": "", "roles": []},
            )  # fmt: skip
    for hit in memory["counted"]:
        one = found.setdefault(
            hit["memory_id"],
            {"label": "", "lane": "failure" if hit["meaning"] == "harmful" else "success", "verdict": hit["verdict"],
             "score": hit["score"], "blocks": (), "summary": "", "meaning": "", "roles": []},
        )  # fmt: skip
        one["meaning"] = hit["meaning"]
        one["roles"].append(_ROLES.get(hit["role"], hit["role"]))
    if not found:
        return None
    ranked = sorted(found.items(), key=lambda item: (-item[1]["score"], item[0]))
    low = min(0.5, *(max(0.0, one["score"]) for _, one in ranked))
    low = max(0.0, int(low * 10) / 10)
    settings = memory["settings"] or {}
    limits = [
        Limit(name, settings[name], _x(settings[name], low), name.startswith("failure"))
        for name in _THRESHOLDS
        if isinstance(settings.get(name), int | float) and low <= settings[name] <= 1
    ]
    marks = _placed(ranked, low)
    names = tuple(sorted({name for mark in marks for name, _ in mark.blocks}))
    ticks = tuple((_x(tenth / 10, low), tenth / 10) for tenth in range(round(low * 10), 11))
    return Picture(marks, tuple(limits), ticks, names, MIDDLE * 2)


def _x(score: float, low: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * (min(1.0, max(low, score)) - low) / (1 - low), 1)


def _placed(ranked: list[tuple[str, dict[str, Any]]], low: float) -> tuple[Mark, ...]:
    """Failures above the line, successes below; marks that would cover each other are moved apart."""
    taken: list[tuple[float, float]] = []
    marks = []
    for number, (memory_id, one) in enumerate(ranked, 1):
        x, way = _x(one["score"], low), _LANES[one["lane"]]
        y = MIDDLE + way * STEP
        while any(abs(x - other_x) < 32 and abs(y - other_y) < STEP - 2 for other_x, other_y in taken):
            y += way * STEP
            if not 12 < y < 2 * MIDDLE - 12:  # no more room in this column
                y, x = MIDDLE + way * STEP, x - 20
        taken.append((x, y))
        marks.append(
            Mark(number, memory_id, one["label"], one["meaning"], tuple(one["roles"]), one["verdict"], one["score"],
                 one["blocks"], one["summary"], round(x, 1), y)
        )  # fmt: skip
    return tuple(marks)
