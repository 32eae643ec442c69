"""What evaluating a stretch gives: counts for each candidate, what was met on the way, and its records' leaves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import IntegrityError, LumynError
from streams.backtest.blame import blamed
from streams.backtest.candidate import Result
from streams.backtest.case import Case
from streams.backtest.groups import GroupCounts, Heading
from streams.backtest.panel import Answers
from streams.backtest.raw import Raw
from streams.backtest.tally import MOST_ERRORS, Tally
from streams.merkle import leaf_hash

_KINDS = {"erased": "erased", "key_missing": "sealed"}
"""What nothing opens: because its subject was forgotten, or because the keys are elsewhere."""
Cell = tuple[Result, str | None, int, tuple[str, ...]]
"""What decisions are alike in: recorded result, meaning, hour since 1970, and a value in each dimension."""


Marks = dict[Heading, list[int]]
"""Groups of the decisions under each heading, one entry a decision."""


_Kind = tuple[str, str, str, str, str, str | None]
"""A policy's hash, name and version, recorded verdict, engine, meaning; counted with the first and the last time."""


@dataclass(slots=True)
class Seen:
    """What was met in a range, whatever the candidates say. Parts are added in the order of the range."""

    read: int = 0
    """Messages or lines that were read."""
    taken: int = 0
    """Sound decisions that were evaluated."""
    labelled: Counter[str] = field(default_factory=Counter)
    """By meaning: harmful, fine, neutral."""
    verdicts: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    policies: dict[str, list[Any]] = field(default_factory=dict)
    """By hash: name@version, the first decision's time (ms), how many."""
    first_ms: int | None = None
    last_ms: int | None = None
    refused: Counter[str] = field(default_factory=Counter)
    """Records that could not be evaluated, by kind: integrity, schema."""
    named: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, other: Seen) -> None:
        """Take another part in."""
        self.read += other.read
        self.taken += other.taken
        for mine, theirs in (
            (self.labelled, other.labelled),
            (self.verdicts, other.verdicts),
            (self.engines, other.engines),
            (self.refused, other.refused),
        ):
            mine.update(theirs)
        for hash_, (name, first, count) in other.policies.items():
            known = self.policies.setdefault(hash_, [name, first, 0])
            known[1], known[2] = min(known[1], first), known[2] + count
        for ms in (other.first_ms, other.last_ms):
            self.note_time(ms)
        self.named += other.named[: MOST_ERRORS - len(self.named)]

    def note(self, kind: _Kind, number: int, first: int, last: int) -> None:
        """Count decisions of a kind, made between two times (ms)."""
        hash_, name, version, verdict, engine, meaning = kind
        self.taken += number
        self.verdicts[verdict] += number
        self.engines[engine] += number
        if meaning is not None:
            self.labelled[meaning] += number
        known = self.policies.setdefault(hash_, [f"{name}@{version}", first, 0])
        known[1], known[2] = min(known[1], first), known[2] + number
        self.note_time(first)
        self.note_time(last)

    def note_time(self, ms: int | None) -> None:
        """Widen the time span."""
        if ms is not None:
            self.first_ms = ms if self.first_ms is None else min(self.first_ms, ms)
            self.last_ms = ms if self.last_ms is None else max(self.last_ms, ms)

    def refuse(self, raw: Raw, error: LumynError) -> None:
        """Count a record that can't be evaluated, and name it."""
        kind = _KINDS.get(error.code, "integrity" if isinstance(error, IntegrityError) else "schema")
        self.refused[kind] += 1
        if len(self.named) < MOST_ERRORS:
            self.named.append((kind, raw.place, error.message))

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Seen:
        made = cls(**value)
        for name in ("labelled", "verdicts", "engines", "refused"):
            setattr(made, name, Counter(value[name]))
        made.named = [(kind, place, message) for kind, place, message in value["named"]]
        return made


@dataclass(slots=True)
class Part:
    """A stretch's share of the whole."""

    seen: Seen
    tallies: list[Tally]
    leaves: bytes
    """32 bytes a record: the hash of its Merkle leaf, in order."""
    offsets: list[tuple[int, int]]
    """Runs [first, last] of request offsets that records spoke of, in order."""
    notes: list[Any]
    """What was noted of flips, if that was asked for."""


