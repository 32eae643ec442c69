"""The search: every single change, then pairs from the nearest on, each checked by deciding again in full."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_service.recall import Asked, Recall, nothing_known, recorded
from schemas.errors import IntegrityError, LumynError, MemoryUnavailable, UsageError
from schemas.ids import time_ms_of
from schemas.reasons import INTERNAL_ERROR
from schemas.record import ENGINE
from schemas.request import parse_request
from schemas.verdict import Verdict
from streams.arbitration import arbitrate
from streams.counterfactual.changes import Change, Situation, all_changes, held_facts
from streams.counterfactual.spans import Run, run_round, runs_of_pair
from streams.decide import decide
from streams.integrity import position_of, recorded_control
from streams.policy import CompiledPolicy
from streams.policy.policy import Fired
from streams.sealing import require_open

MOST_SINGLES = 20_000
MOST_PAIRS = 50_000
_LOOKED_AT = 10
Recalls = Callable[[Asked], Recall]
NOTHING_LIKE_IT = "any memory of the like"


@dataclass(frozen=True, slots=True)
class Decided:
    """A verdict with its reasons."""

    verdict: Verdict
    reason_codes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A smallest change that alters the verdict: no part of it does so alone. Decided again in full before it is given.

    `alike`: other values of the same field that do the same. `spans`: for each change of a number the run of points
    round it that do, in order; all of the one with all of the other, where there are two.
    `asked_again`: what is decided where memory is asked again for the changed request; None where it was not.
    """

    changes: tuple[Change, ...]
    distance: float
    decided: Decided
    spans: tuple[Run, ...]
    alike: tuple[Any, ...] = ()
    asked_again: Decided | None = None


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found, nearest first, and how far was looked.

    `complete`: every change in `fields`, and where none was found every pair of them, was tried; else the bound ended
    it. `held`: facts that rules compare and no change was tried of. `recalled`: memory was asked when it was decided.
    """

    original: Decided
    wanted: Verdict | None
    found: tuple[Counterfactual, ...]
    fields: int
    singles: int
    pairs: int
    complete: bool
    held: tuple[str, ...]
    recalled: bool
    notes: tuple[str, ...]


def counterfactuals(
    record: Mapping[str, Any],
    policy: CompiledPolicy,
    *,
    wanted: Verdict | None = None,
    limit: int = 5,
    recalls: Recalls | None = None,
    most_singles: int = MOST_SINGLES,
    most_pairs: int = MOST_PAIRS,
) -> Searched:
    """The nearest changes after which the recorded policy gives another verdict (`wanted`, where that is given).

    The recorded recall is held: what memory answered stays, whatever is changed of the request. `recalls` asks the
    memory as of the decision; with it a single neighbour is left out exactly, and what is found is decided once more
    with memory asked for the changed request. Pairs are tried only where no single change is enough. Raises `Erased`,
    `KeyMissing`; `UsageError` for a decision that can't be made again; `IntegrityError` when it comes out otherwise.
    """
    start = _situation(record)
    base = _Judge(record, policy)
    original = base.decide(start)
    if original is None or original.verdict != record["verdict"]:
        raise IntegrityError(
            "the recorded inputs do not give the recorded verdict", where=f"decision {record['decision_id']}",
            help="`lumyn verify` and `lumyn replay` say more",
        )  # fmt: skip
    notes: list[str] = []
    without = _without(record, policy, start, recalls, notes)
    tried = all_changes(policy, start, without)
    singles = tried[:most_singles]
    found = _single(base, start, singles, original, wanted)
    pairs, complete = 0, len(singles) == len(tried)
    if not found:
        found, pairs, all_pairs = _pairs(base, start, singles, original, wanted, limit, most_pairs)
        complete = complete and all_pairs
    found = [_asked_again(one, base, start, policy, recalls, notes) for one in found[:limit]]
    if any(change.of == "action.type" for one in found for change in one.changes):
        notes.append("kill switches that were on for another action type are not in the record")
    return Searched(
        original, wanted, tuple(found), len({change.of for change in tried}), len(singles), pairs, complete,
        tuple(held_facts(policy)), start.recall.mode != "off", tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _situation(record: Mapping[str, Any]) -> Situation:
    if INTERNAL_ERROR in record["reason_codes"]:
        raise UsageError("its evaluation raised when it was decided: what would have changed it can't be told")
    if record["engine"] != ENGINE:
        said = f"it was decided by engine `{record['engine']}`, and this is `{ENGINE}`"
        raise UsageError(said, help="`lumyn replay` compares them")
    request = require_open(record)["request"]
    return Situation(request, time_ms_of(record["created_at"]), recorded_control(record), recorded(record))


def _without(
    record: Mapping[str, Any], policy: CompiledPolicy, start: Situation, recalls: Recalls | None, notes: list[str]
) -> dict[str, Recall]:
    """What memory would have answered without each neighbour that counted, and knowing nothing like it."""
    if policy.memory is None or start.recall.mode == "off":
        return {}
    names = list(dict.fromkeys(hit.memory_id for hit in start.recall.counted))
    out: dict[str, Recall] = {}
    if recalls is None:
        if names:
            notes.append("a single neighbour can be left out only where the memory is: here memory is left out whole")
        names = []
    for name in names:
        assert recalls is not None
        try:
            answer = recalls(_asked(record, policy, start.request, name))
        except MemoryUnavailable as error:
            notes.append(f"no neighbour could be left out: {error.message}")
            break
        if not answer.available:
            notes.append("no neighbour could be left out: the memory can't answer")
            break
        out[name] = answer
    return out | {NOTHING_LIKE_IT: nothing_known(start.recall)}


def _asked(
    record: Mapping[str, Any], policy: CompiledPolicy, request: dict[str, Any], leave_out: str | None = None
) -> Asked:
    assert policy.memory is not None
    version = record["memory"]["version"] or 0
    return Asked(request, policy.memory, version, leave_out, time_ms_of(record["created_at"]))


class _Judge:
    """The verdict of a situation: at once for the search, in full by `decide` for what is given."""

    def __init__(self, record: Mapping[str, Any], policy: CompiledPolicy) -> None:
        self.record = record
        self._policy = policy
        self._known: dict[tuple[int, Fired], Verdict] = {}
        self._facts: dict[int, tuple[Recall, dict[str, Any] | None]] = {}

    def verdict(self, now: Situation) -> Verdict:
        """As `decide` gives it, without the record."""
        request, policy = now.request, self._policy
        if now.control.switches and now.control.switches_for(
            request["tenant"], request["action"]["type"], policy.name
        ):
            return "DENY"
        if now.control.stale:
            return "ABSTAIN"
        number = id(now.recall)
        if number not in self._facts:
            self._facts[number] = now.recall, now.recall.memory_facts()
        fired = policy.fired(request, time_ms=now.time_ms, memory=self._facts[number][1])
        known = self._known.get((number, fired))
        if known is None:
            known = self._known[number, fired] = arbitrate(policy, policy.evaluation_of(fired), now.recall).verdict
        return known

    def decide(self, now: Situation) -> Decided | None:
        """The whole decision, made again; None for a request that could not be asked."""
        try:
            request = parse_request(now.request)
        except LumynError:
            return None
        position = replace(position_of(self.record), time_ms=now.time_ms)
        record = decide(request, position, self._policy, now.control, now.recall).record
        return Decided(record["verdict"], tuple(record["reason_codes"]))


def _flips(verdict: str, original: Decided, wanted: Verdict | None) -> bool:
    return verdict != original.verdict and wanted in (None, verdict)


def _single(
    judge: _Judge, start: Situation, singles: Sequence[Change], original: Decided, wanted: Verdict | None
) -> list[Counterfactual]:
    """Single changes that flip, nearest first: of a field the nearest to each side, and to each verdict."""
    verdicts = [judge.verdict(change.apply(start)) for change in singles]
    order = sorted(range(len(singles)), key=lambda at: _rank((singles[at],)))
    out: list[Counterfactual] = []
    at_kind: dict[tuple[Any, ...], int] = {}
    for at in order:
        change = singles[at]
        if not _flips(verdicts[at], original, wanted):
            continue
        span = run_round(at, singles, lambda one, like=at: verdicts[one] == verdicts[like])  # type: ignore[misc]
        kind = (change.of, change.kind, verdicts[at], _side(change, span))
        if kind in at_kind:
            named = change.kind in ("value", "supplied") and not change.unnamed and not span
            if named and judge.decide(change.apply(start)) is not None:
                known = out[at_kind[kind]]
                out[at_kind[kind]] = replace(known, alike=(*known.alike, change.now))
            continue
        decided = judge.decide(change.apply(start))
        if decided is None or not _flips(decided.verdict, original, wanted):
            continue
        at_kind[kind] = len(out)
        out.append(Counterfactual((change,), change.distance, decided, (span,)))
    return out


def _side(change: Change, span: Run) -> Any:
    """Of a number the side that it is changed to; of one that was not there the run that it is in."""
    if change.kind == "number":
        return 1 if change.now > change.was else -1
    return span[0].now if span else None


def _rank(changes: Sequence[Change]) -> tuple[Any, ...]:
    off = sum(abs(one.now - (one.was if one.kind == "number" else 0)) for one in changes if one.point is not None)
    names = [(one.of, one.kind, one.unnamed, str(one.now)) for one in changes]
    return (round(sum(one.distance for one in changes), 12), off, names)


def _pairs(
    judge: _Judge,
    start: Situation,
    singles: Sequence[Change],
    original: Decided,
    wanted: Verdict | None,
    limit: int,
    most: int,
) -> tuple[list[Counterfactual], int, bool]:
    """The nearest pairs of changes of two fields that flip, how many were tried, and whether those were all."""
    out: list[Counterfactual] = []
    tried = 0
    looked = 0
    fields: set[tuple[Any, ...]] = set()
    order = sorted(range(len(singles)), key=lambda at: _rank((singles[at],)))
    for a, b in _by_distance([singles[at].distance for at in order]):
        first, second = singles[order[a]], singles[order[b]]
        looked += 1
        if tried >= most or looked > _LOOKED_AT * most:
            return out, tried, False
        if first.of == second.of:
            continue
        tried += 1
        now = second.apply(first.apply(start))
        verdict = judge.verdict(now)
        if not _flips(verdict, original, wanted):
            continue
        kind = (frozenset((first.of, second.of)), verdict)
        decided = None if kind in fields else judge.decide(now)
        if decided is None or not _flips(decided.verdict, original, wanted):
            continue
        fields.add(kind)
        runs = runs_of_pair(order[a], order[b], singles, start, judge.verdict)
        out.append(Counterfactual((first, second), first.distance + second.distance, decided, runs))
        if len(out) == limit:
            return out, tried, True
    return out, tried, True


def _by_distance(distances: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Pairs of places in an ascending list, by the sum of what is there."""
    waiting = [(distances[0] + distances[1], 0, 1)] if len(distances) > 1 else []
    while waiting:
        _, first, second = heapq.heappop(waiting)
        yield first, second
        if second + 1 < len(distances):
            heapq.heappush(waiting, (distances[first] + distances[second + 1], first, second + 1))
            if second == first + 1:
                heapq.heappush(waiting, (distances[second] + distances[second + 1], second, second + 1))


def _asked_again(
    one: Counterfactual,
    judge: _Judge,
    start: Situation,
    policy: CompiledPolicy,
    recalls: Recalls | None,
    notes: list[str],
) -> Counterfactual:
    """The same with what is decided where memory is asked for the changed request."""
    touched = any(change.is_of_request for change in one.changes)
    if recalls is None or policy.memory is None or start.recall.mode == "off" or not touched:
        return one
    now = start
    for change in one.changes:
        now = change.apply(now)
    try:
        answer = recalls(_asked(judge.record, policy, now.request))
    except MemoryUnavailable as error:
        notes.append(f"memory could not be asked again: {error.message}")
        return one
    if not answer.available or any(change.kind == "memory" for change in one.changes):
        return one
    return replace(one, asked_again=judge.decide(replace(now, recall=answer)))
