"""Checking the `memory` block."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from schemas.policy import DEFAULT_WEIGHTS, ON_UNAVAILABLE, MemorySettings
from streams.policy.findings import Findings
from streams.policy.read import Fields, Unreadable, choice, fields_of, number, scalar_value
from streams.policy.source import Entries, Node

_DEFAULTS = MemorySettings()
_THRESHOLDS = ("failure_block", "failure_escalate", "soften", "success_support")
_COUNTS = {"top_k": (1, 50), "neighbours": (50, 500)}
_HALF_LIFE = "half_life_days"
_HALF_LIFE_DAYS = (0.001, 36_500)


_MEANINGS: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("half_life", "halflife", "decay", "max_age_days", "max_age", "ttl"), _HALF_LIFE)
)


def read_memory(node: Node, out: Findings) -> MemorySettings | None:
    """The settings, defaults for keys left out. None when something is wrong, which is then reported."""
    if not isinstance(node, Entries):
        out.error(node.mark, "`memory` takes a mapping; `{}` for the defaults, or leave it out to switch memory off")
        return None
    try:
        fields = fields_of(node, "`memory`", (*_DEFAULTS.as_dict(), _HALF_LIFE), out, _MEANINGS)
    except Unreadable:
        return None
    values: dict[str, Any] = {}
    for key in fields.found:
        try:
            values[key] = _value(key, fields, out)
        except Unreadable:
            continue
    settings = MemorySettings(**values)
    _check_order(settings, fields, out)
    return settings


def _value(key: str, fields: Fields, out: Findings) -> Any:
    node = fields.found[key][1]
    what = f"`{key}`"
    if key == "on_unavailable":
        return choice(node, what, ON_UNAVAILABLE, out)
    if key == "weights":
        return _weights(node, out)
    if key == _HALF_LIFE:
        return _half_life(node, what, out)
    value = number(node, what, out)
    if key in _COUNTS:
        low, high = _COUNTS[key]
        if value.__class__ is not int or not low <= value <= high:
            out.error(node.mark, f"{what} takes a whole number from {low} to {high}, not `{value}`")
            raise Unreadable
    elif value <= 0:
        hint = "; a threshold above 1 switches that step off" if key in _THRESHOLDS else ""
        out.error(node.mark, f"{what} takes a number above 0, not `{value}`{hint}")
        raise Unreadable
    if key == "amount_within" and value < 1:
        out.warn(node.mark, "`amount_within` below 1 leaves out neighbours of the very same amount")
    return value


def _half_life(node: Node, what: str, out: Findings) -> int | float | None:
    """Days; `null`, as when it is left out: labels do not age."""
    if scalar_value(node, what, out) is None:
        return None
    value, (least, most) = number(node, what, out), _HALF_LIFE_DAYS
    if not least <= value <= most:
        out.error(
            node.mark,
            f"{what} takes a number of days from {least} to {most}, not `{value}`; without it labels do not age",
        )
        raise Unreadable
    return value


def _weights(node: Node, out: Findings) -> MappingProxyType[str, float]:
    fields = fields_of(node, "`weights`", DEFAULT_WEIGHTS, out)
    weights = dict(DEFAULT_WEIGHTS)
    failed = False
    for key, (_, value) in fields.found.items():
        try:
            weights[key] = number(value, f"weight `{key}`", out)
        except Unreadable:
            failed = True
            continue
        if weights[key] < 0:
            out.error(value.mark, f"weight `{key}` takes a number of 0 or more, not `{weights[key]}`")
            failed = True
    if not failed and not any(weights.values()):
        out.error(node.mark, "at least one weight must be above 0")
        failed = True
    if failed:
        raise Unreadable
    return MappingProxyType(weights)


def _check_order(settings: MemorySettings, fields: Fields, out: Findings) -> None:
    block, escalate = settings.failure_block, settings.failure_escalate
    if block < escalate <= 1:
        key = "failure_escalate" if "failure_escalate" in fields.found else "failure_block"
        out.error(
            fields.found[key][1].mark,
            f"`failure_escalate` ({escalate}) is above `failure_block` ({block}), so it could never escalate",
        )