class Counting:
    """A part in the making: like decisions are counted together first, and put under each heading at the end."""

    def __init__(self, panels: Sequence[Sequence[int]]) -> None:
        """`panels`: the places of the candidates that are asked together, panel by panel."""
        candidates = sum(map(len, panels))
        self.seen = Seen()
        self.tallies = [Tally() for _ in range(candidates)]
        self._panels = panels
        self._cells: dict[Cell, list[dict[Answers, int]]] = {}
        self._shared: Marks = {}
        self._marks: list[Marks] = [{} for _ in range(candidates)]
        self._out: list[Marks] = [{} for _ in range(candidates)]
        self._leaves: list[bytes] = []
        self._offsets: list[tuple[int, int]] = []
        self._kinds: dict[_Kind, list[int]] = {}
        self.notes: list[Any] = []

    def met(self, offset: int) -> None:
        """A sound record speaks of this request offset, whether or not it is taken."""
        if self._offsets and self._offsets[-1][1] == offset - 1:
            self._offsets[-1] = (self._offsets[-1][0], offset)
        else:
            self._offsets.append((offset, offset))

    def take(self, record_digest: str) -> None:
        """A sound record belongs to the range."""
        self._leaves.append(leaf_hash(bytes.fromhex(record_digest[7:])))

    def took(self, case: Case, meaning: str | None) -> None:
        """It was one that has the form."""
        seen, time_ms = case.seen, case.time_ms
        policy = seen.policy
        kind = (policy.hash, policy.name, policy.version, seen.verdict, seen.engine, meaning)
        known = self._kinds.get(kind)
        if known is None:
            self._kinds[kind] = [1, time_ms, time_ms]
            return
        known[0] += 1
        if time_ms > known[2]:
            known[2] = time_ms
        elif time_ms < known[1]:
            known[1] = time_ms

    def refuse(self, raw: Raw, error: LumynError, *, leaf: bool) -> None:
        """A record that can't be evaluated; its bytes are its leaf, where it was not taken before."""
        self.seen.refuse(raw, error)
        if leaf:
            self._leaves.append(leaf_hash(hashlib.sha256(raw.value).digest()))

    def cell(self, key: Cell) -> list[dict[Answers, int]]:
        """Where answers on decisions like this are counted, one mapping a panel."""
        known = self._cells.get(key)
        if known is None:
            known = self._cells[key] = [{} for _ in self._panels]
        return known

    def mark(self, case: Case) -> None:
        """Count a decision under its cluster's group, by what was recorded: the same for every candidate."""
        _mark(self._shared, case)

    def leave_out(self, k: int, case: Case) -> None:
        """This candidate could not be asked about a decision that was marked for all."""
        _mark(self._out[k], case)

    def mark_flip(self, k: int, case: Case, new: str) -> None:
        """Count a flip under its group; what is right now, and was not before, too (or the other way)."""
        marks, old, meaning = self._marks[k], case.old.verdict, case.outcome.meaning
        _put_mark(marks, "flips", old, case.group)
        _put_mark(marks, f"to_{new}", old, case.group)
        if meaning in ("harmful", "fine") and (old == "ALLOW") != (new == "ALLOW"):
            gained = (new == "ALLOW") == (meaning == "fine")
            _put_mark(marks, f"{meaning}_{'gained' if gained else 'lost'}", old, case.group)

    def finished(self, dimensions: Sequence[str], defaults: Sequence[str]) -> Part:
        """The part; `defaults` are the candidates' default verdicts."""
        for kind, (number, first, last) in self._kinds.items():
            self.seen.note(kind, number, first, last)
        for (old, meaning, hour, values), results in self._cells.items():
            named = list(zip(dimensions, values, strict=True))
            for numbers, counts in zip(self._panels, results, strict=True):
                for answers, number in counts.items():
                    for k, new in zip(numbers, answers.results, strict=True):
                        if new is not None:
                            _put(self.tallies[k], old, new, meaning, hour, named, defaults[k], number)
        shared = GroupCounts()
        for heading, groups in self._shared.items():
            shared.add_all(heading, groups)
        for tally, marks, out in zip(self.tallies, self._marks, self._out, strict=True):
            tally.groups.add(shared)
            for heading, groups in marks.items():
                tally.groups.add_all(heading, groups)
            for heading, groups in out.items():
                tally.groups.add_all(heading, groups, [-1] * len(groups))
        return Part(self.seen, self.tallies, b"".join(self._leaves), self._offsets, self.notes)


def _put_mark(marks: Marks, what: str, verdict: str, group: int) -> None:
    known = marks.get((what, verdict))
    if known is None:
        known = marks[what, verdict] = []
    known.append(group)


def _mark(marks: Marks, case: Case) -> None:
    """A decision; where its outcome is known, also whether the recorded verdict was right."""
    verdict, meaning = case.old.verdict, case.outcome.meaning
    _put_mark(marks, "compared", verdict, case.group)
    if meaning in ("harmful", "fine"):
        _put_mark(marks, meaning, verdict, case.group)
        if (verdict == "ALLOW") == (meaning == "fine"):
            _put_mark(marks, f"{meaning}_right", verdict, case.group)


def _put(
    tally: Tally,
    old: Result,
    new: Result,
    meaning: str | None,
    hour: int,
    named: Sequence[tuple[str, str]],
    default: str,
    number: int,
) -> None:
    """Count decisions that are alike under every heading of a tally."""
    pair = (old.verdict, new.verdict, meaning)
    tally.matrix[pair] += number
    if new.by_default:
        tally.by_default[(old.verdict,)] += number
    for dimension, value in named:
        tally.count(dimension, value, pair, number)
    tally.count_hour(hour, pair, number)
    before = {name: outcome for name, outcome, _ in old.rules}
    after = {name: outcome for name, outcome, _ in new.rules}
    for rule in {**before, **after}:
        case = (before.get(rule, ""), after.get(rule, ""), *pair)
        tally.rules.setdefault(rule, Counter())[case] += number
    if old.verdict != new.verdict:
        for rule in blamed(old, new, default):
            tally.blamed[rule, old.verdict, new.verdict] += number
    elif old.reason_codes != new.reason_codes:
        tally.other_reasons[(old.verdict,)] += number
