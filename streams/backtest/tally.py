"""What is counted of one candidate: plain sums that can be added up in any split, kept and taken up again.

Everything is counted by the recorded verdict, as that is the stratum a sample is drawn by: weights come in when figures
are made (`figures.py`). Memory is bounded: by the rules, the slices' caps, ten flips and a fixed number of groups.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from streams.backtest.groups import GroupCounts

Pair = tuple[str, str, str | None]
"""(recorded verdict, candidate's verdict, meaning of what became of it: harmful, fine, neutral, or None)."""

RuleCase = tuple[str, str, str, str, str | None]
"""(before, after, recorded verdict, candidate's verdict, meaning); before, after: matched, indeterminate or empty."""

OTHERS: Final = "(others)"
MOST_VALUES: Final = 50
"""Values of a slice that are told apart; those that come later are counted together."""
MOST_HOURS: Final = 5000
"""Hours that are told apart; a longer range is counted by day."""
TOP: Final = 10
MOST_ERRORS: Final = 100
DAY: Final = 24


@dataclass(slots=True)
class Tally:
    """One candidate's counts."""

    matrix: Counter[Pair] = field(default_factory=Counter)
    other_reasons: Counter[tuple[str]] = field(default_factory=Counter)
    """Decisions with the same verdict for other reasons, by it."""
    by_default: Counter[tuple[str]] = field(default_factory=Counter)
    """Decisions in which no rule of the candidate asked for anything, by the recorded verdict."""
    out_of_policy: int = 0
    """Decisions whose request names another policy: not compared."""
    rules: dict[str, Counter[RuleCase]] = field(default_factory=dict)
    blamed: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(rule, recorded verdict, candidate's verdict) of the flips it causes."""
    slices: dict[str, dict[str, Counter[Pair]]] = field(default_factory=dict)
    hours: dict[int, Counter[Pair]] = field(default_factory=dict)
    hours_each: int = 1
    causes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(cause, recorded verdict, candidate's verdict); other reasons alone count too."""
    errors: Counter[str] = field(default_factory=Counter)
    named: list[tuple[str, str, str]] = field(default_factory=list)
    """(kind, place, message) of the first errors."""
    top: list[dict[str, Any]] = field(default_factory=list)
    """The flips that matter most, the first most of all."""
    groups: GroupCounts = field(default_factory=GroupCounts)

    @property
    def compared(self) -> int:
        """Decisions that were evaluated."""
        return sum(self.matrix.values())

    def count(self, dimension: str, value: str, pair: Pair, number: int = 1) -> None:
        """Count decisions under a slice's value."""
        values = self.slices.setdefault(dimension, {})
        counts = values.get(value)
        if counts is None:
            if len(values) >= MOST_VALUES:
                value = OTHERS
            counts = values.setdefault(value, Counter())
        counts[pair] += number

    def count_hour(self, hour: int, pair: Pair, number: int = 1) -> None:
        """Count decisions under an hour since 1970."""
        key = hour - hour % self.hours_each
        if key not in self.hours and len(self.hours) >= MOST_HOURS and self.hours_each < DAY:
            self._by_day()
            key = hour - hour % self.hours_each
        self.hours.setdefault(key, Counter())[pair] += number

    def _by_day(self) -> None:
        hours, self.hours, self.hours_each = self.hours, {}, DAY
        for hour, counts in hours.items():
            self.hours.setdefault(hour - hour % DAY, Counter()).update(counts)

    def fail(self, kind: str, place: str, message: str) -> None:
        """Count a decision that could not be evaluated."""
        self.errors[kind] += 1
        if len(self.named) < MOST_ERRORS:
            self.named.append((kind, place, message))

    def would_keep(self, order: tuple[Any, ...]) -> bool:
        """Whether a flip of this order is among those that matter most."""
        return len(self.top) < TOP or list(order) < _order(self.top[-1])

    def keep(self, flips: Iterable[dict[str, Any]]) -> None:
        """Keep the flips that matter most of these and those kept before."""
        self.top = sorted([*self.top, *flips], key=_order)[:TOP]

    def add(self, other: Tally) -> None:
        """Take another part's counts in; parts come in the order of the range."""
        self.matrix.update(other.matrix)
        self.other_reasons.update(other.other_reasons)
        self.by_default.update(other.by_default)
        self.out_of_policy += other.out_of_policy
        for rule, cases in other.rules.items():
            self.rules.setdefault(rule, Counter()).update(cases)
        self.blamed.update(other.blamed)
        for dimension, values in other.slices.items():
            for value, pairs in values.items():
                for pair, number in pairs.items():
                    self.count(dimension, value, pair, number)
        if other.hours_each > self.hours_each:
            self._by_day()
        for hour, pairs in other.hours.items():
            for pair, number in pairs.items():
                self.count_hour(hour, pair, number)
        self.causes.update(other.causes)
        self.errors.update(other.errors)
        self.named += other.named[: MOST_ERRORS - len(self.named)]
        self.keep(other.top)
        self.groups.add(other.groups)

    def as_dict(self) -> dict[str, Any]:
        """JSON form, from which `from_dict` makes it again."""
        return {
            "matrix": _listed(self.matrix),
            "other_reasons": _listed(self.other_reasons),
            "by_default": _listed(self.by_default),
            "out_of_policy": self.out_of_policy,
            "rules": {rule: _listed(cases) for rule, cases in self.rules.items()},
            "blamed": _listed(self.blamed),
            "slices": {d: {v: _listed(pairs) for v, pairs in values.items()} for d, values in self.slices.items()},
            "hours": [[hour, _listed(pairs)] for hour, pairs in self.hours.items()],
            "hours_each": self.hours_each,
            "causes": _listed(self.causes),
            "errors": dict(self.errors),
            "named": [list(one) for one in self.named],
            "top": self.top,
            "groups": self.groups.as_dict(),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Tally:
        return cls(
            matrix=_counter(value["matrix"]),
            other_reasons=_counter(value["other_reasons"]),
            by_default=_counter(value["by_default"]),
            out_of_policy=value["out_of_policy"],
            rules={rule: _counter(cases) for rule, cases in value["rules"].items()},
            blamed=_counter(value["blamed"]),
            slices={d: {v: _counter(pairs) for v, pairs in values.items()} for d, values in value["slices"].items()},
            hours={hour: _counter(pairs) for hour, pairs in value["hours"]},
            hours_each=value["hours_each"],
            causes=_counter(value["causes"]),
            errors=Counter(value["errors"]),
            named=[(kind, place, message) for kind, place, message in value["named"]],
            top=list(value["top"]),
            groups=GroupCounts.from_dict(value["groups"]),
        )


def _order(flip: Mapping[str, Any]) -> list[Any]:
    order: list[Any] = flip["order"]
    return order


def _listed(counts: Counter[Any]) -> list[list[Any]]:
    return [[*key, number] for key, number in counts.items()]


def _counter(listed: Iterable[list[Any]]) -> Counter[Any]:
    return Counter({tuple(one[:-1]): one[-1] for one in listed})
