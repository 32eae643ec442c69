"""The 2x2 of policy and memory, and which rules are to blame: cell by cell."""

from __future__ import annotations

import pytest

from streams.backtest.blame import BESIDE_RULES, blamed
from streams.backtest.candidate import Result
from streams.backtest.causes import cause_of


def said(verdict: str, *rules: tuple[str, str | None]) -> Result:
    return Result(verdict, (f"{verdict}_CODE",), tuple((name, "matched", effect) for name, effect in rules))  # type: ignore[arg-type]


A, D, E = said("ALLOW"), said("DENY"), said("ESCALATE")


@pytest.mark.parametrize(
    ("then", "policy_alone", "memory_alone", "both", "cause"),
    [
        (A, D, A, D, "policy"),
        (A, A, D, D, "memory"),
        (A, A, A, D, "interaction"),
        (A, D, D, D, "interaction"),
        (A, D, A, E, "interaction"),
        (A, A, D, E, "interaction"),
        (A, None, A, D, "not separated"),
        (A, D, None, D, "not separated"),
        (None, D, A, D, "not separated"),
        (D, D, D, D, "unexplained"),
        (E, A, E, D, "unexplained"),
    ],
)
def test_a_difference_is_laid_to_what_makes_it(
    then: Result | None, policy_alone: Result | None, memory_alone: Result | None, both: Result, cause: str
) -> None:
    assert cause_of(A, then, policy_alone, memory_alone, both, same_engine=True) == cause


def test_another_engine_explains_what_it_gives_by_itself() -> None:
    assert cause_of(A, D, D, D, D, same_engine=False) == "engine"
    assert cause_of(A, E, D, E, D, same_engine=False) == "policy"


def test_another_reason_alone_is_a_difference_too() -> None:
    other = Result("ALLOW", ("OTHER",), ())
    assert cause_of(A, A, other, A, other, same_engine=True) == "policy"
    assert cause_of(A, other, A, A, other, same_engine=True) == "unexplained"


def test_a_rule_is_to_blame_when_the_verdict_hangs_on_it() -> None:
    old = said("ALLOW", ("R_OK", "ALLOW"))
    assert blamed(old, said("DENY", ("R_OK", "ALLOW"), ("R_RISK", "DENY")), "ESCALATE") == ("R_RISK",)
    # The stricter of two new ones is the one that counts.
    assert blamed(old, said("DENY", ("R_OK", "ALLOW"), ("R_BIG", "ESCALATE"), ("R_RISK", "DENY")), "ALLOW") == (
        "R_RISK",
    )
    # Two that each would do are to blame together.
    assert blamed(old, said("DENY", ("R_OK", "ALLOW"), ("R_A", "DENY"), ("R_B", "DENY")), "ALLOW") == ("R_A", "R_B")
    assert blamed(said("DENY", ("R_RISK", "DENY")), old, "ESCALATE") == ("R_OK", "R_RISK")
    assert blamed(old, said("ESCALATE", ("R_OK", "ALLOW")), "DENY") == (BESIDE_RULES,)
