"""A canary's drift: the same recorded requests go through the agent again and again, and are compared with the first.

The alarm may be looked at after every round for ever: round t is tested at alpha / (t (t + 1)), which sums to alpha
over all rounds (Bonferroni). An agent that only varies does not raise it: what must move is the share that agrees with
what was recorded, or the mix of outcomes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from streams.statistics.drift import drift
from streams.statistics.paired import PairedCounts, mcnemar
from streams.statistics.proportions import wilson_interval

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Round:
    """One round against the first: `score` is the share of requests with another outcome than then, 0 to 1.

    None where no request was answered in both. `agreement`: (rate, lower, upper) of being as it was recorded.
    """

    answered: int
    score: float | None
    agreement: tuple[float | None, float, float]
    psi: float | None
    p_agreement: float
    p_mix: float
    limit: float
    drifted: bool


def compared(
    first: Sequence[str | None], now: Sequence[str | None], recorded: Sequence[str], number: int, alpha: float = ALPHA
) -> Round:
    """Round `number` (0 is the first) of the outcomes of the same requests, in the same order; None: no answer."""
    answered = [(was, is_) for was, is_ in zip(now, recorded, strict=True) if was is not None]
    agree = wilson_interval(sum(was == is_ for was, is_ in answered), len(answered))
    both = [
        (then, here, noted)
        for then, here, noted in zip(first, now, recorded, strict=True)
        if then is not None and here is not None
    ]
    limit = alpha / (number * (number + 1)) if number else 0.0
    if not both:
        lost = number > 0 and any(then is not None for then in first)
        return Round(
            len(answered), None, (agree.estimate, agree.lower, agree.upper), None, 1.0, 1.0, limit, lost
        )
    right = Counter((then == noted, here == noted) for then, here, noted in both)
    pairs = PairedCounts(right[True, True], right[True, False], right[False, True], right[False, False])
    mix = drift(Counter(then for then, _, _ in both), Counter(here for _, here, _ in both))
    p_agreement = mcnemar(pairs).p_value
    p_mix = 1.0 if mix.df == 0 else mix.p_value
    return Round(
        len(answered),
        sum(then != here for then, here, _ in both) / len(both),
        (agree.estimate, agree.lower, agree.upper),
        mix.psi,
        p_agreement,
        p_mix,
        limit,
        number > 0 and min(p_agreement, p_mix) * 2 <= limit,
    )
