"""What candidates said beside the decisions of the policy in force, counted from the `shadow` topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from schemas.canonical import decode_trusted
from schemas.shadow import ADAPTER, ShadowVerdict
from streams.log import Log
from streams.reading import all_messages
from streams.topics import SHADOW

_EXAMPLES = 10


@dataclass(slots=True)
class ShadowResult:
    """One candidate's verdicts so far: the flip table decided x candidate, and what could not be compared."""

    candidate_hash: str
    compared: int = 0
    errors: int = 0
    without_memory: int = 0
    flips: Counter[tuple[str, str]] = field(default_factory=Counter)
    other_reasons: int = 0
    first: str | None = None
    last: str | None = None
    examples: list[ShadowVerdict] = field(default_factory=list)

    def take(self, one: ShadowVerdict) -> None:
        """Count one verdict in."""
        self.first, self.last = self.first or one["decided_at"], one["decided_at"]
        candidate, decided = one["candidate"], one["decided"]
        if candidate is None:
            self.errors += 1
            return
        if one["memory"] == "unavailable":
            self.without_memory += 1
        self.compared += 1
        self.flips[decided["verdict"], candidate["verdict"]] += 1
        if decided["verdict"] != candidate["verdict"]:
            self.examples = [*self.examples, one][-_EXAMPLES:]
        elif decided["reason_codes"] != candidate["reason_codes"]:
            self.other_reasons += 1

    @property
    def changed(self) -> int:
        """How many verdicts would have been others."""
        return sum(count for (old, new), count in self.flips.items() if old != new)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "candidate_hash": self.candidate_hash,
            "compared": self.compared,
            "changed": self.changed,
            "other_reasons": self.other_reasons,
            "errors": self.errors,
            "without_memory": self.without_memory,
            "flips": [{"old": old, "new": new, "count": n} for (old, new), n in sorted(self.flips.items())],
            "first": self.first,
            "last": self.last,
            "examples": [dict(one) for one in self.examples],
        }


def shadow_verdicts(log: Log, tenant: str | None = None) -> Iterator[ShadowVerdict]:
    """All verdicts that the topic still holds, of a tenant or of all."""
    for message in all_messages(log, SHADOW):
        try:
            one = ADAPTER.validate_python(decode_trusted(message.value))
        except ValueError:  # not of a shadow worker: it says nothing of any candidate
            continue
        if tenant in (None, one["tenant"]):
            yield one


def shadow_results(log: Log, tenant: str | None = None) -> dict[str, ShadowResult]:
    """The results of each candidate, by its hash."""
    results: dict[str, ShadowResult] = {}
    for one in shadow_verdicts(log, tenant):
        results.setdefault(one["candidate_hash"], ShadowResult(one["candidate_hash"])).take(one)
    return results
