"""One past decision as a backtest takes it: checked before anything in it is believed, and what it is counted under."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import msgspec

from memory_service.recall import Recall, recorded
from schemas.canonical import decode_trusted, encode
from schemas.errors import UsageError
from schemas.ids import time_ms_of
from schemas.query import PATH_ROOTS, value_at
from schemas.verdict import Verdict
from streams.backtest.candidate import Result
from streams.backtest.glance import Glance
from streams.backtest.groups import group_of
from streams.backtest.outcomes import Outcome
from streams.backtest.raw import Raw
from streams.diff import fixed_by
from streams.policy.facts import amount_of, currency_of

HOUR_MS: Final = 3_600_000
NONE: Final = "(none)"
SLICES: Final = ("action_type", "subject_type", "amount", "provenance.model")
"""What every report is cut by, beside time and what is asked for."""
_EDGES: Final = (10, 50, 100, 250, 500, 1000, 5000, 10_000)
_SHOWN = 80

Reader = Callable[[Mapping[str, Any]], str]
"""A request's value in a dimension."""


class Case(msgspec.Struct):
    """A sound record with all that its evaluations share."""

    seen: Glance
    """The parts that every evaluation needs."""
    raw: Raw
    old: Result
    outcome: Outcome
    time_ms: int
    fixed: tuple[Verdict, tuple[str, ...]] | None
    values: tuple[str, ...]
    """Its value in each dimension."""
    group: int
    """Its cluster's group."""
    amount: int | float | None
    """The bare amount: what flips are ordered by, among other things."""
    kid: str | None = None
    """The pseudonym of its subject, where the record is stored sealed."""
    record_: dict[str, Any] | None = None
    again: Result | None = None
    """What the policy and memory of then give on this engine, once it was asked."""
    _recalled: Recall | None = None

    @property
    def place(self) -> str:
        """Where it stands, for people."""
        return f"{self.raw.place} ({self.seen.decision_id})"

    @property
    def record(self) -> dict[str, Any]:
        """The whole record, opened; decoded when it is first asked for, as few are."""
        if self.record_ is None:
            self.record_ = decode_trusted(self.raw.value)
        return self.record_

    @property
    def recalled(self) -> Recall:
        """The memory that it was decided on; made once."""
        if self._recalled is None:
            self._recalled = recorded(self.seen.recalled or self.record)
        return self._recalled


@dataclass(frozen=True, slots=True)
class Reading:
    """How requests are told apart: by these dimensions, and into clusters."""

    dimensions: Mapping[str, Reader]
    cluster: Reader

    def case(
        self, seen: Glance, raw: Raw, old: Result, outcome: Outcome, record: dict[str, Any] | None = None
    ) -> Case:
        """Raises `BadJson` for a decision whose evaluation raised, and what a misshapen record raises.

        `record` is the whole one, where it was read; without it, it is `raw`'s.
        """
        request, time_ms = seen.request, time_ms_of(seen.created_at)
        fixed = fixed_by(seen.reason_codes, seen.control.switches)
        values = tuple([read(request) for read in self.dimensions.values()])
        group, amount = group_of(self.cluster(request)), amount_of(request["action"])
        return Case(seen, raw, old, outcome, time_ms, fixed, values, group, amount, record_=record)


def reading(dimensions: Sequence[str], cluster: str) -> Reading:
    """Raises `UsageError` for a name that there isn't."""
    names = dict.fromkeys((*SLICES, *dimensions))
    return Reading({name: _reader(name) for name in names}, _reader(cluster))


def _reader(name: str) -> Reader:
    return _BUILT_IN.get(name) or _path(name)


def _path(name: str) -> Reader:
    root, dot, rest = name.partition(".")
    if root not in PATH_ROOTS or not dot or not rest:
        known = ", ".join([*_BUILT_IN, *(f"{root}.NAME" for root in PATH_ROOTS)])
        raise UsageError(f"decisions can't be told apart by `{name}`", help=f"one of {known}")
    path = tuple(rest.split("."))
    if root == "context":
        return lambda request: _text(value_at((request.get("context") or {}).get("inline"), path))
    if len(path) == 1:
        return lambda request: _text((request.get(root) or {}).get(rest))
    return lambda request: _text(value_at(request.get(root), path))


def _text(value: Any) -> str:
    if value.__class__ is str:
        return str(value) if len(value) <= _SHOWN else value[:_SHOWN] + "…"
    if value is None:
        return NONE
    if value.__class__ is bool:
        return "true" if value else "false"
    return encode(value).decode() if isinstance(value, int | float) else "(a list or mapping)"


def _subject(request: Mapping[str, Any]) -> str:
    subject = request["subject"]
    return f"{subject['type']}/{subject['id']}"


def amount_band(request: Mapping[str, Any]) -> str:
    """The band of the amount; of another currency than dollars with its name."""
    action = request["action"]
    amount = amount_of(action)
    if amount is None:
        return NONE
    band = _BANDS[bisect_right(_EDGES, amount)]
    currency = currency_of(action)
    return band if currency in (None, "USD") else f"{band} {_text(currency)}"


_BANDS = (
    f"under {_EDGES[0]}",
    *(f"{low:,} to {high:,}" for low, high in pairwise(_EDGES)),
    f"{_EDGES[-1]:,} and more",
)
_BUILT_IN: Final[dict[str, Reader]] = {
    "action_type": lambda request: _text(request["action"].get("type")),
    "subject_type": lambda request: _text(request["subject"].get("type")),
    "subject_id": _subject,
    "amount": amount_band,
}


def band_order(value: str) -> tuple[int, str]:
    """Bands by their amounts."""
    for place, band in enumerate(_BANDS):
        if value == band or value.startswith(band + " "):
            return place, value
    return len(_BANDS), value
