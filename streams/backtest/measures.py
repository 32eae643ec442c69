"""The figures that a bar may name: shares of decisions, by the candidate's verdicts and by recorded ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.verdict import SEVERITY, VERDICTS
from streams.backtest.tally import Tally

Event = Callable[[str, str, str | None], bool]
"""Of (recorded verdict, candidate's verdict, meaning)."""
Weights = Mapping[str, float] | None
"""How many decisions one of a recorded verdict stands for; None: each for itself."""


@dataclass(frozen=True, slots=True)
class Measure:
    """A share: decisions for which `event` holds, among those for which `among` does."""

    name: str
    means: str
    event: Event
    among: Event
    of_labels: bool = False
    """Whether it rests on outcomes, so that it says nothing where nothing is labelled."""
    rate_only: bool = False
    """Whether its count alone means nothing."""


@dataclass(frozen=True, slots=True)
class Value:
    """A measure's value: by recorded verdict, (decisions that count, decisions among which)."""

    strata: Mapping[str, tuple[int, int]]
    weights: Weights = None

    @property
    def count(self) -> float:
        """How many decisions count; of a sample, how many it stands for."""
        return _number(sum(part * self._weight(verdict) for verdict, (part, _) in self.strata.items()))

    @property
    def of(self) -> float:
        """Among how many."""
        return _number(sum(whole * self._weight(verdict) for verdict, (_, whole) in self.strata.items()))

    @property
    def seen(self) -> tuple[int, int]:
        """The same two, unweighted: what was looked at."""
        return sum(part for part, _ in self.strata.values()), sum(whole for _, whole in self.strata.values())

    @property
    def rate(self) -> float | None:
        """The share; None among nothing."""
        return self.count / self.of if self.of else None

    def _weight(self, verdict: str) -> float:
        return 1 if self.weights is None else self.weights.get(verdict, 1)


def _number(value: float) -> float:
    return int(value) if value == int(value) else value


def measured(measure: Measure, tally: Tally, weights: Weights, *, baseline: bool = False) -> Value:
    """A measure of the candidate; as `baseline` of what was recorded, over the same decisions."""
    strata: dict[str, tuple[int, int]] = {}
    for (old, new, meaning), number in tally.matrix.items():
        verdict = old if baseline else new
        part, whole = strata.get(old, (0, 0))
        if measure.among(old, verdict, meaning):
            whole += number
            part += number if measure.event(old, verdict, meaning) else 0
        strata[old] = (part, whole)
    return Value(strata, weights)


def _all(_old: str, _new: str, _meaning: str | None) -> bool:
    return True


def _judged(_old: str, _new: str, meaning: str | None) -> bool:
    return meaning in ("harmful", "fine")


_FLIPS = Measure("flips", "decisions with another verdict", lambda old, new, _: old != new, _all)
MEASURES: Final[dict[str, Measure]] = {
    one.name: one
    for one in (
        _FLIPS,
        Measure("stricter", "with a stricter verdict", lambda old, new, _: SEVERITY[new] > SEVERITY[old], _all),
        Measure("milder", "with a milder verdict", lambda old, new, _: SEVERITY[new] < SEVERITY[old], _all),
        Measure("labelled", "with an outcome", lambda old, new, meaning: meaning is not None, _all),
        Measure(
            "failures_caught",
            "known failures that were not allowed (recall)",
            lambda old, new, _: new != "ALLOW",
            lambda old, new, meaning: meaning == "harmful",
            of_labels=True,
        ),
        Measure(
            "failures_allowed",
            "known failures that were allowed",
            lambda old, new, _: new == "ALLOW",
            lambda old, new, meaning: meaning == "harmful",
            of_labels=True,
        ),
        Measure(
            "fine_allowed",
            "what is known to be fine and was allowed",
            lambda old, new, _: new == "ALLOW",
            lambda old, new, meaning: meaning == "fine",
            of_labels=True,
        ),
        Measure(
            "fine_stopped",
            "what is known to be fine and was not allowed",
            lambda old, new, _: new != "ALLOW",
            lambda old, new, meaning: meaning == "fine",
            of_labels=True,
        ),
        Measure(
            "precision",
            "known failures among what was not allowed and has an outcome",
            lambda old, new, meaning: meaning == "harmful",
            lambda old, new, meaning: meaning in ("harmful", "fine") and new != "ALLOW",
            of_labels=True,
            rate_only=True,
        ),
        Measure(
            "accuracy",
            "decisions that were right, among those with an outcome",
            lambda old, new, meaning: (new == "ALLOW") == (meaning == "fine"),
            _judged,
            of_labels=True,
        ),
        *(
            Measure(f"verdict.{verdict}", f"decided {verdict}", lambda old, new, _, v=verdict: new == v, _all)  # type: ignore[misc]
            for verdict in VERDICTS
        ),
        *(
            Measure(
                f"flips.{a}_to_{b}",
                f"flips from {a} to {b}",
                lambda old, new, _, a=a, b=b: (old, new) == (a, b),  # type: ignore[misc]
                _all,
            )
            for a in VERDICTS
            for b in VERDICTS
            if a != b
        ),
        *(
            Measure(f"flips.to_{b}", f"flips to {b}", lambda old, new, _, b=b: old != new == b, _all)  # type: ignore[misc]
            for b in VERDICTS
        ),
        *(
            Measure(f"flips.from_{a}", f"flips from {a}", lambda old, new, _, a=a: new != old == a, _all)  # type: ignore[misc]
            for a in VERDICTS
        ),
    )
}


def as_counts(value: Value) -> dict[str, Any]:
    """JSON form."""
    seen = value.seen
    return {"count": value.count, "of": value.of, "rate": value.rate, "seen": seen[0], "seen_of": seen[1]}
