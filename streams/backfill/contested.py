"""A contested decision as the ledger holds it: ids, a pseudonym and what came out, nothing of what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from schemas.digests import digest_of
from schemas.ledger import Contested, Outcome
from schemas.verdict import SEVERITY
from streams.backtest.candidate import Result
from streams.backtest.case import Case
from streams.policy import CompiledPolicy
from streams.policy.facts import amount_of, currency_of

LONGEST_CURRENCY: Final = 16
_LONGEST_TYPE: Final = 128


def pseudonym(case: Case) -> str:
    """Whom a decision is about: the key's name of a sealed record, else a hash of who it is.

    A record in clear names its subject itself; the hash keeps the ledger from doing it a second time.
    """
    if case.kid is not None:
        return case.kid
    subject = case.seen.request["subject"]
    return f"subject:{digest_of([case.seen.tenant, subject['type'], subject['id']])[7:31]}"


def money_of(action: dict[str, Any]) -> tuple[int | float | None, str | None]:
    """Amount and currency of an action; a currency of no known form is none."""
    currency = currency_of(action)
    return amount_of(action), currency if currency is not None and len(currency) <= LONGEST_CURRENCY else None


def base_of(case: Case, recorded: Outcome, would_be: Outcome, direction: str) -> Contested:
    """What every contested decision says."""
    seen, action = case.seen, case.seen.request["action"]
    amount, currency = money_of(action)
    return {
        "decision_id": seen.decision_id,
        "record_digest": seen.record_digest,
        "decided_at": seen.created_at,
        "subject": pseudonym(case),
        "action_type": str(action["type"])[:_LONGEST_TYPE],
        "amount": amount,
        "currency": currency,
        "recorded": recorded,
        "would_be": would_be,
        "direction": direction,
        "meaning": case.outcome.meaning,
    }


def contested_of(policy: CompiledPolicy) -> Callable[[Case, Result, str], Contested]:
    """What notes a flip that a policy makes."""
    name = f"{policy.name}@{policy.version}"

    def note(case: Case, new: Result, cause: str) -> Contested:
        then = case.seen.policy
        recorded: Outcome = {
            "verdict": case.old.verdict,
            "reason_codes": list(case.old.reason_codes),
            "policy": f"{then.name}@{then.version}",
        }
        would_be: Outcome = {"verdict": new.verdict, "reason_codes": list(new.reason_codes), "policy": name}
        direction = "stricter" if SEVERITY[new.verdict] > SEVERITY[case.old.verdict] else "milder"
        return {**base_of(case, recorded, would_be, direction), "cause": cause}

    return note
