"""Rates in recorded traffic: of what a query finds, and of the neighbourhood of one decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lumyn.home import Home
from lumyn.lookup import sound_record
from lumyn.searching import understood
from lumyn.stores import chosen_vectoriser
from memory_service.blocks import score_of
from memory_service.profile import remembered_part
from memory_service.record_index import IndexedRecord, facts_of
from memory_service.redaction import memory_paths
from memory_service.vectoriser import query_of
from schemas.errors import IntegrityError, LumynError, UsageError
from schemas.ids import iso_time
from schemas.policy import MemorySettings
from schemas.query import And, Expression, Field, OneOf, Query, Range
from schemas.seal import is_sealed
from streams.diff import MISSHAPEN, checked_record
from streams.factor_changes import changes
from streams.factors import Observed, bands, factors_of, names, rate_of, values
from streams.index_sync import fetcher
from streams.outcome import ABSENT, NoOutcome, Outcome
from streams.reading import messages
from streams.request_factors import shown
from streams.sealing import opened_record, require_open
from streams.statistics.cluster_sums import ClusterSums
from streams.statistics.clusters import cluster_proportion, wideness
from streams.topics import RECORDS

_AT_ONCE = 1000
_MOST_CHANGES = 50
_MOST_VALUES = 20
_CREATED = Field("created_at", "time")
Seen = tuple[IndexedRecord, Mapping[str, Any]]


@dataclass(slots=True)
class LeftOut:
    """What was not counted: erased or closed decisions where their words are needed, and records that are unsound."""

    closed: int = 0
    unsound: int = 0


def rows_of(
    home: Home,
    query: str | None,
    say: Callable[[str], None],
    *,
    start: int | None = None,
    end: int | None = None,
    also: Sequence[Expression] = (),
) -> list[IndexedRecord]:
    """The tenant's decisions that fit a query, from `start` up to `end` (not included; ms), oldest first."""
    parts: list[Expression] = [*also]
    if query is not None:
        parts.insert(0, understood(home, query, say).expression)
    if start is not None or end is not None:
        parts.append(Range(_CREATED, start, end, below=True))
    parsed = Query(query or "", And(tuple(parts))) if parts else None
    return home.index().find(parsed, tenant=home.settings.tenant, newest_first=False, fetch=fetcher(home.log))


def recorded(home: Home, rows: Sequence[IndexedRecord], left_out: LeftOut) -> Iterator[Seen]:
    """The rows with their records, opened where this home's keys can, partition by partition; unsound ones are

    counted and left out.
    """
    wanted: dict[int, dict[int, IndexedRecord]] = {}
    for row in rows:
        wanted.setdefault(row.partition, {})[row.offset] = row
    for partition, at in wanted.items():
        last = max(at)
        for message in messages(home.log, RECORDS, partition, min(at)):
            named = at.get(message.offset)
            if named is not None:
                try:
                    record = opened_record(home.log.keys, checked_record(message.value))
                    if record["tenant"] != home.settings.tenant or record["decision_id"] != named.decision_id:
                        raise IntegrityError("the record is not the one that the index names")
                except (LumynError, *MISSHAPEN):
                    left_out.unsound += 1
                else:
                    yield named, record
            if message.offset >= last:
                break


def outcome_in(outcome: Outcome, row: IndexedRecord, record: Mapping[str, Any]) -> str:
    """What a recorded decision counts as; `action.type`, `verdict`, `label`, `evidence.NAME`, `provenance.NAME`."""
    try:
        return outcome.of_value(facts_of(record, row.label))
    except NoOutcome:
        return ABSENT


@dataclass(frozen=True, slots=True)
class _One:
    row: IndexedRecord
    outcome: str
    factors: Mapping[str, str]


