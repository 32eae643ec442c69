"""A backtest in progress: what was found so far, and which stretches are still to come. Can be kept and taken up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import UsageError
from streams.backtest.gaps import Runs
from streams.backtest.part import Part, Seen
from streams.backtest.range_root import RangeRoot
from streams.backtest.sources import Stretch
from streams.backtest.tally import Tally


@dataclass(slots=True)
class Run:
    """Sums over the parts taken in; these come in the order of their stretches."""

    tallies: list[Tally]
    seen: Seen = field(default_factory=Seen)
    root: RangeRoot = field(default_factory=RangeRoot)
    runs: Runs = field(default_factory=Runs)
    done: int = 0
    """How many stretches were taken in."""

    def add(self, stretch: Stretch, part: Part) -> None:
        """Take the next stretch's part in. Raises `UsageError` when no record can be answered by recorded memory."""
        self.seen.add(part.seen)
        self.root.add(stretch.partition, part.leaves)
        self.runs.add(stretch.partition, part.offsets)
        for mine, theirs in zip(self.tallies, part.tallies, strict=True):
            mine.add(theirs)
        self.done += 1
        self._stop_early()

    def _stop_early(self) -> None:
        """What can't be answered at all is said after the first stretch, not after the last."""
        for tally in self.tallies:
            if not tally.matrix and tally.errors["memory"] and set(tally.errors) == {"memory"}:
                _, place, message = tally.named[0]
                raise UsageError(message, where=place, help="use `--memory as-of` where the store is")

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "tallies": [tally.as_dict() for tally in self.tallies],
            "seen": self.seen.as_dict(),
            "root": self.root.as_dict(),
            "runs": self.runs.as_dict(),
            "done": self.done,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Run:
        return cls(
            [Tally.from_dict(tally) for tally in value["tallies"]],
            Seen.from_dict(value["seen"]),
            RangeRoot.from_dict(value["root"]),
            Runs.from_dict(value["runs"]),
            value["done"],
        )
