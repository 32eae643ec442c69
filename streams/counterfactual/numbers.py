"""The numbers to try for a field: each threshold, and of the spans between them the point nearest to what was asked.

Whatever rules compare a number with, all numbers strictly between two neighbouring thresholds decide alike; so these
few stand for every number there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

Number = int | float
_MOST_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Point:
    """A number to try. `low`, `high` are the thresholds it lies strictly between; both None for a threshold itself.

    `exact`: the thresholds round it are the policy's own, not worked out through a rate.
    """

    value: Number
    low: Number | None = None
    high: Number | None = None
    is_threshold: bool = False
    exact: bool = True
    least: bool = False
    """Nothing below it can be asked."""


def points(current: Number | None, thresholds: Iterable[tuple[Number, float]], least: Number | None) -> list[Point]:
    """The numbers to try, in order. `thresholds` are (compared number, rate): the field times the rate is compared.

    `least`: nothing below it can be asked. Without a current number the span's end nearest to zero stands for it.
    """
    known: dict[Decimal, bool] = {}
    for number, rate in thresholds:
        for value, exact in _in_field(number, rate):
            known[value] = known.get(value, False) or exact
    if not known:
        return []
    if least is not None:
        known.setdefault(_decimal(least), True)
    ends = sorted(known)
    step = _step([*ends, *([] if current is None else [_decimal(current)])])
    near = Decimal(0) if current is None else _decimal(current)
    out: list[Point] = []
    for at, end in enumerate(ends):
        before = ends[at - 1] if at else None
        out += _between(before, end, near, step, _exact(known, before, end))
        out.append(Point(_number(end), None, None, True, known[end], least is not None and end == least))
    out += _between(ends[-1], None, near, step, known[ends[-1]])
    if least is not None:
        out = [point for point in out if point.value >= least]
    return sorted({point.value: point for point in reversed(out)}.values(), key=lambda point: point.value)


def _exact(known: dict[Decimal, bool], low: Decimal | None, high: Decimal | None) -> bool:
    return all(known[end] for end in (low, high) if end is not None)


def _in_field(number: Number, rate: float) -> Iterable[tuple[Decimal, bool]]:
    """A compared number in the field's own terms; through a rate, the hundredths on both sides of it."""
    value = _decimal(number)
    if rate == 1:
        return [(value, True)]
    with localcontext() as context:
        context.prec = 40
        there = value / _decimal(rate)
        cents = Decimal("0.01")
        try:
            return [(there.quantize(cents, side), False) for side in (ROUND_FLOOR, ROUND_CEILING)]
        except ArithmeticError:
            return []


def _between(
    low: Decimal | None, high: Decimal | None, near: Decimal, step: Decimal, exact: bool
) -> list[Point]:
    """The point strictly between two thresholds that is nearest to `near`, a step away from the threshold at most."""
    if (low is None or low < near) and (high is None or near < high):
        value = near
    elif high is not None and near >= high:
        value = high - step if low is None or low < high - step else (low + high) / 2
    else:
        assert low is not None
        value = low + step if high is None or low + step < high else (low + high) / 2
    number = _number(value)
    if (low is not None and number <= _number(low)) or (high is not None and number >= _number(high)):
        return []  # there is no double between them
    ends = [None if end is None else _number(end) for end in (low, high)]
    return [Point(number, ends[0], ends[1], False, exact)]


def _step(values: Sequence[Decimal]) -> Decimal:
    """One unit of the last decimal that any of them has."""
    decimals = max((-int(v.as_tuple().exponent) for v in values if isinstance(v.as_tuple().exponent, int)), default=0)
    return Decimal(1).scaleb(-min(max(decimals, 0), _MOST_DECIMALS))


def _decimal(value: Number) -> Decimal:
    written = Decimal(repr(value))
    return written.quantize(Decimal(1)) if written == written.to_integral_value() and abs(written) < 10**15 else written


def _number(value: Decimal) -> Number:
    whole = value.to_integral_value()
    return int(whole) if whole == value and abs(whole) < 2**53 else float(value)
