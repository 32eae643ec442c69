"""What conditions say of each other is what comparing each value with each says, in one pass over long lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.policy import check_policy, contradictions, operators
from streams.policy.contradictions import Wanted, impossible
from streams.policy.facts import fact_named
from streams.policy.operators import OPERATORS
from streams.policy.rules import AllOf, Leaf

NUMBERS = [-1, 0, 0.0, 1, 1.0, 2, 2.5, 3]
TEXTS = ["", "a", "b", "1", "true"]
VALUES = [*NUMBERS, *TEXTS, True, False]
FACT = fact_named("evidence.x")


def leaf(op: str, want: Any) -> Leaf:
    return Leaf(FACT, op, want)


def ordered(values: list[Any]) -> st.SearchStrategy[Leaf]:
    one = st.builds(leaf, st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from(values))
    two = st.lists(st.sampled_from(values), min_size=2, max_size=2).map(lambda some: leaf("between", tuple(sorted(some))))
    return one | two


LEAVES = (
    st.builds(leaf, st.just("eq"), st.sampled_from(VALUES))
    | st.lists(st.sampled_from(VALUES), max_size=4).map(lambda some: leaf("in", tuple(some)))
    | ordered(NUMBERS)
    | ordered(TEXTS)
    | st.builds(leaf, st.just("exists"), st.booleans())
    | st.builds(leaf, st.just("starts_with"), st.sampled_from(TEXTS))
)


def holds(one: Leaf, value: Any) -> bool:
    return OPERATORS[one.op].test(one.want, value) is True


def each_by_each_implies(one: Leaf, other: Leaf) -> bool:
    if one == other:
        return repr(one) == repr(other)
    if "exists" in (one.op, other.op) or contradictions._kinds(one) != contradictions._kinds(other):
        return False
    if one.op in ("eq", "in"):
        return all(holds(other, value) for value in (one.want if one.op == "in" else (one.want,)))
    low, high = contradictions._low(other), contradictions._high(other)
    if low is None and high is None:
        return False
    within = contradictions._within
    return (low is None or within(contradictions._low(one), low, 1)) and (
        high is None or within(contradictions._high(one), high, -1)
    )


def each_by_each_contradict(leaves: list[Leaf]) -> bool:
    if not frozenset.intersection(*map(contradictions._kinds, leaves)):
        return True
    candidates = contradictions._candidates(leaves)
    if candidates is not None:
        return not any(all(holds(one, value) for one in leaves) for value in candidates)
    lows = [bound for one in leaves if (bound := contradictions._low(one)) is not None]
    highs = [bound for one in leaves if (bound := contradictions._high(one)) is not None]
    return any(low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1])) for low in lows for high in highs)


@given(LEAVES, LEAVES)
def test_implying_is_what_comparing_each_value_with_each_says(one: Leaf, other: Leaf) -> None:
    assert contradictions._implies(one, other, Wanted()) == each_by_each_implies(one, other)


@given(st.lists(LEAVES, min_size=1, max_size=5))
def test_contradicting_is_what_comparing_each_with_each_says(leaves: list[Leaf]) -> None:
    assert contradictions._contradict(leaves, Wanted()) == each_by_each_contradict(leaves)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the kind of a value was asked for."""
    count, real = [0], operators.kind_of

    def counted(value: Any) -> str | None:
        count[0] += 1
        return real(value)

    for module in (operators, contradictions):
        monkeypatch.setattr(module, "kind_of", counted)
    return count


def test_two_long_lists_of_one_fact_are_read_once_each(looks: list[int]) -> None:
    first, second = (tuple(f"{name}{n}" for n in range(3000)) for name in "ab")
    assert impossible(AllOf((leaf("in", first), leaf("in", (*second, *first[-1:]))))) is None
    assert looks[0] < 20 * 6000


def test_rules_with_long_lists_are_read_once_each(looks: list[int]) -> None:
    def lines(rules: int) -> bytes:
        each = "\n".join(
            f"  - {{id: R{r}, if: {{action_type: {{in: [{', '.join(f't{n}' for n in range(r, r + 100))}]}}, x: {{gt: {r}}}}},"
            " then: {verdict: DENY}}"
            for r in range(rules)
        )
        return f"policy: p\nversion: 1.0.0\nrules:\n{each}\n".encode()

    asked = []
    for rules in (40, 160):
        looks[0] = 0
        assert check_policy(lines(rules), name="p.yml").errors == []
        asked.append(looks[0])
    assert asked[1] < 8 * asked[0], "four times the rules: not sixteen times the work on their lists"
