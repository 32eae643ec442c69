"""The RecordIndex protocol: decisions found by query, page by page, without reading the log through.

An index holds what lists show and what most queries name. What it doesn't hold (evidence, action, context, long or
nested provenance) it asks of the record itself, through the caller's `fetch`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NewType, Protocol

from schemas.errors import IntegrityError
from schemas.ids import decision_time_ms, is_decision_id, time_ms_of
from schemas.label import LabelEvent
from schemas.query import Query

Fetch = Callable[[int, int], Mapping[str, Any] | None]
"""(partition, offset) -> the record there, or None when the log no longer holds it."""

Cursor = NewType("Cursor", str)
"""Where a page ended; opaque. `after=` it the next page begins."""

SHORT: Final = 128
"""Provenance strings up to this many characters are indexed."""


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What a backend stores of one record. `provenance` holds the short strings, `unindexed` the other names."""

    decision_id: str
    tenant: str
    created_ms: int
    verdict: str
    reason_codes: tuple[str, ...]
    rules: tuple[str, ...]
    action_type: str
    subject_type: str | None
    subject_id: str | None
    request_id: str | None
    policy: str
    version: str
    engine: str
    inputs_digest: str
    amount: int | float | None
    currency: str | None
    amount_usd: int | float | None
    uncertainty_score: float | None
    failure_similarity: float | None
    provenance: tuple[tuple[str, str], ...]
    unindexed: tuple[str, ...]
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class IndexedRecord:
    """A decision as lists show it; `partition` and `offset` say where its record is in `records`."""

    decision_id: str
    tenant: str
    created_ms: int
    verdict: str
    reason_codes: tuple[str, ...]
    action_type: str
    subject_id: str | None
    policy: str
    version: str
    amount: int | float | None
    currency: str | None
    amount_usd: int | float | None
    partition: int
    offset: int
    label: str | None
    rules: tuple[str, ...] = ()
    """Rules that fired."""

    @property
    def cursor(self) -> Cursor:
        """Continue after this one."""
        return Cursor(self.decision_id)


@dataclass(frozen=True, slots=True)
class Refused:
    """A message in `records` that is no decision record; the index goes on without it."""

    partition: int
    offset: int
    why: str


