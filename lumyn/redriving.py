"""Redrive: deciding recorded requests again, as new decisions that say which one they follow.

A decision's second try has the request_id `redrive/<decision_id>`: sending it twice gives the same record, so a redrive
that was broken off is simply run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lumyn.home import Home
from memory_service.record_index import IndexedRecord
from schemas.canonical import decode_trusted
from schemas.errors import IntegrityError, LumynError, StorageUnavailable
from schemas.query import parse_query
from schemas.reasons import CONTROL_STALE, INTERNAL_ERROR, STORAGE_UNAVAILABLE
from schemas.request import Request, parse_request
from schemas.seal import OpenRecord
from streams.index_sync import fetcher
from streams.integrity import check_record, require
from streams.sealing import opened_record, require_open, seal_requests
from streams.topics import RECORDS

_AT_ONCE = 100
_ASK = 50
_OUTAGES = frozenset({STORAGE_UNAVAILABLE, CONTROL_STALE})
_TROUBLES = ", ".join(sorted({*_OUTAGES, INTERNAL_ERROR}))


@dataclass(frozen=True, slots=True)
class Redriven:
    """A decision and what it became: `outcome` decided, duplicate (it was redriven before), or failed with an `error`.

    `new_id`, `verdict` and `reason_codes` are the new decision's.
    """

    old: IndexedRecord
    outcome: str
    new_id: str | None = None
    verdict: str | None = None
    reason_codes: tuple[str, ...] = ()
    error: LumynError | None = None


def request_id_of(decision_id: str) -> str:
    """The request_id of a decision's redrive."""
    return f"redrive/{decision_id}"


def waiting(home: Home, rows: Sequence[IndexedRecord]) -> list[IndexedRecord]:
    """Those of the decisions that are to be redriven, as far as the index knows; deciding finds the rest.

    Not those that were redriven, nor redrives themselves, unless trouble left these undecided too.
    """
    left = []
    for start in range(0, len(rows), _ASK):
        some = rows[start : start + _ASK]
        names = ", ".join(f"'{row.decision_id}'" for row in some)
        again = _redrives(home, f"provenance.redrive_of IN ({names})")
        settled = f"decision_id IN ({names}) AND provenance.redrive_of != null AND NOT reason IN ({_TROUBLES})"
        themselves = {record["decision_id"] for record in _redrives(home, settled)}
        done = {record["links"]["redrive_of"] for record in again} | themselves
        left += [row for row in some if row.decision_id not in done]
    return left


def redriven_before(home: Home, decision_ids: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The redrives that there are of decisions, by the decision's id, as far as the index knows."""
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(decision_ids), _ASK):
        names = ", ".join(f"'{name}'" for name in decision_ids[start : start + _ASK])
        again = _redrives(home, f"provenance.redrive_of IN ({names})")
        found |= {record["links"]["redrive_of"]: record for record in again}
    return found


def _redrives(home: Home, query: str) -> list[Mapping[str, Any]]:
    """The redrives among what a query finds: a caller's own `provenance.redrive_of` makes none."""
    index, fetch = home.index(), fetcher(home.log)
    found = index.find(parse_query(query, now_ms=0), tenant=home.settings.tenant, fetch=fetch)
    records = [_record(home, row) for row in found]
    return [r for r in records if (first := r["links"].get("redrive_of")) and r["request_id"] == request_id_of(first)]


def redrive(home: Home, rows: Sequence[IndexedRecord]) -> Iterator[Redriven]:
    """Decide each again under the policy that is active now, in order.

    Raises `StorageUnavailable` when a whole batch came back undecided for an outage: the rest would too. The first
    batch is a single decision, so that an outage that goes on costs one.
    """
    start = 0
    while start < len(rows):
        some = rows[start : start + (_AT_ONCE if start else 1)]
        results = _some(home, some)
        yield from results
        start += len(some)
        fresh = [one for one in results if one.outcome == "decided"]
        if fresh and all(_OUTAGES & set(one.reason_codes) for one in fresh):
            code = min(_OUTAGES & set(fresh[-1].reason_codes))
            raise StorageUnavailable(
                f"decisions still come back with {code}; {len(rows) - start} more were not sent",
                help="`lumyn doctor` says what is missing; then run the same redrive again",
            )


def _some(home: Home, rows: Sequence[IndexedRecord]) -> list[Redriven]:
    requests: list[Request | LumynError] = [_request(home, row) for row in rows]
    answers = iter(home.agent.decide([one for one in requests if isinstance(one, Request)]))
    results = []
    for row, request in zip(rows, requests, strict=True):
        answer = request if isinstance(request, LumynError) else next(answers)
        if isinstance(answer, LumynError):
            results.append(Redriven(row, "failed", error=answer))
        else:
            record = answer.record if answer.record is not None else decode_trusted(answer.canonical)
            new_id, verdict, codes = record["decision_id"], record["verdict"], tuple(record["reason_codes"])
            results.append(Redriven(row, answer.outcome, new_id, verdict, codes))
    return results


def _request(home: Home, row: IndexedRecord) -> Request | LumynError:
    """The recorded request as it is sent again; an error when the record is not sound or leaves no room."""
    try:
        record = _record(home, row)
        require(check_record(record), where=f"decision {row.decision_id}")
        asked = require_open(record)["request"]
        again = {
            **asked,
            "request_id": request_id_of(row.decision_id),
            "provenance": {**(asked.get("provenance") or {}), "redrive_of": row.decision_id},
        }
        request = parse_request(again, where=f"decision {row.decision_id}")
        # what was stored sealed is never sent in clear, whatever is configured now
        return seal_requests(home.log.keys, [request])[0] if isinstance(record, OpenRecord) else request
    except LumynError as error:
        return error


def _record(home: Home, row: IndexedRecord) -> Mapping[str, Any]:
    found = home.log.read(RECORDS, row.partition, row.offset, 1)
    if not found or found[0].key != row.decision_id.encode():
        raise IntegrityError(
            f"decision {row.decision_id} is not where the index says",
            where=f"{RECORDS}/{row.partition}/{row.offset}",
            help="`lumyn index rebuild` makes the index again",
        )
    return opened_record(home.log.keys, decode_trusted(found[0].value))
