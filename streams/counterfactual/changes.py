"""The single changes that are tried: of a field, of the time, of what memory knew, of the switches that were on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from memory_service.recall import Recall
from schemas.ids import iso_time
from schemas.policy import DAY_MS
from streams.control import ControlState
from streams.counterfactual.fields import CURRENCY, Field, fields_of
from streams.counterfactual.numbers import Point, points
from streams.counterfactual.values import named_values
from streams.policy import CompiledPolicy
from streams.policy.facts import currency_of, is_number
from streams.policy.rules import Leaf, leaves

Kind = Literal["number", "value", "supplied", "removed", "time", "memory", "kill_switch", "control"]
_HOUR_MS = 3_600_000
_OTHERWISE, _LEFT_OUT = 1.0, 1.25
"""Distances of a change that is no number's: evidence that is left out is the least likely of all."""


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a verdict follows from, beside the policy."""

    request: dict[str, Any]
    time_ms: int
    control: ControlState
    recall: Recall


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what it is of, from what to what, and how far that is (0 to 1.25).

    A number's distance is |new - old| / (|old| + |new - old|), a time's the same of a day. `unnamed`: the value stands
    for all that the policy does not name. `facts`: the rules' names of what is changed.
    """

    of: str
    kind: Kind
    was: Any
    now: Any
    distance: float
    apply: Callable[[Situation], Situation] = field(repr=False, compare=False)
    facts: tuple[str, ...] = ()
    unnamed: bool = False
    point: Point | None = None

    @property
    def is_of_request(self) -> bool:
        """Whether it changes what was asked; memory, asked again, might answer otherwise then."""
        return self.kind in ("number", "value", "supplied", "removed")


def all_changes(policy: CompiledPolicy, situation: Situation, without: Mapping[str, Recall]) -> list[Change]:
    """Every change to try. `without`: by what is left out, what memory would have answered."""
    compared: dict[Field, list[tuple[str, Leaf]]] = {}
    for rule in policy.rules:
        for leaf in leaves(rule.condition):
            for one in fields_of(leaf.fact, situation.request):
                compared.setdefault(one, []).append((leaf.fact.name, leaf))
    out = [change for one, seen in compared.items() for change in _of_field(one, seen, policy, situation)]
    out += _of_time(policy, situation)
    out += [_of_memory(name, recall) for name, recall in without.items()]
    return out + _of_control(situation)


def held_facts(policy: CompiledPolicy) -> list[str]:
    """What rules compare and no change is tried of: the memory's own figures, and whose tenant it is."""
    facts = (leaf.fact for rule in policy.rules for leaf in leaves(rule.condition))
    return sorted({fact.name for fact in facts if fact.root == "memory" or fact.name == "tenant"})


def _of_field(
    one: Field, seen: Sequence[tuple[str, Leaf]], policy: CompiledPolicy, situation: Situation
) -> list[Change]:
    current = one.value(situation.request)
    names = tuple(sorted({name for name, _ in seen}))
    direct = [leaf for name, leaf in seen if one != CURRENCY or name != "amount_usd"]
    changes = []
    number = current if is_number(current) else None
    for point in points(number, _thresholds(one, seen, policy, situation), 0 if one.is_amount else None):
        if not is_number(current) or point.value != current:
            changes.append(_number(one, names, current, point))
    values, unnamed = named_values(direct, current)
    if one == CURRENCY and "amount_usd" in names:
        values += [code for code in ("USD", *policy.fx) if code != current and code not in values]
    changes += [_value(one, names, current, value, value == unnamed) for value in values]
    if current is not None and not one.required:
        changes.append(Change(one.name, "removed", current, None, _LEFT_OUT, _removing(one), names))
    return changes


def _thresholds(
    one: Field, seen: Sequence[tuple[str, Leaf]], policy: CompiledPolicy, situation: Situation
) -> list[tuple[int | float, float]]:
    """The numbers that the field is compared with, each with the rate between them."""
    if one == CURRENCY:
        return []
    action = situation.request.get("action")
    currency = currency_of(action) if isinstance(action, dict) else None
    rates = {1.0, *policy.fx.values()} if currency is None else {policy.fx.get(currency, 1.0)}
    out: list[tuple[int | float, float]] = []
    for name, leaf in seen:
        wants = leaf.want if isinstance(leaf.want, tuple) else (leaf.want,)
        of_rates = sorted(rates) if name == "amount_usd" else [1.0]
        out += [(want, rate) for want in wants if is_number(want) for rate in of_rates]
    return out


def _number(one: Field, names: tuple[str, ...], current: Any, point: Point) -> Change:
    if not is_number(current):
        kind: Kind = "supplied" if current is None else "value"
        return Change(one.name, kind, current, point.value, _OTHERWISE, _putting(one, point.value), names, point=point)
    off = abs(point.value - current)
    distance = off / (abs(current) + off)
    return Change(one.name, "number", current, point.value, distance, _putting(one, point.value), names, point=point)


def _value(one: Field, names: tuple[str, ...], current: Any, value: Any, is_unnamed: bool) -> Change:
    kind: Kind = "supplied" if current is None else "value"
    return Change(one.name, kind, current, value, _OTHERWISE, _putting(one, value), names, is_unnamed)


def _putting(one: Field, value: Any) -> Callable[[Situation], Situation]:
    return lambda s: replace(s, request=one.put(s.request, value))


def _removing(one: Field) -> Callable[[Situation], Situation]:
    return lambda s: replace(s, request=one.without(s.request))


def _of_time(policy: CompiledPolicy, situation: Situation) -> list[Change]:
    """Other times of the same day, and the same time on other days of that week, where rules ask for hour or day."""
    names = {leaf.fact.name for rule in policy.rules for leaf in leaves(rule.condition) if leaf.fact.root == "built-in"}
    at = situation.time_ms
    times: dict[int, None] = {}
    if "time.hour" in names:
        midnight = at - at % DAY_MS
        for hour in range(24):
            start = midnight + hour * _HOUR_MS
            times[min(max(at, start), start + _HOUR_MS - 1)] = None
    if "time.weekday" in names:
        times |= dict.fromkeys(at + days * DAY_MS for days in range(-3, 4))
    facts = tuple(sorted(names & {"time.hour", "time.weekday"}))
    return [
        Change("time", "time", iso_time(at), iso_time(other), _far(other - at), _deciding_at(other), facts)
        for other in times
        if other != at and other >= 0
    ]


def _far(off_ms: int) -> float:
    return abs(off_ms) / (DAY_MS + abs(off_ms))


def _deciding_at(time_ms: int) -> Callable[[Situation], Situation]:
    return lambda s: replace(s, time_ms=time_ms)


def _of_memory(name: str, recall: Recall) -> Change:
    return Change(name, "memory", "known", "not known", _OTHERWISE, lambda s: replace(s, recall=recall))


def _of_control(situation: Situation) -> list[Change]:
    """Each kill switch that was on taken away; the worker not cut off."""
    out = []
    for switch in situation.control.switches:
        left = tuple(one for one in situation.control.switches if one != switch)
        off = _controlled_by(switches=left)
        out.append(Change(switch.switch_id, "kill_switch", "on", "off", _OTHERWISE, off))
    if situation.control.stale:
        out.append(Change("control", "control", "cut off", "in touch", _OTHERWISE, _controlled_by(stale=False)))
    return out


def _controlled_by(**changed: Any) -> Callable[[Situation], Situation]:
    return lambda s: replace(s, control=replace(s.control, **changed))