def rate_of_query(
    home: Home,
    query: str | None,
    outcome: Outcome,
    *,
    event: str | None,
    bad: str | None,
    like: str | None = None,
    similarity: float = 0.9,
    say: Callable[[str], None],
    tick: Callable[[int], None] = lambda count: None,
) -> dict[str, Any]:
    """The rate of an event in recorded traffic, before and after each change of what stood around it.

    The event: what `bad` (a query) finds, else the outcome `event`, else with `like` the outcome of that decision.
    Raises `BadQuery`, `NotFound`, `Erased`, `UsageError`.
    """
    if outcome.is_exit_code or outcome.pattern is not None:
        raise UsageError("recorded traffic has fields, not answers", help="`--outcome` is a path: verdict, action.type")
    also: list[Expression] = []
    given: Mapping[str, Any] | None = None
    own: str | None = None
    if like is not None:
        given = require_open(sound_record(home, like)[1])
        own = str(given["decision_id"])
        if not outcome.is_of_the_action:
            also.append(OneOf(Field("action_type", "text"), (given["request"]["action"]["type"],)))
    left_out = LeftOut()
    rows = rows_of(home, query, say, also=also)
    if own is not None and given is not None:
        row = next(iter(rows_of(home, None, say, also=[OneOf(Field("decision_id", "id"), (own,))])), None)
        if event is None and bad is None and row is not None:
            event = outcome_in(outcome, row, given)
        rows = [one for one in rows if one.decision_id != own]
    bad_ids = None if bad is None else {one.decision_id for one in rows_of(home, bad, say)}
    seen = recorded(home, rows, left_out)
    if given is not None:
        seen = _near(home, given, seen, outcome, similarity, left_out, tick)
    found = []
    hidden = memory_paths(home.settings.redact)
    for one, record in seen:
        factors = shown(factors_of(record), hidden)
        if bad is None and outcome.is_of_the_action:
            del factors["action_type"]  # it is what is measured, not what stood around it
        found.append(_One(one, outcome_in(outcome, one, record), factors))
        tick(1)
    found.sort(key=lambda one: one.row.decision_id)

    def is_event(one: _One) -> bool:
        return one.row.decision_id in bad_ids if bad_ids is not None else one.outcome == event

    observed = [
        Observed(one.row.created_ms, one.row.subject_id or one.row.decision_id, is_event(one), one.factors)
        for one in found
    ]
    counts = Counter(one.outcome for one in found)
    out: dict[str, Any] = {
        "query": query,
        "like": own,
        "similarity": similarity if own is not None else None,
        "decisions": len(found),
        "closed": left_out.closed,
        "unsound": left_out.unsound,
        "outcome": outcome.text,
        "outcomes": [
            {"outcome": name, **rate_of(count, len(found))}
            for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        ],
        "bands": None
        if (some := bands([one.outcome for one in found])) is None
        else [{"outcome": name, **rate_of(count, len(found))} for name, count in some],
        "event": None,
        "changes": [],
        "not_compared": [],
        "by": {},
    }
    if bad is not None or event is not None:
        out["event"] = {"bad": bad, "outcome": event if bad is None else None, **rate_by_subject(observed)}
        told, ids = changes(observed)
        out["changes"] = [{"at": iso_time(one.at_ms), **one.as_dict()} for one in told[:_MOST_CHANGES]]
        out["not_compared"] = ids
        out["by"] = {name: by for name in names(observed) if name not in ids and len(by := _by(observed, name)) > 1}
    return out


def _near(
    home: Home,
    given: Mapping[str, Any],
    seen: Iterator[Seen],
    outcome: Outcome,
    similarity: float,
    left_out: LeftOut,
    tick: Callable[[int], None],
) -> Iterator[Seen]:
    """Those whose requests are at least so similar, exactly: weighed as a policy without a say of its own does.

    Where the outcome is the action itself, similarity is of what the agent was given, and of its intent alone.
    """
    vectoriser = chosen_vectoriser(home.settings, home.agent.control().memory)

    def part(record: Mapping[str, Any]) -> dict[str, Any]:
        whole = remembered_part(record["request"])
        if outcome.is_of_the_action:
            intent = whole["action"].get("intent")
            whole = {**whole, "action": {"type": "", **({"intent": intent} if intent else {})}}
        return whole

    asked = vectoriser.vectorise([part(given)])[0]
    query = query_of(asked, MemorySettings().weights).full
    if not query.any():
        raise UsageError(
            "this decision's request holds nothing that it could be compared by",
            help="evidence, context.inline or action.intent make a request comparable; or use `--query`",
        )
    batch: list[Seen] = []

    def chosen() -> Iterator[Seen]:
        vectors = vectoriser.vectorise([part(record) for _, record in batch])
        dots = np.array([vector.values for vector in vectors], dtype=np.float32) @ query
        for one, vector, dot in zip(batch, vectors, dots.tolist(), strict=True):
            same = np.array_equal(vector.values, asked.values)  # rounding must not part what is wholly alike
            if same or score_of(int(dot)) >= similarity:
                yield one
        batch.clear()

    for one in seen:
        tick(1)
        if is_sealed(one[1]):
            left_out.closed += 1
            continue
        batch.append(one)
        if len(batch) == _AT_ONCE:
            yield from chosen()
    if batch:
        yield from chosen()


def rate_by_subject(observed: Sequence[Observed]) -> dict[str, Any]:
    """The event's rate, with an interval that knows that decisions share subjects.

    `{n, events, rate, lower, upper, method, subjects, warnings}`; the rate of nothing is None.
    """
    if not observed:
        return {**rate_of(0, 0), "method": "nothing was observed", "subjects": 0, "warnings": []}
    sums = ClusterSums()
    for one in observed:
        sums.add(one.subject, float(one.event))
    interval, wide = cluster_proportion(sums), wideness(sums)
    return {
        "n": len(observed),
        "events": sum(one.event for one in observed),
        "rate": interval.estimate,
        "lower": interval.lower,
        "upper": interval.upper,
        "method": interval.method,
        "subjects": wide.clusters,
        "warnings": list(interval.warnings),
    }


def _by(observed: Sequence[Observed], name: str) -> list[dict[str, Any]]:
    """The event's rate by a factor's values, in the order of their first appearance."""
    at: dict[str, list[Observed]] = {}
    for one, value in zip(observed, values(observed, name), strict=True):
        at.setdefault(value, []).append(one)
    return [
        {
            "value": value,
            "first": iso_time(some[0].at_ms),
            "last": iso_time(some[-1].at_ms),
            **rate_of(sum(one.event for one in some), len(some)),
        }
        for value, some in list(at.items())[:_MOST_VALUES]
    ]
