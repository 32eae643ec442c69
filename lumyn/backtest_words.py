"""How a backtest's figures are said, wherever they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lumyn.figures import recorded

SHOWN = 10
"""Flips and errors that are named."""


def bar_row(bar: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A bar with what was found."""
    shown = number if bar.get("counts") else rate
    met = {True: "yes", False: "NO", None: "NOTHING TO JUDGE BY"}[bar["holds"]]
    return bar["bar"], shown(bar["value"]), shown(bar["baseline"]), met


def flip_row(flip: Mapping[str, Any]) -> tuple[str, ...]:
    """A flip on one line."""
    return (
        flip["decision_id"],
        flip["old"],
        flip["new"],
        f"{recorded(flip['amount'])} {flip['currency'] or ''}".strip(),
        f"{flip['uncertainty']:.2f}",
        flip["meaning"] or "",
        flip["cause"],
        f"[{', '.join(flip['old_reasons'])}] → [{', '.join(flip['new_reasons'])}]",
    )


def number(value: float | None) -> str:
    """A count; of a sample, what it stands for."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:,.1f}"


def rate(value: float | None) -> str:
    """A share as per cent."""
    return "" if value is None else f"{value:.2%}"


def share(figure: Mapping[str, Any]) -> str:
    """A share with its interval, or nothing where nothing was observed."""
    if figure["rate"] is None:
        return ""
    return f"{figure['rate']:.1%} ({figure['lower']:.1%} to {figure['upper']:.1%})"


def interval(figure: Mapping[str, Any]) -> str:
    """A count, its share and the interval."""
    if figure["rate"] is None:
        return "nothing observed"
    return f"{number(figure['count'])}, {rate(figure['rate'])} ({rate(figure['lower'])} to {rate(figure['upper'])})"


def fired(rule: Mapping[str, Any], when: str) -> str:
    """How often a rule fired, `before` or `after`, and how often it lacked a fact to tell."""
    unknown = rule[f"unknown_{when}"]
    return number(rule[f"fired_{when}"]) + (f" (+{number(unknown)} lacked a fact)" if unknown else "")


def p_value(p: float) -> str:
    """A p-value as people write it."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def change(tested: Mapping[str, Any] | None) -> str:
    """Of a slice: how often only the candidate is right, how often only the record was, and Holm's p over slices."""
    if tested is None:
        return ""
    return f"{tested['better']} / {tested['worse']}, {p_value(tested['p_holm'])}"


def outcome_lines(outcomes: Mapping[str, Any]) -> list[str]:
    """The comparison on the same labelled decisions, and what labels leave open."""
    paired, allowed = outcomes["paired"], outcomes["wrong_among_allowed"]
    lines = [
        f"right: both {paired['both_right']}, only as recorded {paired['recorded_only']}, only the candidate "
        f"{paired['candidate_only']}, neither {paired['both_wrong']}"
    ]
    if "difference" in paired:
        gap = paired["difference"]
        lines[0] += (
            f"; difference {gap['estimate']:+.2%} ({gap['lower']:+.2%} to {gap['upper']:+.2%}), "
            f"{p_value(paired['clustered_p'])} (clustered), {p_value(paired['mcnemar_p'])} ({paired['mcnemar']})"
        )
        if paired["detectable"] is not None:
            lines.append(f"a difference below {paired['detectable']:.2%} would most likely not show here (power 80%)")
        lines += [f"note: {warning}" for warning in paired["warnings"]]
    else:
        lines.append(f"note: {paired['note']}")
    for name, when in (("as recorded", "before"), ("the candidate", "after")):
        one = allowed[when]
        lines.append(
            f"wrong among what is allowed, {name}: {rate(one['lower'])} to {rate(one['upper'])}, whatever the "
            f"unlabelled are ({one['labelled']} of {one['allowed']} have an outcome); with sampling error "
            f"{rate(one['interval_lower'])} to {rate(one['interval_upper'])}"
        )
    return lines


def is_unsound(report: Mapping[str, Any]) -> bool:
    """Whether something is not what was decided, or not deterministic."""
    range_ = report["range"]
    return bool(
        range_["refused"].get("integrity")
        or range_["repeated"]
        or any(c["coverage"]["errors"].get("unexplained") for c in report["candidates"])
    )


_REFUSED = {
    "integrity": "are not what was decided",
    "erased": "are erased: their subjects were forgotten",
    "sealed": "are sealed, and their subjects' keys are not in this key store",
}


def notes(report: Mapping[str, Any]) -> Iterable[str]:
    """What must be said beside the figures: what was not compared, and what is gone."""
    range_ = report["range"]
    for one in [one for one in range_["named"] if one["kind"] != "erased"][:SHOWN]:
        yield f"{one['place']}: {one['message']}"
    for kind, count in range_["refused"].items():
        what = _REFUSED.get(kind, "could not be read as decisions")
        yield f"{count} records {what}; they count neither as changed nor as the same"
    for place in range_["repeated"][:SHOWN]:
        yield f"{place}: its record stands in the log twice, or out of order"
    gaps = range_["gaps"]
    if gaps is not None:
        lost = {name: count for name, count in gaps["by_outcome"].items() if name in ("decided", "expired", "unknown")}
        for name, count in lost.items():
            yield _GONE[name].format(count=count)
        for place in gaps["named"][:SHOWN] if lost else ():
            yield place
    for candidate in report["candidates"]:
        for one in candidate["coverage"]["named"][:SHOWN]:
            yield f"{candidate['policy']}: {one['place']}: {one['message']}"
        for kind, count in candidate["coverage"]["errors"].items():
            told = _KINDS.get(kind, "could not be compared; they count neither as changed nor as the same")
            yield f"{candidate['policy']}: {count} decisions {told}"


_KINDS = {
    "shadow": "were not evaluated by the shadow worker; they count neither as changed nor as the same",
    "record": "have a shadow verdict, and not the record that it speaks of",
    "unexplained": "come out otherwise though policy, memory and engine are the same: that must not be; `lumyn verify`",
    "memory": "can't be answered from recorded memory; `--memory as-of` asks it again",
}
_GONE = {
    "decided": "{count} decisions of the range have no record any more: removed, or compacted away; `lumyn verify`",
    "expired": "{count} requests of the range are older than what the log still holds, and have no record",
    "unknown": "{count} places of the range hold neither record nor receipt: whether they were decisions is not known",
}
