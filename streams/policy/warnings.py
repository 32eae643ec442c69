"""Rules that validate but are probably not what their writer meant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

from schemas.verdict import SEVERITY, Verdict
from streams.policy.contradictions import Wanted, follows, impossible, parts
from streams.policy.findings import Findings, Mark
from streams.policy.rules import ALWAYS, Condition, Leaf, PolicyGraph, Rule, leaves

MAX_COMPARISONS = 100_000
"""Bound on looking for shadowed rules, so that a policy of thousands of like rules still loads at once."""


def warn_of_rules(graph: PolicyGraph, out: Findings) -> None:
    """Rules that can't match, are shadowed, always fire, or say something that has no effect."""
    for rule in graph.rules:
        _warn_of_one(rule, graph, out)
    _warn_of_shadowed(graph.rules, out)


def _warn_of_one(rule: Rule, graph: PolicyGraph, out: Findings) -> None:
    mark = Mark(rule.line, rule.column)
    reason = impossible(rule.condition)
    if reason:
        out.warn(mark, f"rule `{rule.id}` can never match: {reason}")
    if rule.condition == ALWAYS and rule.verdict != "ALLOW":
        out.warn(mark, f"rule `{rule.id}` always fires: it has no condition")
    if rule.immune and rule.verdict != "DENY":
        out.warn(mark, f"rule `{rule.id}`: `immune` has no effect, memory softens only `DENY`")
    if rule.on_missing == "no_match" and rule.verdict != "ALLOW":
        out.warn(mark, f"rule `{rule.id}`: `on_missing: no_match` lets a request pass that leaves out the fact")
    if graph.memory is None and any(leaf.fact.root == "memory" for leaf in leaves(rule.condition)):
        out.warn(mark, f"rule `{rule.id}` tests `memory` facts, which are absent: the policy has no `memory`")


def _warn_of_shadowed(rules: tuple[Rule, ...], out: Findings) -> None:
    """An earlier rule that matches whenever a later one does, and is as strict, leaves that one no say."""
    common = Counter(_key(part) for rule in rules for part in parts(rule.condition))
    earlier: dict[Hashable, list[Rule]] = {}
    left, wanted = MAX_COMPARISONS, Wanted()
    for rule in rules:
        keys = dict.fromkeys(key for part in parts(rule.condition) for key in (_key(part), *_fact_key(part)))
        for candidate in (one for key in (None, *keys) for one in earlier.get(key, ())):
            left -= 1
            if left < 0:
                return
            if _shadows(candidate, rule, wanted):
                out.warn(
                    Mark(rule.line, rule.column),
                    f"rule `{rule.id}` can't change the verdict: rule `{candidate.id}` on line "
                    f"{candidate.line} matches whenever it does and says `{candidate.verdict}`",
                )
                break
        mine = parts(rule.condition)
        rarest = min((_key(part) for part in mine), key=lambda key: common[key]) if mine else None
        earlier.setdefault(rarest, []).append(rule)


def _key(part: Condition) -> Hashable:
    """What a condition implying this one shares: of an equality its value, else its fact, else all."""
    if isinstance(part, Leaf) and part.op != "eq":
        return part.fact.name
    return repr(part)


def _fact_key(part: Condition) -> tuple[Hashable, ...]:
    return (part.fact.name,) if isinstance(part, Leaf) else ()


def _shadows(one: Rule, other: Rule, wanted: Wanted) -> bool:
    if other.immune and not one.immune:
        return False
    at_least = _rank(one.verdict) if one.condition == ALWAYS else min(_rank(one.verdict), _rank(one.missing_effect))
    strict_enough = _rank(one.verdict) >= _rank(other.verdict) and at_least >= _rank(other.missing_effect)
    return strict_enough and follows(parts(one.condition), parts(other.condition), wanted)


def _rank(effect: Verdict | None) -> int:
    return -1 if effect is None else SEVERITY[effect]
