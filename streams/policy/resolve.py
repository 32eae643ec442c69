"""Precedence: from the rules that hit to one verdict, DENY > ABSTAIN > ESCALATE > ALLOW."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from schemas.verdict import SEVERITY, Verdict

Outcome = Literal["matched", "indeterminate"]


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that matched, or that lacked a fact (`missing`) to tell.

    `effect` is the verdict it asks for, None when it has no influence. An indeterminate hit gives
    `MISSING_EVIDENCE` instead of the rule's codes and none of its obligations and queries: its `then` does
    not apply.
    """

    id: str
    stage: str
    effect: Verdict | None
    reason_codes: tuple[str, ...]
    facts: tuple[dict[str, Any], ...]
    outcome: Outcome
    missing: tuple[str, ...]
    immune: bool
    obligations: tuple[Any, ...]
    queries: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A verdict with its reasons, and the obligations and queries of the rules that gave it."""

    verdict: Verdict
    reason_codes: tuple[str, ...]
    obligations: tuple[Any, ...]
    queries: tuple[Any, ...]


def resolve(hits: Sequence[RuleHit], default_verdict: Verdict, default_reason_codes: tuple[str, ...]) -> Resolution:
    """Hits in rule order to the verdict.

    Reason codes are those of all hits with an effect, in order, no repeats; of ALLOW hits only when the
    verdict is ALLOW. Obligations and queries are those of the hits whose effect is the verdict. Without an
    effect: the default.
    """
    return Resolution(*by_precedence(hits, default_verdict, default_reason_codes))


def by_precedence(
    hits: Sequence[RuleHit], default_verdict: Verdict, default_reason_codes: tuple[str, ...]
) -> tuple[Verdict, tuple[str, ...], tuple[Any, ...], tuple[Any, ...]]:
    """The fields of a `Resolution`, bare for the evaluator's sake."""
    verdict: Verdict | None = None
    severity = -1
    for hit in hits:
        if hit.effect is not None and SEVERITY[hit.effect] > severity:
            verdict, severity = hit.effect, SEVERITY[hit.effect]
    if verdict is None:
        return default_verdict, default_reason_codes, (), ()
    codes: dict[str, None] = {}
    obligations: list[Any] = []
    queries: list[Any] = []
    for hit in hits:
        if hit.effect == verdict:
            obligations += hit.obligations
            queries += hit.queries
        elif hit.effect is None or hit.effect == "ALLOW":
            continue
        for code in hit.reason_codes:
            codes[code] = None
    return verdict, tuple(codes), _own(obligations), _own(queries)


def _own(values: list[Any]) -> tuple[Any, ...]:
    """Copies: what a caller does to a record must not reach the policy."""
    return tuple(copy.deepcopy(values)) if values else ()
