"""The decision record: verdict, reasons and every input that mattered, sealed by its own digest."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.digests import digest_of
from schemas.verdict import Verdict

SCHEMA = "lumyn.record/1"
ENGINE = "lumyn-engine/1"
"""The semantics version: another engine may decide otherwise (`engine_changed`); the same one may not."""

_CLOSED: Any = {"extra": "forbid", "strict": True}


@with_config(_CLOSED)
class PolicyRef(TypedDict):
    """Which policy document decided."""

    name: str
    version: str
    hash: str


@with_config(_CLOSED)
class ControlRef(TypedDict):
    """The control state's dense version and the kill switches that applied."""

    version: int
    switches: list[dict[str, Any]]


@with_config(_CLOSED)
class MatchedRule(TypedDict):
    """One matched or indeterminate rule: `effect` is null when it has no influence."""

    id: str
    stage: str
    effect: Verdict | None
    outcome: Literal["matched", "indeterminate"]
    reason_codes: list[str]
    facts: list[dict[str, Any]]


@with_config(_CLOSED)
class Neighbour(TypedDict):
    """A remembered decision near this one; scores are cosine-like, at most 1."""

    memory_id: str
    label: str
    verdict: Verdict
    score: float
    score_by_block: dict[str, float]
    summary: str


@with_config(_CLOSED)
class Similarity(TypedDict):
    """The nearest decisions by last label; `score` is the nearest one's, 0 where there is none."""

    score: float
    top_k: list[Neighbour]


@with_config(_CLOSED)
class Nearby(TypedDict):
    """Estimated probability that ALLOW would be wrong here, with a 95% interval."""

    failure_rate: float | None
    lower: float
    upper: float
    n_effective: float


@with_config(_CLOSED)
class RiskSignals(TypedDict):
    """What memory says about this request."""

    failure_similarity: Similarity
    success_similarity: Similarity
    nearby: Nearby
    uncertainty_score: float


@with_config(_CLOSED)
class Counted(TypedDict):
    """A neighbour that arbitration used, in the role it was used in.

    `trust` (in its labeller) where it is not 1, `age_ms` (of what he said) where labels age.
    """

    role: Literal["harmful", "harmful_without_text", "fine", "softening"]
    memory_id: str
    meaning: Literal["harmful", "fine", "neutral"]
    verdict: Verdict
    rules: list[str]
    amount: float | int | None
    contested: bool
    score: float
    dot: int
    trust: NotRequired[float]
    age_ms: NotRequired[int]


@with_config(_CLOSED)
class MemoryRef(TypedDict):
    """Which memory answered: version, epoch and vectoriser name exactly one state."""

    mode: Literal["off", "exact"]
    available: bool
    version: int | None
    epoch: str | None
    vectoriser_id: str | None
    coverage: float
    facts: int
    settings: dict[str, Any] | None
    counted: list[Counted]


@with_config(_CLOSED)
class LogRef(TypedDict):
    """Where the request stands in the log."""

    topic: str
    partition: int
    offset: int


@with_config({"extra": "forbid", "strict": True, "title": "DecisionRecord"})
class DecisionRecord(TypedDict):
    """One decision (CONTRACTS: Decision record).

    With `sealed` the request is an envelope, and what rules quote, obligations and queries are in that box.
    """

    schema: Literal["lumyn.record/1"]
    engine: str
    decision_id: str
    request_id: str | None
    tenant: str
    created_at: str
    request: dict[str, Any]
    inputs_digest: str
    policy: PolicyRef
    ir_hash: str
    control: ControlRef
    verdict: Verdict
    reason_codes: list[str]
    matched_rules: list[MatchedRule]
    obligations: list[Any]
    queries: list[Any]
    risk_signals: RiskSignals
    memory: MemoryRef
    provenance: dict[str, Any]
    log: LogRef
    links: dict[str, Any]
    record_digest: str
    sealed: NotRequired[str]


ADAPTER: TypeAdapter[DecisionRecord] = TypeAdapter(DecisionRecord)


def record_digest(record: Mapping[str, Any]) -> str:
    """Digest of everything in the record but the digest itself."""
    return digest_of({k: v for k, v in record.items() if k != "record_digest"})


_BEFORE_DIGEST = b'"record_digest":"sha256:'
_HEX = 64


def digest_holds(line: bytes) -> bool:
    """Whether the digest in a record's bytes is theirs: those without it hash to it.

    Then they are what was sealed, and so canonical. False says nothing: other bytes of a sound record do not hold.
    """
    start = line.find(_BEFORE_DIGEST)
    end = start + len(_BEFORE_DIGEST) + _HEX
    if start < 0 or line[end : end + 2] != b'",':
        return False
    found = hashlib.sha256(line[:start])
    found.update(line[end + 2 :])
    return found.hexdigest().encode() == line[end - _HEX : end]
