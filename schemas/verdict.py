"""The four verdicts and their precedence."""

from __future__ import annotations

from typing import Final, Literal

Verdict = Literal["ALLOW", "DENY", "ESCALATE", "ABSTAIN"]

VERDICTS: Final[tuple[Verdict, ...]] = ("ALLOW", "ESCALATE", "ABSTAIN", "DENY")
"""Mildest first: DENY > ABSTAIN > ESCALATE > ALLOW."""

SEVERITY: Final[dict[str, int]] = {name: rank for rank, name in enumerate(VERDICTS)}


def stricter(a: Verdict, b: Verdict) -> Verdict:
    """The one of two verdicts that wins by precedence."""
    return a if SEVERITY[a] >= SEVERITY[b] else b
