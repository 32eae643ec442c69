"""The operators: what each may be compared with, what it says of a value, the Python it compiles to.

Each says True, False or None (unknown): None for an absent value and for a value of a type it can't judge. In
the compiled form that is two Python expressions, "certainly true" and "certainly false"; neither holds when
it is unknown. Numbers compare by value (1 equals 1.0); true and 1 are different; a number that is not finite
is of the wrong type.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import re2

from streams.policy.facts import is_number
from streams.policy.suggest import listed, quoted

OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "=": "eq", "==": "eq", "equals": "eq", "equal": "eq", "is": "eq",
        "!=": "ne", "<>": "ne", "neq": "ne", "not_eq": "ne", "not_equals": "ne", "isnot": "ne",
        ">": "gt", "greater": "gt", "greater_than": "gt", "above": "gt", "over": "gt", "more_than": "gt",
        ">=": "gte", "ge": "gte", "min": "gte", "at_least": "gte", "greater_or_equal": "gte",
        "<": "lt", "less": "lt", "less_than": "lt", "below": "lt", "under": "lt",
        "<=": "lte", "le": "lte", "max": "lte", "at_most": "lte", "less_or_equal": "lte",
        "range": "between", "one_of": "in", "any_of": "in",
        "nin": "not_in", "none_of": "not_in", "notin": "not_in",
        "has": "contains", "includes": "contains", "startswith": "starts_with", "prefix": "starts_with",
        "endswith": "ends_with", "suffix": "ends_with",
        "regex": "matches", "regexp": "matches", "match": "matches",
        "re": "matches", "present": "exists", "defined": "exists",
        "and": "all", "or": "any", "none": "not", "all_of": "all",
    }
)  # fmt: skip

Truth = bool | None


class Names(Protocol):
    """How the generated code calls one fact; asking for a form makes the prelude provide it."""

    @property
    def value(self) -> str:
        """The fact as it is; None when absent."""

    @property
    def number(self) -> str:
        """The fact as a number; NaN when it is none, so that every comparison is false."""

    @property
    def is_text(self) -> str:
        """Whether the fact is text."""

    def pattern(self, text: str) -> str:
        """The compiled RE2 pattern."""


@dataclass(frozen=True, slots=True)
class Operator:
    """`problem`: what is wrong with an operand, if anything; `code`: (certainly true, certainly false)."""

    name: str
    problem: Callable[[Any], str | None]
    test: Callable[[Any, Any], Truth]
    code: Callable[[Any, Names], tuple[str, str]]


def kind_of(value: Any) -> str | None:
    """`text`, `number`, `flag`, or None for what can't be compared."""
    if value.__class__ is str:
        return "text"
    if value.__class__ is bool:
        return "flag"
    return "number" if is_number(value) else None


def same(a: Any, b: Any) -> bool:
    """Equal and of one kind: 1 equals 1.0 but not true."""
    return kind_of(a) is not None and kind_of(a) == kind_of(b) and a == b


# Equality


def _scalar_problem(want: Any) -> str | None:
    if want is None:
        return "can't compare with null; use `exists: false` for a fact that must be absent"
    if kind_of(want) is None:
        return "takes one text, number, true or false; for several values use `in`"
    return None


def _is_equal(want: Any, value: Any) -> Truth:
    return value == want if kind_of(value) == kind_of(want) and value is not None else None


def _equal_code(want: Any, names: Names) -> tuple[str, str]:
    if want.__class__ is bool:
        return f"{names.value} is {want}", f"{names.value} is {not want}"
    if want.__class__ is str:
        return f"{names.value} == {want!a}", f"({names.is_text} and {names.value} != {want!a})"
    return f"{names.number} == {want!r}", f"({names.number} < {want!r} or {names.number} > {want!r})"


# Order


def _order_problem(want: Any) -> str | None:
    if kind_of(want) in ("number", "text"):
        return None
    return "takes a number, or text to compare with text such as dates"


def _order_test(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Truth]:
    def test(want: Any, value: Any) -> Truth:
        return compare(value, want) if kind_of(value) == kind_of(want) else None

    return test


def _order_code(yes: str, no: str) -> Callable[[Any, Names], tuple[str, str]]:
    def code(want: Any, names: Names) -> tuple[str, str]:
        if want.__class__ is str:
            text, value, literal = names.is_text, names.value, ascii(want)
            return f"({text} and {value} {yes} {literal})", f"({text} and {value} {no} {literal})"
        return f"{names.number} {yes} {want!r}", f"{names.number} {no} {want!r}"

    return code


def _between_problem(want: Any) -> str | None:
    if want.__class__ is not tuple or len(want) != 2 or any(_order_problem(end) for end in want):
        return "takes a list of two, the lowest and the highest value"
    if kind_of(want[0]) != kind_of(want[1]):
        return "takes two numbers or two texts, not one of each"
    return "takes the lowest value first" if want[0] > want[1] else None


def _is_between(want: Any, value: Any) -> Truth:
    return want[0] <= value <= want[1] if kind_of(value) == kind_of(want[0]) else None


def _between_code(want: Any, names: Names) -> tuple[str, str]:
    low, high = ascii(want[0]), ascii(want[1])
    if want[0].__class__ is str:
        text, value = names.is_text, names.value
        return f"({text} and {low} <= {value} <= {high})", f"({text} and not {low} <= {value} <= {high})"
    return f"{low} <= {names.number} <= {high}", f"({names.number} < {low} or {names.number} > {high})"


# Membership


