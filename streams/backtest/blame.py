"""Which rules cause a flip: those without whose change the rules would not have given the new verdict."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.verdict import SEVERITY
from streams.backtest.candidate import Result, RuleSeen

BESIDE_RULES = "(memory or default)"
"""Stands for flips in which every rule did what it did before."""


def blamed(old: Result, new: Result, default: str) -> tuple[str, ...]:
    """The rules that cause a flip, in order; `default` is the candidate's default verdict.

    A rule is a cause when, had it alone done what it did before, precedence would give another verdict than the rules
    now give. Where no single rule is one, all rules that act otherwise are, together.
    """
    before, after = _effects(old.rules), _effects(new.rules)
    changed = [name for name in dict.fromkeys([*after, *before]) if before.get(name) != after.get(name)]
    if not changed:
        return (BESIDE_RULES,)
    by_rules = _verdict(after.values(), default)
    causes = [name for name in changed if _verdict({**after, name: before.get(name)}.values(), default) != by_rules]
    return tuple(causes or changed)


def _effects(rules: Iterable[RuleSeen]) -> dict[str, str | None]:
    return {name: effect for name, _, effect in rules}


def _verdict(effects: Iterable[str | None], default: str) -> str:
    return max((effect for effect in effects if effect is not None), key=SEVERITY.__getitem__, default=default)
