"""A decision as a point of the record index, and back.

A point's id is the decision's ULID as a UUID, so ids are in the order of time. Payload keys are named as queries name
the fields. Qdrant reads a float of 16 or 17 digits back a unit in the last place off: such a number is also kept as
text (`exact`), and its name is listed under `approximate`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ulid import ULID

from memory_service.qdrant.engine import EnginePoint, IndexKind
from memory_service.record_index import IndexedRecord, IndexRow
from schemas.canonical import encode
from schemas.limits import MAX_SAFE_INTEGER

KIND: Final = "kind"
RECORD: Final = "record"
RANK: Final = "rank"
"""The first 59 bits of the id: what pages are ordered by. Ids that share it are ordered by whoever reads them."""

NUMBERS: Final = ("amount", "amount_usd", "uncertainty_score", "failure_similarity")
INDEXES: Final[Mapping[str, IndexKind]] = MappingProxyType(
    {
        "tenant": "tenant",
        KIND: "keyword",
        RANK: "integer",
        "created_at": "integer",
        **dict.fromkeys(NUMBERS, "float"),
        **dict.fromkeys(
            (
                "verdict",
                "reason",
                "rule",
                "action_type",
                "subject_type",
                "subject_id",
                "request_id",
                "policy",
                "policy_version",
                "engine",
                "inputs_digest",
                "currency",
                "label",
                "provenance",
                "names",
                "unindexed",
                "approximate",
            ),
            "keyword",
        ),
    }
)
"""Every payload key that a query may name, or that its translation needs."""

HUGE: Final = 1e300
"""Beyond this a number is kept as text only."""

_RANK_SHIFT = 69
_LABEL_IDS = b"\xff"


def point_id(decision_id: str) -> str:
    """The id of a decision's point. `decision_id` is a whole ULID."""
    return str(uuid.UUID(bytes=ULID.from_str(decision_id).bytes))


def decision_id_of(point: EnginePoint) -> str:
    """Inverse of `point_id`."""
    return str(ULID.from_bytes(uuid.UUID(str(point.id)).bytes))


def label_point_id(tenant: str, decision_id: str) -> str:
    """The id of the point that holds a decision's last label: beyond the ids of every time that can be written."""
    key = hashlib.blake2b(encode([tenant, decision_id]), digest_size=15).digest()
    return str(uuid.UUID(bytes=_LABEL_IDS + key))


def rank_of(decision_id: str) -> int:
    """What `RANK` holds: it never falls as ids rise, and is exact as a float64."""
    return min(int.from_bytes(ULID.from_str(decision_id).bytes, "big") >> _RANK_SHIFT, MAX_SAFE_INTEGER)


def record_point(row: IndexRow, label: str) -> EnginePoint:
    """The point of a record; `label` is one of `schemas.query.LABELS`."""
    numbers: dict[str, int | float] = {}
    exact: dict[str, str] = {}
    for name in NUMBERS:
        value = getattr(row, name)
        if value is None:
            continue
        plain = _plain(value)
        if plain is None:
            exact[name] = repr(value)
        if plain is not None or abs(value) <= (MAX_SAFE_INTEGER if isinstance(value, int) else HUGE):
            numbers[name] = value if plain is None else plain
    texts = {
        "subject_type": row.subject_type,
        "subject_id": row.subject_id,
        "request_id": row.request_id,
        "currency": row.currency,
    }
    payload = {
        KIND: RECORD,
        RANK: rank_of(row.decision_id),
        "tenant": row.tenant,
        "created_at": row.created_ms,
        "verdict": row.verdict,
        "reason": row.reason_codes,
        "rule": row.rules,
        "action_type": row.action_type,
        "policy": row.policy,
        "policy_version": row.version,
        "engine": row.engine,
        "inputs_digest": row.inputs_digest,
        "label": label,
        "partition": row.partition,
        "offset": row.offset,
        "provenance": [named(name, value) for name, value in row.provenance],
        "names": [name for name, _ in row.provenance],
        "unindexed": row.unindexed,
        "approximate": tuple(exact),
        "exact": exact,
        **numbers,
        **texts,
    }
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in payload.items()}
    return EnginePoint(
        point_id(row.decision_id), {key: value for key, value in kept.items() if value not in (None, [], {})}
    )


def facts_in(point: EnginePoint) -> dict[str, Any]:
    """What a record's point says, as `schemas.query.matches` takes it.

    `provenance` holds the short strings only; `unindexed` lists the other names.
    """
    payload = dict(point.payload)
    for name, text in payload.get("exact", {}).items():
        payload[name] = int(text) if text.lstrip("-").isdigit() else float(text)
    payload["provenance"] = dict(map(_unnamed, payload.get("provenance", ())))
    payload["decision_id"] = decision_id_of(point)
    return payload


def listed(facts: Mapping[str, Any]) -> IndexedRecord:
    """A decision as lists show it, from `facts_in`."""
    return IndexedRecord(
        decision_id=facts["decision_id"],
        tenant=facts["tenant"],
        created_ms=facts["created_at"],
        verdict=facts["verdict"],
        reason_codes=tuple(facts.get("reason", ())),
        action_type=facts["action_type"],
        subject_id=facts.get("subject_id"),
        policy=facts["policy"],
        version=facts["policy_version"],
        amount=facts.get("amount"),
        currency=facts.get("currency"),
        amount_usd=facts.get("amount_usd"),
        partition=facts["partition"],
        offset=facts["offset"],
        label=None if facts["label"] == "none" else facts["label"],
        rules=tuple(facts.get("rule", ())),
    )


def named(name: str, value: str) -> str:
    """A short provenance string as one keyword: `name=value`, with `%` and `=` in the name written as `%25`, `%3D`."""
    return f"{name.replace('%', '%25').replace('=', '%3D')}={value}"


def _unnamed(keyword: str) -> tuple[str, str]:
    name, _, value = keyword.partition("=")
    return name.replace("%3D", "=").replace("%25", "%"), value


def _plain(value: int | float) -> int | float | None:
    """The number in a form that Qdrant gives back unchanged, or None.

    Those are safe integers, and fractions of up to 15 digits whose power of ten is a float64 too (1e-22 at least).
    """
    if value == int(value):
        return int(value) if abs(value) <= MAX_SAFE_INTEGER else None
    digits, _, exponent = repr(value).partition("e")
    whole, _, part = digits.lstrip("-").partition(".")
    scale = int(exponent or 0) - len(part)
    return value if len((whole + part).lstrip("0")) <= 15 and abs(scale) <= 22 else None
