"""The explanation of what memory said, as text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from schemas.canonical import encode
from schemas.policy import DAY_MS
from streams.memory_explain import MemoryExplanation, Neighbour, Otherwise

if TYPE_CHECKING:
    from memory_service.recaller import Term

_ROLES = {
    "harmful": "the nearest harmful one",
    "harmful_without_text": "the nearest harmful one, text left out",
    "fine": "the nearest fine one",
    "softening": "a DENY that was wrong",
}


def lines_of(explained: MemoryExplanation) -> list[str]:
    """The explanation as text."""
    e = explained
    weights = ", ".join(f"{name} {weight:g}" for name, weight in e.weights.items())
    shares = ", ".join(f"{name} {share:g}" for name, share in e.shares.items()) or "nothing"
    amount = "none that can be compared" if e.amount is None else encode(e.amount).decode()
    lines = [
        f"decision {e.decision_id}: {e.verdict} ({', '.join(e.reason_codes)}), memory version {e.version}",
        "",
        f"weights: {weights}; of what this request has: {shares} (coverage {e.coverage:g})",
        "thresholds: " + ", ".join(f"{name} {value:g}" for name, value in e.thresholds.items()),
        f"amount: {amount}" + ("" if e.amount is None else f", factor {e.amount_within:g}"),
        *([] if e.half_life_days is None else [f"half-life of a label: {e.half_life_days:g} days"]),
        _nearby(e.nearby),
        *(_term(term) for term in e.sum),
        *_total(e.sum),
        "",
    ]
    if not e.neighbours:
        lines.append("no neighbour counted")
    for one in e.neighbours:
        met = ", ".join(f"{name} {'met' if reached else 'not met'}" for name, reached in one.thresholds.items())
        lines.append(f"{_ROLES.get(one.role, one.role)}: {one.memory_id}: {one.verdict}, {one.meaning}")
        if one.by_block is not None:
            parts = " + ".join(f"{name} {value:.6f}" for name, value in one.by_block.items())
            lines.append(f"  {parts} = {one.score:g}")
        else:
            lines.append(f"  score {one.score:g}")
        lines.append(f"  {met}; amount: {one.amounts}")
        if one.worth < 1:
            lines.append(f"  {_worth(one)}")
    lines += ["", *(_tried(one) for one in e.otherwise)]
    return lines + [f"note: {note}" for note in e.notes]


def _nearby(nearby: Mapping[str, Any]) -> str:
    if nearby["failure_rate"] is None:
        return "nearby: nothing that was labelled"
    rate, lower, upper = (f"{nearby[name]:.0%}" for name in ("failure_rate", "lower", "upper"))
    worth = f"{nearby['n_effective']:g} observations"
    return f"nearby: allowing was wrong in {rate} ({lower} to {upper}) of what is worth {worth}"


def _term(term: Term) -> str:
    kind = "harmful" if term.harmful else "fine"
    aged = f", {_days(term.age_ms)} old" if term.age_ms else ""
    return (
        f"  {term.score:g}^4 x trust {term.trust:g} x decay {term.decay:.6g} = {term.weight:.6f}  {kind}  "
        f"{term.memory_id} ({term.labeller}{aged})"
    )


def _days(age_ms: float) -> str:
    return f"{age_ms / DAY_MS:.4g} days"


def _total(terms: Sequence[Term]) -> list[str]:
    """What the terms add up to; harm at full weight stands in the upper end alone."""
    if not terms:
        return []
    total = math.fsum(term.weight for term in terms)
    wrong = math.fsum(term.weight for term in terms if term.harmful)
    lines = [f"  harmful {wrong:.6f} of {total:.6f}"]
    if any(term.harmful and term.weight < term.similarity for term in terms):
        full = math.fsum(term.similarity for term in terms if term.harmful)
        lines.append(f"  the upper end counts harm in full: {full:.6f} of {total - wrong + full:.6f}")
    return lines


def _worth(one: Neighbour) -> str:
    aged = "" if one.age_days is None else f" x decay {one.decay:.6g} ({_days(one.age_days * DAY_MS)})"
    keeps = "harm counts in full all the same" if one.role.startswith("harmful") else "a fine one needs 0.5"
    return f"trust {one.trust:g}{aged} = {one.worth:.6g}; {keeps}"


def _tried(one: Otherwise) -> str:
    same = "" if one.changes else ", the same"
    return f"without {one.without}: {one.verdict} ({', '.join(one.reason_codes)}){same}"
