"""Choosing decisions by their ids before any is evaluated: the latest N, or a sample stratified by recorded verdict."""

from __future__ import annotations

import heapq
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from schemas.canonical import decode_trusted
from schemas.errors import LumynError
from streams.backtest.chosen import Chosen, id_of
from streams.backtest.outcomes import Outcomes
from streams.backtest.raw import Raw
from streams.diff import MISSHAPEN, checked_record

_TAIL = re.compile(rb'"tenant":("(?:[^"\\]|\\.)*"),"verdict":"(ALLOW|DENY|ESCALATE|ABSTAIN)"\}\Z')
"""How canonical records end."""
_TAIL_BYTES = 400
UNSOUND = "(unsound)"


def found_in(raws: Iterable[Raw], chosen: Chosen, outcomes: Outcomes) -> Iterable[tuple[str, str]]:
    """(id, recorded verdict) of what will be taken. Without a query nothing is decoded; records are checked later."""
    for raw in raws:
        name = id_of(raw)
        if name is None:
            continue
        tail = _TAIL.search(raw.value, max(0, len(raw.value) - _TAIL_BYTES))
        if tail is None or chosen.query is not None:
            try:
                record = checked_record(raw.value)
                if chosen.takes(record, outcomes.of(name, record["verdict"]).label):
                    yield name, record["verdict"]
            except (LumynError, *MISSHAPEN):
                yield name, UNSOUND
        elif chosen.tenant is None or decode_trusted(tail[1]) == chosen.tenant:
            yield name, tail[2].decode()


class Latest:
    """The ids of the latest decisions, at most `count`."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._ids: list[str] = []

    def add(self, name: str) -> None:
        """Take a decision in."""
        if len(self._ids) < self._count:
            heapq.heappush(self._ids, name)
        elif name > self._ids[0]:
            heapq.heapreplace(self._ids, name)

    def of(self, chosen: Chosen) -> Chosen:
        """The choice, narrowed to them. Ids are in the order of time."""
        return replace(chosen, since=self._ids[0] if self._ids else None)


@dataclass(slots=True)
class Stratified:
    """A random sample of `count` ids, as many of each recorded verdict as there are, up to an equal share.

    Reservoir sampling in each stratum (Vitter 1985, algorithm R). Records that are not sound are all taken: each is to
    be named.
    """

    count: int
    seed: int
    sizes: Counter[str] = field(default_factory=Counter)
    _kept: dict[str, list[str]] = field(default_factory=dict)
    _unsound: list[str] = field(default_factory=list)
    _pick: random.Random | None = None

    def add(self, name: str, verdict: str) -> None:
        """Take a decision in; always in the same order, so that a seed gives the same sample."""
        if verdict == UNSOUND:
            self._unsound.append(name)
            return
        if self._pick is None:
            self._pick = random.Random(self.seed)
        self.sizes[verdict] += 1
        kept = self._kept.setdefault(verdict, [])
        if len(kept) < self.count:
            kept.append(name)
        elif (at := self._pick.randrange(self.sizes[verdict])) < self.count:
            kept[at] = name

    def of(self, chosen: Chosen) -> tuple[Chosen, dict[str, float]]:
        """The choice, narrowed to the sample, and how many decisions one of each verdict stands for."""
        pick = random.Random(self.seed + 1)
        ids, weights = set(self._unsound), {}
        for verdict, share in shares(self.sizes, self.count).items():
            ids.update(pick.sample(self._kept[verdict], share))
            weights[verdict] = self.sizes[verdict] / share
        return replace(chosen, ids=frozenset(ids)), weights


def shares(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    """How many of each stratum: equal shares; what a small one can't fill goes to the others. At least one of each."""
    left, out = max(count, len(sizes)), {}
    for place, verdict in enumerate(sorted(sizes, key=lambda one: (sizes[one], one))):
        out[verdict] = min(sizes[verdict], left // (len(sizes) - place))
        left -= out[verdict]
    return out
