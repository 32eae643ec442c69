"""Pass bars: `flips.ALLOW_to_DENY <= 0.5%`, `failures_caught >= baseline`. Parsed before the run, with columns.

    bar     = figure operator bound
    figure  = name | "upper(" name ")" | "lower(" name ")"       the ends of the 95% interval
    bound   = number | number "%" | "baseline" [("+" | "-") number "%"]

`N%` is a share; a bare whole number is a count of decisions. `baseline` is the same figure of the recorded verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final, Literal, NamedTuple

from schemas.canonical import encode
from schemas.digests import digest
from schemas.errors import UsageError
from streams.backtest.measures import MEASURES, Measure
from streams.policy.suggest import did_you_mean

_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<=": le, ">=": ge, "<": lt, ">": gt, "==": eq, "=": eq, "!=": ne,
}  # fmt: skip
_TOKEN = re.compile(r"\s*(?:(<=|>=|==|!=|[<>=()%+-])|([0-9]+(?:\.[0-9]+)?)|([A-Za-z_][A-Za-z0-9_.-]*))")
_EXAMPLE = "such as `flips.ALLOW_to_DENY <= 0.5%` or `failures_caught >= baseline`"
_SLACK = 1e-12
"""Shares are quotients: 3/1000 and 0.3% are one number."""

Side = Literal["estimate", "lower", "upper"]


@dataclass(frozen=True, slots=True)
class Bar:
    """One condition, applied to every candidate. `bound` is a share (or a difference of shares) unless `counts`."""

    text: str
    measure: Measure
    side: Side
    operator: str
    bound: float
    counts: bool
    from_baseline: bool

    def as_dict(self) -> dict[str, Any]:
        """The bar as understood: what its hash is over."""
        return {
            "measure": self.measure.name,
            "side": self.side,
            "operator": "==" if self.operator == "=" else self.operator,
            "bound": self.bound,
            "counts": self.counts,
            "from_baseline": self.from_baseline,
        }

    def holds(self, value: float, baseline: float) -> bool:
        """Whether a value meets the bar; `baseline` is the recorded verdicts' value."""
        bound = baseline + self.bound if self.from_baseline else self.bound
        if abs(value - bound) <= _SLACK:
            value = bound
        return _OPERATORS[self.operator](value, bound)


def bars_hash(bars: Sequence[Bar]) -> str:
    """What was required, fixed before the run: sha256 of the bars as understood, in order."""
    return digest(encode([bar.as_dict() for bar in bars]))


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


def parse_bar(text: str, measures: Mapping[str, Measure] = MEASURES) -> Bar:
    """Raises `UsageError` that points at the column."""
    tokens = _Tokens(text)
    side: Side = "estimate"
    name = tokens.take("word", "a figure")
    if name.text in ("lower", "upper") and tokens.peek().text == "(":
        side = "lower" if name.text == "lower" else "upper"
        tokens.take("sign", "`(`", "(")
        name = tokens.take("word", "a figure")
        tokens.take("sign", "`)`", ")")
    measure = measures.get(name.text)
    if measure is None:
        near = did_you_mean(name.text, measures)
        known = sorted(one for one in measures if "_to_" not in one)
        raise tokens.error(name, f"there is no figure `{name.text}`{near}", f"known: {', '.join(known)}, flips.A_to_B")
    operator = tokens.take("sign", "one of <=, <, >=, >, ==, !=")
    if operator.text not in _OPERATORS:
        raise tokens.error(operator, f"expected one of <=, <, >=, >, ==, !=, found `{operator.text}`")
    bound, counts, from_baseline = _bound(tokens, measure, side)
    end = tokens.peek()
    if end.kind != "end":
        raise tokens.error(end, f"expected the end, found `{end.text}`")
    return Bar(text.strip(), measure, side, operator.text, bound, counts, from_baseline)


def _bound(tokens: _Tokens, measure: Measure, side: Side) -> tuple[float, bool, bool]:
    first = tokens.take("", "a number, a share like `0.5%`, or `baseline`")
    if first.text == "baseline":
        sign = tokens.peek()
        if sign.text not in ("+", "-"):
            return 0.0, False, True
        tokens.take("sign", "`+` or `-`")
        number = tokens.take("number", "a number")
        tokens.take("sign", "`%` (percentage points)", "%")
        return (-1 if sign.text == "-" else 1) * float(number.text) / 100, False, True
    if first.kind != "number":
        raise tokens.error(first, f"expected a number, a share like `0.5%`, or `baseline`, found `{first.text}`")
    if tokens.peek().text == "%":
        tokens.take("sign", "`%`")
        return float(first.text) / 100, False, False
    if measure.rate_only or side != "estimate" or "." in first.text:
        raise tokens.error(first, f"`{first.text}` is no count of decisions", f"a share is written `{first.text}%`")
    return float(first.text), True, False


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[_Token] = []
        self._next = at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                at += len(text[at:]) - len(text[at:].lstrip())
                raise self.error(_Token("", text[at], at + 1), f"unexpected character `{text[at]}`")
            kind = ("sign", "number", "word")[(found.lastindex or 1) - 1]
            self._tokens.append(_Token(kind, found[found.lastindex or 1], found.start(found.lastindex or 1) + 1))
            at = found.end()
        self._tokens.append(_Token("end", "", len(text.rstrip()) + 1))

    def peek(self) -> _Token:
        return self._tokens[self._next]

    def take(self, kind: str, expected: str, text: str | None = None) -> _Token:
        """The next token, of this kind and text. Raises `UsageError`."""
        token = self.peek()
        if token.kind == "end" or (kind and token.kind != kind) or (text is not None and token.text != text):
            found = "the end" if token.kind == "end" else f"`{token.text}`"
            raise self.error(token, f"expected {expected}, found {found}")
        self._next += 1
        return token

    def error(self, token: _Token, message: str, help_: str = _EXAMPLE) -> UsageError:
        return UsageError(message, where=f"--require '{self._text}':{token.column}", help=help_)