class RecordIndex(Protocol):
    """Decisions by query. Order is (created_ms, decision_id), which is the order of the ids themselves.

    Every method raises `StorageUnavailable` when the index can't be used. A query on what the index doesn't hold
    needs `fetch`; a missing one is `UsageError`. `tenant=None` is every tenant: for operators only.
    """

    def positions(self) -> dict[int, int]:
        """The next offset of `records` to index, by partition; a partition never seen is left out."""
        ...

    def labels_position(self) -> int:
        """The version of the last label event applied, which is the offset of the next one."""
        ...

    def apply(
        self, records: Sequence[tuple[int, int, Mapping[str, Any]]], labels: Sequence[LabelEvent] = ()
    ) -> list[Refused]:
        """Take (partition, offset, record) and label events in, and move the positions, all or nothing.

        Applying again changes nothing. A label may come before its record. Label events are in version order;
        a gap is refused.
        """
        ...

    def find(
        self,
        query: Query | None = None,
        *,
        tenant: str | None,
        limit: int | None = None,
        after: Cursor | None = None,
        newest_first: bool = True,
        fetch: Fetch | None = None,
    ) -> list[IndexedRecord]:
        """The decisions that match, in order, at most `limit`, beginning after a cursor."""
        ...

    def count(self, query: Query | None = None, *, tenant: str | None, fetch: Fetch | None = None) -> int:
        """How many decisions match."""
        ...

    def by_prefix(self, prefix: str, tenant: str | None, limit: int = 2) -> list[str]:
        """Decision ids that start with `prefix` (as `schemas.ids.id_prefix` gives it), in order."""
        ...

    def reset(self) -> None:
        """Empty the index, to be filled again from the log."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


def index_row(record: Mapping[str, Any], partition: int, offset: int) -> IndexRow:
    """What an index stores of a decision record. Raises `IntegrityError` when it is none.

    A request kept as an encrypted envelope leaves its fields absent.
    """
    try:
        return _row(record, partition, offset)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"not a decision record: {type(error).__name__}: {error}", where=f"records/{partition}/{offset}"
        ) from None


def _row(record: Mapping[str, Any], partition: int, offset: int) -> IndexRow:
    request = record["request"]
    action, subject = request.get("action") or {}, request.get("subject") or {}
    decision_id, created_ms = record["decision_id"], time_ms_of(record["created_at"])
    if not is_decision_id(decision_id) or decision_time_ms(decision_id) != created_ms:
        raise ValueError(f"decision_id {decision_id!r} is not a ULID of {record['created_at']}")
    signals, provenance = record.get("risk_signals") or {}, record.get("provenance") or {}
    return IndexRow(
        decision_id=decision_id,
        tenant=_required(record["tenant"]),
        created_ms=created_ms,
        verdict=_required(record["verdict"]),
        reason_codes=tuple(map(_required, record["reason_codes"])),
        rules=tuple(_required(rule["id"]) for rule in record["matched_rules"] if rule["outcome"] == "matched"),
        action_type=_text(action.get("type")) or "",
        subject_type=_text(subject.get("type")),
        subject_id=_text(subject.get("id")),
        request_id=_text(record.get("request_id")),
        policy=_required(record["policy"]["name"]),
        version=_required(record["policy"]["version"]),
        engine=_required(record["engine"]),
        inputs_digest=_digest(record["inputs_digest"]),
        amount=amount_in(action),
        currency=currency_in(action),
        amount_usd=_amount_usd(action, record["matched_rules"]),
        uncertainty_score=_number(signals.get("uncertainty_score")),
        failure_similarity=_number((signals.get("failure_similarity") or {}).get("score")),
        provenance=tuple((name, value) for name, value in sorted(provenance.items()) if _is_short(name, value)),
        unindexed=tuple(
            sorted(name for name, value in provenance.items() if value is not None and not _is_short(name, value))
        ),
        partition=partition,
        offset=offset,
    )


def facts_of(record: Mapping[str, Any], label: str | None = None) -> dict[str, Any]:
    """All that a query can name, as `schemas.query.matches` takes it. `label` is the decision's last label."""
    row = index_row(record, 0, 0)
    request = record["request"]
    return {
        "decision_id": row.decision_id,
        "tenant": row.tenant,
        "created_at": row.created_ms,
        "verdict": row.verdict,
        "reason": row.reason_codes,
        "rule": row.rules,
        "action_type": row.action_type,
        "subject_type": row.subject_type,
        "subject_id": row.subject_id,
        "request_id": row.request_id,
        "policy": row.policy,
        "policy_version": row.version,
        "engine": row.engine,
        "inputs_digest": row.inputs_digest,
        "amount": row.amount,
        "currency": row.currency,
        "amount_usd": row.amount_usd,
        "uncertainty_score": row.uncertainty_score,
        "failure_similarity": row.failure_similarity,
        "label": label or "none",
        "provenance": record.get("provenance"),
        "evidence": request.get("evidence"),
        "action": request.get("action"),
        "subject": request.get("subject"),
        "context": (request.get("context") or {}).get("inline"),
    }


def _is_short(name: str, value: Any) -> bool:
    return isinstance(value, str) and len(value) <= SHORT and len(name) <= SHORT


def _required(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r:.40}")
    return value


def _digest(value: Any) -> str:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", _required(value)):
        raise ValueError(f"{value!r:.80} is not a digest")
    return str(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def amount_in(action: Mapping[str, Any]) -> int | float | None:
    """The amount of an action as it was asked for; None where that is no number."""
    amount = action.get("amount")
    return _number(amount.get("value") if isinstance(amount, Mapping) else amount)


def currency_in(action: Mapping[str, Any]) -> str | None:
    """Its currency; None where it names none."""
    amount = action.get("amount")
    return _text(amount.get("currency")) if isinstance(amount, Mapping) else None


def _amount_usd(action: Mapping[str, Any], rules: Sequence[Mapping[str, Any]]) -> int | float | None:
    """The amount in dollars; in another currency what the policy made of it, where a rule's trace shows that."""
    currency = currency_in(action)
    if currency is None or currency == "USD":
        return amount_in(action) if currency else None
    seen = (fact.get("value") for rule in rules for fact in rule["facts"] if fact["fact"] == "amount_usd")
    return next((number for number in map(_number, seen) if number is not None), None)