def _in_problem(want: Any) -> str | None:
    if want.__class__ is not tuple:
        return "takes a list of values"
    return None if all(kind_of(item) for item in want) else "takes a list of texts, numbers, true or false"


def _is_in(want: Any, value: Any) -> Truth:
    kind = kind_of(value)
    if kind is None or (want and all(kind_of(item) != kind for item in want)):
        return None
    return any(same(item, value) for item in want)


def _in_code(want: Any, names: Names) -> tuple[str, str]:
    found, judged = [], []
    for kind in ("text", "number", "flag"):
        items = [item for item in want if kind_of(item) == kind]
        if not items and want:
            continue
        judges, value = _judge_code(kind, names)
        judged.append(judges)
        if items:
            found.append(f"{judges} and {value} in {{{', '.join(ascii(item) for item in items)}}}")
    if not found:
        return "False", f"({' or '.join(judged)})"
    if len(judged) == 1:
        return f"({found[0]})", f"({found[0].replace(' in ', ' not in ', 1)})"
    true = f"({' or '.join(found)})"
    return true, f"(({' or '.join(judged)}) and not {true})"


def _judge_code(kind: str, names: Names) -> tuple[str, str]:
    """Whether the fact is of the kind, and the local to look for."""
    if kind == "text":
        return names.is_text, names.value
    if kind == "number":
        return f"{names.number} == {names.number}", names.number
    return f"{names.value}.__class__ is bool", names.value


# Text and lists


def contains(value: Any, want: Any) -> Truth:
    """Whether a text holds a text, or a list a value; None when the fact is neither."""
    if value.__class__ is list:
        return any(same(item, want) for item in value)
    if value.__class__ is str and want.__class__ is str:
        return want in value
    return None


def _contains_code(want: Any, names: Names) -> tuple[str, str]:
    call = f"contains({names.value}, {want!a})"
    return f"{call} is True", f"{call} is False"


def _affix_problem(want: Any) -> str | None:
    return None if want.__class__ is str and want else "takes a text of at least one character"


def _affix(method: str) -> tuple[Callable[[Any, Any], Truth], Callable[[Any, Names], tuple[str, str]]]:
    call = operator.methodcaller

    def test(want: Any, value: Any) -> Truth:
        return bool(call(method, want)(value)) if value.__class__ is str else None

    def code(want: Any, names: Names) -> tuple[str, str]:
        text, called = names.is_text, f"{names.value}.{method}({want!a})"
        return f"({text} and {called})", f"({text} and not {called})"

    return test, code


@functools.lru_cache(maxsize=4096)
def compile_pattern(text: str) -> Any:
    """An RE2 pattern, which searches in time linear in the text. Raises `ValueError` with RE2's reason."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        reason = error.args[0] if error.args else "not a pattern"
        said = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"bad pattern: {said}") from None


def _matches_problem(want: Any) -> str | None:
    if want.__class__ is not str or not want:
        return "takes a pattern (RE2) in quotes"
    try:
        compile_pattern(want)
    except ValueError as error:
        return f"{quoted(want)}: {error}"
    return None


def found(pattern: Any, value: Any) -> Truth:
    """Whether the pattern is anywhere in a text; None when the value is no text."""
    if value.__class__ is not str:
        return None
    try:
        return pattern.search(value) is not None
    except UnicodeEncodeError:
        return None


def _is_match(want: Any, value: Any) -> Truth:
    return found(compile_pattern(want), value)


def _matches_code(want: Any, names: Names) -> tuple[str, str]:
    call = f"found({names.pattern(want)}, {names.value})"
    return f"{call} is True", f"{call} is False"


# Presence


def _exists_problem(want: Any) -> str | None:
    return None if want.__class__ is bool else "takes `true` or `false`"


def _exists_code(want: Any, names: Names) -> tuple[str, str]:
    there, absent = f"{names.value} is not None", f"{names.value} is None"
    return (there, absent) if want else (absent, there)


def _negated(name: str, of: Operator) -> Operator:
    def test(want: Any, value: Any) -> Truth:
        truth = of.test(want, value)
        return None if truth is None else not truth

    def code(want: Any, names: Names) -> tuple[str, str]:
        true, false = of.code(want, names)
        return false, true

    return Operator(name, of.problem, test, code)


_EQ = Operator("eq", _scalar_problem, _is_equal, _equal_code)
_IN = Operator("in", _in_problem, _is_in, _in_code)
_ALL = (
    _EQ,
    _negated("ne", _EQ),
    Operator("gt", _order_problem, _order_test(operator.gt), _order_code(">", "<=")),
    Operator("gte", _order_problem, _order_test(operator.ge), _order_code(">=", "<")),
    Operator("lt", _order_problem, _order_test(operator.lt), _order_code("<", ">=")),
    Operator("lte", _order_problem, _order_test(operator.le), _order_code("<=", ">")),
    Operator("between", _between_problem, _is_between, _between_code),
    _IN,
    _negated("not_in", _IN),
    Operator("contains", _scalar_problem, lambda want, value: contains(value, want), _contains_code),
    Operator("starts_with", _affix_problem, *_affix("startswith")),
    Operator("ends_with", _affix_problem, *_affix("endswith")),
    Operator("matches", _matches_problem, _is_match, _matches_code),
    Operator("exists", _exists_problem, lambda want, value: (value is not None) is want, _exists_code),
)
OPERATORS: Final[Mapping[str, Operator]] = MappingProxyType({one.name: one for one in _ALL})
EVERY_NAME: Final = listed(OPERATORS)
