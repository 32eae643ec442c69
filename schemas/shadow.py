"""The shadow verdict: what a candidate policy would have made of a decision, beside what was decided."""

from __future__ import annotations

from typing import Literal

from pydantic import TypeAdapter, with_config
from typing_extensions import TypedDict

from schemas.record import LogRef
from schemas.verdict import Verdict

ShadowMemory = Literal["off", "recorded", "as-of", "current", "unavailable"]
"""Which memory answered the candidate: what the record holds, the memory asked again, or none."""


@with_config({"extra": "forbid", "strict": True})
class ShadowOutcome(TypedDict):
    """A verdict with its reasons, and the policy that gave it."""

    policy: str
    policy_hash: str
    verdict: Verdict
    reason_codes: list[str]


@with_config({"extra": "forbid", "strict": True, "title": "ShadowVerdict"})
class ShadowVerdict(TypedDict):
    """One decision under one candidate. `source` is the record's place; `error` says why there is no candidate outcome.

    It quotes nothing of the request.
    """

    source: LogRef
    decision_id: str
    record_digest: str
    tenant: str
    decided_at: str
    decided: ShadowOutcome
    candidate: ShadowOutcome | None
    candidate_hash: str
    memory: ShadowMemory
    error: str | None


ADAPTER: TypeAdapter[ShadowVerdict] = TypeAdapter(ShadowVerdict)
