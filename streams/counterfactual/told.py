"""Counterfactuals in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streams.counterfactual.changes import Change
from streams.counterfactual.numbers import Point
from streams.counterfactual.search import NOTHING_LIKE_IT, Counterfactual, Decided, Searched
from streams.policy.trace import shown
from streams.recorded_text import name_text, one_line, value_text

_SHOWN_ALIKE = 5
_HELD = "what memory answered is held as it was recorded"


def as_dict(searched: Searched, decision_id: str, *, memory_asked: bool) -> dict[str, Any]:
    """The JSON form (docs/explain.md has it field by field)."""
    return {
        "decision_id": decision_id,
        **_decided(searched.original),
        "wanted": searched.wanted,
        "counterfactuals": [_one(one) for one in searched.found],
        "searched": {
            "fields": searched.fields,
            "singles": searched.singles,
            "pairs": searched.pairs,
            "complete": searched.complete,
        },
        "memory": "as of then" if memory_asked else "recorded",
        "held": list(searched.held),
        "notes": list(searched.notes),
        "text": lines_of(searched),
    }


def lines_of(searched: Searched) -> list[str]:
    """A sentence each, the nearest first; then what was held and how far was looked."""
    lines = [_sentence(one) for one in searched.found]
    if not searched.found:
        wanted = f"made it {searched.wanted}" if searched.wanted else "altered the verdict"
        bound = "" if searched.complete else ", as far as was looked"
        lines.append(f"no one change, and no two together, would have {wanted}{bound}")
    looked = f"tried: {searched.singles} changes of {searched.fields} fields"
    looked += f", and {searched.pairs} pairs" if searched.pairs else ""
    lines.append(f"{looked}{'' if searched.complete else '; the bound ended it, so a nearer one is possible'}")
    if searched.recalled and any(change.is_of_request for one in searched.found for change in one.changes):
        lines.append(f"note: {_HELD}, whatever is changed of the request")
    if searched.held:
        lines.append(f"note: not varied: {', '.join(map(name_text, searched.held))}")
    return [one_line(line) for line in (*lines, *(f"note: {note}" for note in searched.notes))]


def _sentence(one: Counterfactual) -> str:
    said = " and ".join(_said(change, span, one.alike) for change, span in zip(one.changes, one.spans, strict=True))
    text = f"had {said}, the verdict would have been {_verdict(one.decided)}"
    if one.asked_again is None:
        return text
    same = one.asked_again.verdict == one.decided.verdict
    other = "it is the same" if same else f"it is {_verdict(one.asked_again)}"
    return f"{text}; with memory asked again for that, {other}"


def _verdict(decided: Decided) -> str:
    return f"{decided.verdict} ({', '.join(map(name_text, decided.reason_codes)) or 'no reason codes'})"


def _said(change: Change, span: Sequence[Change], alike: Sequence[Any]) -> str:
    name, now, was = name_text(change.of), value_text(shown(change.now)), value_text(shown(change.was))
    if change.kind == "memory":
        return "memory known nothing like this" if change.of == NOTHING_LIKE_IT else f"memory not known {name}"
    if change.kind == "kill_switch":
        return f"kill switch {name} been off"
    if change.kind == "control":
        return "the worker been in touch with the control topic"
    if change.kind == "time":
        return f"it been decided at {change.now} (it was {change.was})"
    if change.kind == "removed":
        return f"{name} been absent (it was {was})"
    before = "it was missing" if change.was is None else f"it was {was}"
    if span:
        return f"{name} been {span_text(span)} ({before})"
    if change.unnamed:
        return f"{name} been a text that the policy does not name ({before})"
    more = [value_text(shown(value)) for value in alike]
    others = f", or {', '.join(more[:_SHOWN_ALIKE])}{', ...' if len(more) > _SHOWN_ALIKE else ''}" if more else ""
    return f"{name} been {now}{others} ({before})"


def span_text(span: Sequence[Change]) -> str:
    """`500 or less`, `more than 18`, `at least 100 and less than 200`, `exactly 5`: the run of numbers that flip."""
    low, high = bounds(span)
    if low is not None and high is not None:
        if low == high:
            return f"exactly {low[0]}"
        return f"{'at least' if low[1] else 'more than'} {low[0]} and {'at most' if high[1] else 'less than'} {high[0]}"
    if low is None and high is None:
        return "any number"
    (number, included), way = (low, "more") if low is not None else (high or (0, False), "less")
    return f"{number} or {way}" if included else f"{way} than {number}"


def bounds(span: Sequence[Change]) -> tuple[tuple[Any, bool] | None, tuple[Any, bool] | None]:
    """The lowest and the highest number of the run, each with whether it belongs to it; None: no end."""
    first, last = span[0].point, span[-1].point
    assert first is not None and last is not None
    return _low(first), _high(last)


def _low(point: Point) -> tuple[Any, bool] | None:
    if point.least:
        return None
    if point.is_threshold:
        return point.value, True
    if point.low is None:
        return None
    return (point.low, False) if point.exact else (point.value, True)


def _high(point: Point) -> tuple[Any, bool] | None:
    if point.is_threshold:
        return point.value, True
    if point.high is None:
        return None
    return (point.high, False) if point.exact else (point.value, True)


def _one(one: Counterfactual) -> dict[str, Any]:
    return {
        "changes": [_change(change, span) for change, span in zip(one.changes, one.spans, strict=True)],
        "distance": round(one.distance, 6),
        **_decided(one.decided),
        "alike": [shown(value) for value in one.alike],
        "asked_again": None if one.asked_again is None else _decided(one.asked_again),
        "text": one_line(_sentence(one)),
    }


def _change(change: Change, span: Sequence[Change]) -> dict[str, Any]:
    low, high = bounds(span) if span else (None, None)
    return {
        "field": change.of,
        "kind": change.kind,
        "was": shown(change.was),
        "now": shown(change.now),
        "unnamed": change.unnamed,
        "facts": list(change.facts),
        "range": None
        if not span
        else {
            "from": None if low is None else low[0], "from_included": low is not None and low[1],
            "to": None if high is None else high[0], "to_included": high is not None and high[1],
        },
    }  # fmt: skip


def _decided(decided: Decided) -> dict[str, Any]:
    return {"verdict": decided.verdict, "reason_codes": list(decided.reason_codes)}
