"""The one query parser: `verdict=DENY AND amount_usd > 100` into a small tree that every index can run.

A comparison with something absent is false, and `!=`, `NOT IN` and `NOT` are plain negations:
`label != failure` finds what was never labelled too. Codes (`reason`, `rule`) and lists match when any
element does. Bare words are text; on a path (`evidence.NAME`) a bare number or `true` also matches the value
of that type, and bare `null` finds what is absent. Times are UTC. An upper bound (`<=`, BETWEEN's second)
written to the day, minute or second includes that whole unit, and `=` means the unit; `>`, `>=` and `<` mean
its first instant.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, Literal

from schemas.errors import BadQuery
from schemas.ids import iso_time
from schemas.limits import MAX_SAFE_INTEGER
from schemas.verdict import VERDICTS

MAX_CHARS: Final = 100_000
MAX_NESTING: Final = 64
MAX_VALUES: Final = 5_000
MAX_PARTS: Final = 12
TODAY: Final = "a time without a day is today's (UTC); give the day: '2024-12-19 23:50'"
LABELS: Final = ("none", "failure", "success", "retracted")

Kind = Literal["verdict", "label", "time", "id", "text", "codes", "number", "any"]
Value = str | int | float | bool | None

FIELDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "verdict": "verdict",
        "action_type": "text",
        "created_at": "time",
        "tenant": "text",
        "reason": "codes",
        "rule": "codes",
        "policy": "text",
        "policy_version": "text",
        "label": "label",
        "decision_id": "id",
        "request_id": "text",
        "subject_id": "text",
        "subject_type": "text",
        "amount": "number",
        "currency": "text",
        "amount_usd": "number",
        "engine": "text",
        "inputs_digest": "text",
        "uncertainty_score": "number",
        "failure_similarity": "number",
    }
)
PATH_ROOTS: Final = ("provenance", "evidence", "action", "context", "subject")
_ALIASES: Final = {
    "reason_code": "reason",
    "reason_codes": "reason",
    "rules": "rule",
    "rule_id": "rule",
    "subject": "subject_id",
    "entity_id": "subject_id",
    "subject.id": "subject_id",
    "subject.type": "subject_type",
    "action.type": "action_type",
    "id": "decision_id",
}
_MEANT: Final = {
    "action": "action_type",
    "time": "created_at",
    "date": "created_at",
    "timestamp": "created_at",
    "outcome": "verdict",
    "decision": "verdict",
    "user": "subject_id",
    "version": "policy_version",
}


@dataclass(frozen=True, slots=True)
class Field:
    """What is compared. `path` is set for names under one of `PATH_ROOTS`: the keys below the root."""

    name: str
    kind: Kind
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field equals one of these; None stands for absent."""

    field: Field
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The field lies between bounds; a bound of None is open. Times are milliseconds since 1970."""

    field: Field
    low: str | int | float | None = None
    high: str | int | float | None = None
    above: bool = False
    below: bool = False
    """`above`: greater than `low`, not equal; `below`: less than `high`, not equal."""


@dataclass(frozen=True, slots=True)
class And:
    """All of these."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of these."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Not this."""

    item: Expression


Leaf = OneOf | Range
Expression = OneOf | Range | And | Or | Not


@dataclass(frozen=True, slots=True)
class Query:
    """A query as understood; `text` is as it was written."""

    text: str
    expression: Expression


def parse_query(text: str, *, now_ms: int) -> Query:
    """Parse a query. `now_ms` (since 1970) says which day a bare '14:25' is on. Raises `BadQuery`."""
    return Query(text, _Parser(text, now_ms).parse())


def describe(query: Query) -> str:
    """The query as understood, in the query language itself, every time in full."""
    return _written(query.expression)


def matches(query: Query, facts: Mapping[str, Any]) -> bool:
    """Whether a decision's facts meet the query.

    `facts` holds the fields by name (`created_at` in milliseconds, `reason` and `rule` as sequences, `label`
    one of `LABELS`) and the roots of paths as mappings; what is absent is None or left out.
    """
    return holds(query.expression, facts)


def holds(expression: Expression, facts: Mapping[str, Any]) -> bool:
    """`matches` for a part of a query."""
    match expression:
        case And(items):
            return all(holds(item, facts) for item in items)
        case Or(items):
            return any(holds(item, facts) for item in items)
        case Not(item):
            return not holds(item, facts)
        case OneOf(field, wanted):
            found = _values(field, facts)
            if not found:
                return None in wanted
            return any(_same(value, want) for value in found for want in wanted)
        case Range():
            return any(_within(value, expression) for value in _values(expression.field, facts))


def leaves(expression: Expression) -> Iterator[Leaf]:
    """Every comparison in it."""
    match expression:
        case And(items) | Or(items):
            for item in items:
                yield from leaves(item)
        case Not(item):
            yield from leaves(item)
        case _:
            yield expression


def with_values(expression: Expression, field: str, more: Callable[[Value], Sequence[Value]]) -> Expression:
    """The same with `more` values beside each one that a field is compared with: other names of the same thing."""
    match expression:
        case And(items):
            return And(tuple(with_values(item, field, more) for item in items))
        case Or(items):
            return Or(tuple(with_values(item, field, more) for item in items))
        case Not(item):
            return Not(with_values(item, field, more))
        case OneOf(named, values) if named.name == field and not named.path:
            return OneOf(named, (*values, *(other for value in values for other in more(value))))
        case _:
            return expression


def value_at(node: Any, path: tuple[str, ...]) -> Any:
    """The value at a dotted path, None when absent. Keys may hold dots: at each step the longest key wins."""
    return _walk(node, path)[1]


def _walk(node: Any, path: tuple[str, ...]) -> tuple[bool, Any]:
    if not isinstance(node, Mapping):
        return False, None
    for end in range(len(path), 0, -1):
        key = ".".join(path[:end])
        if key in node:
            found = (True, node[key]) if end == len(path) else _walk(node[key], path[end:])
            if found[0]:
                return found
    return False, None


def _values(field: Field, facts: Mapping[str, Any]) -> tuple[Any, ...]:
    if field.path:
        value = value_at(facts.get(field.name.partition(".")[0]), field.path)
    else:
        value = facts.get(field.name)
    many = value if isinstance(value, list | tuple) else (value,)
    return tuple(item for item in many if item is not None)


def _same(value: Any, want: Value) -> bool:
    return _type(value) == _type(want) and bool(value == want)


def _within(value: Any, bounds: Range) -> bool:
    low, high = bounds.low, bounds.high
    if _type(value) != _type(low if low is not None else high) or _type(value) not in ("number", "text"):
        return False
    if low is not None and (value < low or (bounds.above and value == low)):
        return False
    return high is None or value < high or (value == high and not bounds.below)


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "flag"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else "other"


def _written(expression: Expression) -> str:
    match expression:
        case And(items):
            return " AND ".join(_enclosed(item) for item in items)
        case Or(items):
            return " OR ".join(_enclosed(item) for item in items)
        case Not(OneOf(field, values)) if len(values) == 1:
            return f"{_name(field)} != {_literal(field, values[0])}"
        case Not(OneOf(field, values)):
            return f"{_name(field)} NOT IN ({', '.join(_literal(field, value) for value in values)})"
        case Not(item):
            return f"NOT ({_written(item)})"
        case OneOf(field, values) if len(values) == 1:
            return f"{_name(field)} = {_literal(field, values[0])}"
        case OneOf(field, values):
            return f"{_name(field)} IN ({', '.join(_literal(field, value) for value in values)})"
        case Range(field, low, high, above, below):
            parts = []
            if low is not None:
                parts.append(f"{_name(field)} {'>' if above else '>='} {_literal(field, low)}")
            if high is not None:
                parts.append(f"{_name(field)} {'<' if below else '<='} {_literal(field, high)}")
            return " AND ".join(parts)


def _enclosed(expression: Expression) -> str:
    text = _written(expression)
    composite = isinstance(expression, And | Or) or (isinstance(expression, Range) and " AND " in text)
    return f"({text})" if composite else text


def _name(field: Field) -> str:
    return field.name if _BARE.fullmatch(field.name) else '"' + field.name.replace('"', '""') + '"'


def _literal(field: Field, value: Value) -> str:
    if field.kind == "time" and isinstance(value, int):
        return f"'{iso_time(value)}'"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, str) and field.kind in ("verdict", "label"):
        return value
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


_BARE = re.compile(r"""[^\s()=<>!,'";]+""")
_TOKEN = re.compile(
    r"""\s*+(?:(?P<word>[^\s()=<>!,'";]+)|(?P<op><=|>=|<>|!=|==|=|<|>)|(?P<mark>[(),])"""
    r"""|(?P<text>'(?:[^']|'')*+'|"(?:[^"]|"")*+")|(?P<end>\Z))"""
)
_OPERATORS = "=, !=, <, <=, >, >=, IN, NOT IN or BETWEEN"
_KEYWORDS = frozenset({"and", "or", "not", "in", "between"})


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int

    def says(self, word: str) -> bool:
        return self.kind in ("word", "mark") and self.text.lower() == word


class _Parser:
    """Recursive descent; depth is counted, so that no input can exhaust the stack."""

    def __init__(self, text: str, now_ms: int) -> None:
        self._text = text
        self._now = now_ms
        self._depth = 0
        self._count = 0
        self._next = 0
        self._tokens = list(self._read())

    def _read(self) -> Iterator[_Token]:
        if len(self._text) > MAX_CHARS:
            raise self._error(0, f"a query has at most {MAX_CHARS} characters, this one {len(self._text)}")
        bad = re.search("[\0\ud800-\udfff]", self._text)
        if bad:
            raise self._error(bad.start(), f"a query can't hold the character U+{ord(bad[0]):04X}")
        at = 0
        while True:
            found = _TOKEN.match(self._text, at)
            if found is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                quote = self._text[at] in "'\""
                raise self._error(
                    at, "this quote is never closed" if quote else f"unexpected character {_shown(self._text[at])}"
                )
            kind = str(found.lastgroup)
            text, start = found[kind], found.start(kind)
            yield _Token(kind, text[1:-1].replace(text[0] * 2, text[0]) if kind == "text" else text, start)
            if kind == "end":
                return
            at = found.end()

    def parse(self) -> Expression:
        if self._peek().kind == "end":
            raise self._error(0, "the query is empty", "example: `verdict=DENY AND action_type=refund`")
        expression = self._or()
        token = self._peek()
        if token.kind != "end":
            raise self._error(token.at, f"expected AND, OR or the end, found {_shown(token.text)}")
        return expression

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, expected: str) -> _Token:
        token = self._tokens[self._next]
        if token.kind == "end":
            raise self._error(token.at, f"expected {expected}, found the end")
        self._next += 1
        return token

    def _takes(self, word: str) -> bool:
        if self._peek().says(word):
            self._next += 1
            return True
        return False

    def _or(self) -> Expression:
        return self._joined("or", self._and, Or)

    def _and(self) -> Expression:
        return self._joined("and", self._not, And)

    def _joined(self, word: str, part: Callable[[], Expression], node: type[And] | type[Or]) -> Expression:
        items = [part()]
        while self._takes(word):
            items.append(part())
        return items[0] if len(items) == 1 else node(tuple(items))

    def _not(self) -> Expression:
        token = self._peek()
        if not (token.says("not") or token.says("(")):
            return self._comparison()
        self._next += 1
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise self._error(token.at, f"nested deeper than {MAX_NESTING} levels")
        if token.says("not"):
            expression: Expression = Not(self._not())
        else:
            expression = self._or()
            closing = self._take("`)`")
            if not closing.says(")"):
                raise self._error(closing.at, f"expected AND, OR or `)`, found {_shown(closing.text)}")
        self._depth -= 1
        return expression

    def _comparison(self) -> Expression:
        token = self._take("a field")
        if token.kind not in ("word", "text") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            raise self._error(token.at, f"expected a field, found {_shown(token.text)}")
        field = self._field(token)
        operator = self._take(f"one of {_OPERATORS}")
        if operator.says("not"):
            inside = self._take("IN or BETWEEN")
            if not (inside.says("in") or inside.says("between")):
                raise self._error(inside.at, f"expected IN or BETWEEN after NOT, found {_shown(inside.text)}")
            return Not(self._in(field) if inside.says("in") else self._between(field))
        if operator.says("in"):
            return self._in(field)
        if operator.says("between"):
            return self._between(field)
        if operator.kind != "op":
            raise self._error(operator.at, f"expected one of {_OPERATORS}, found {_shown(operator.text)}")
        value = self._value()
        if operator.text in ("=", "=="):
            return self._equal(field, [value])
        if operator.text in ("!=", "<>"):
            return Not(self._equal(field, [value]))
        return self._ordered(field, operator, value)

    def _field(self, token: _Token) -> Field:
        lowered = token.text.lower()
        name = _ALIASES.get(lowered, lowered)
        if name in FIELDS:
            return Field(name, FIELDS[name])
        root, dot, rest = token.text.partition(".")
        root = root.lower()
        if dot and root in PATH_ROOTS:
            parts = tuple(rest.split("."))
            if root == "context" and parts[0] == "inline" and len(parts) > 1:
                parts = parts[1:]
            if not all(parts) or len(parts) > MAX_PARTS:
                problem = f"has an empty part or more than {MAX_PARTS} parts"
                raise self._error(token.at, f"{_shown(token.text)} {problem}")
            return Field(".".join((root, *parts)), "any", parts)
        near = _MEANT.get(name) or _nearest(name, (*FIELDS, *_ALIASES))
        hint = f"did you mean `{near}`?" if near else f"evidence is `evidence.{token.text[:40]}`"
        raise self._error(
            token.at,
            f"unknown field {_shown(token.text)}; {hint}",
            "fields: " + ", ".join((*FIELDS, *(f"{root}.NAME" for root in PATH_ROOTS))),
        )

    def _value(self) -> _Token:
        token = self._take("a value")
        if token.kind not in ("word", "text") or (token.kind == "word" and token.text.lower() in _KEYWORDS):
            raise self._error(token.at, f"expected a value, found {_shown(token.text)}", "quote text")
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._error(token.at, f"a query compares with at most {MAX_VALUES} values")
        return token

    def _in(self, field: Field) -> Expression:
        opening = self._take("`(`")
        if not opening.says("("):
            raise self._error(opening.at, f"expected `(` after IN, found {_shown(opening.text)}")
        values = [self._value()]
        while self._takes(","):
            values.append(self._value())
        closing = self._take("`,` or `)`")
        if not closing.says(")"):
            raise self._error(closing.at, f"expected `,` or `)`, found {_shown(closing.text)}")
        return self._equal(field, values)

    def _between(self, field: Field) -> Expression:
        low = self._value()
        word = self._take("AND")
        if not word.says("and"):
            raise self._error(word.at, f"expected AND between BETWEEN's bounds, found {_shown(word.text)}")
        high = self._value()
        self._check_ordered(field, low)
        if field.kind == "time":
            span = Range(field, self._time(low)[0], self._time(high)[1], below=True)
        else:
            span = Range(field, self._bound(field, low), self._bound(field, high))
        if _type(span.low) != _type(span.high):
            raise self._error(high.at, "BETWEEN's bounds must both be numbers or both be text")
        if span.low > span.high or (span.below and span.low == span.high):  # type: ignore[operator]
            bare = field.kind == "time" and not all("-" in token.text for token in (low, high))
            raise self._error(low.at, "this range ends before it begins", TODAY if bare else None)
        return span

    def _equal(self, field: Field, tokens: list[_Token]) -> Expression:
        if field.kind == "time":
            spans = [Range(field, *self._time(token), below=True) for token in tokens]
            return spans[0] if len(spans) == 1 else Or(tuple(spans))
        if field.name == "policy" and any("@" in token.text for token in tokens):
            policies = [self._policy(field, token) for token in tokens]
            return policies[0] if len(policies) == 1 else Or(tuple(policies))
        values = [value for token in tokens for value in self._literals(field, token)]
        return OneOf(field, tuple({(_type(value), value): value for value in values}.values()))

    def _policy(self, field: Field, token: _Token) -> Expression:
        name, at, version = token.text.rpartition("@")
        if not at:
            return OneOf(field, (token.text,))
        if not name or not version:
            raise self._error(token.at, f"expected NAME or NAME@VERSION, found {_shown(token.text)}")
        return And((OneOf(field, (name,)), OneOf(Field("policy_version", "text"), (version,))))

    def _literals(self, field: Field, token: _Token) -> list[Value]:
        """What a value can mean to a field; a bare word on a path may mean more than one type."""
        text, bare = token.text, token.kind == "word"
        if field.kind == "verdict":
            return [self._choice(token, text.upper(), VERDICTS, "verdict")]
        if field.kind == "label":
            return [self._choice(token, text.lower(), LABELS, "label")]
        if field.kind == "id":
            return [text.upper()]
        if bare and text.lower() == "null":
            return [None]
        if field.kind == "number":
            return [self._number(token)]
        if field.kind == "any" and bare:
            number = _number(text)
            if number is not None:
                return [number, text]
            if text.lower() in ("true", "false"):
                return [text.lower() == "true", text]
        return [text]

    def _choice(self, token: _Token, word: str, choices: tuple[str, ...], what: str) -> str:
        if word in choices:
            return word
        near = _nearest(word.lower(), [choice.lower() for choice in choices])
        meant = next((choice for choice in choices if choice.lower() == near), None)
        raise self._error(
            token.at,
            f"unknown {what} {_shown(token.text)}"
            + (f"; did you mean `{meant}`?" if meant else f": it is one of {', '.join(choices)}"),
        )

    def _number(self, token: _Token) -> int | float:
        number = _number(token.text)
        if number is None:
            raise self._error(token.at, f"expected a number, found {_shown(token.text)}")
        return number

    def _check_ordered(self, field: Field, token: _Token) -> None:
        if field.kind not in ("time", "number", "any"):
            raise self._error(token.at, f"`{field.name}` has no order; compare it with =, !=, IN or NOT IN")

    def _bound(self, field: Field, token: _Token) -> str | int | float:
        number = _number(token.text) if token.kind == "word" else None
        if field.kind == "number" or number is not None:
            return self._number(token)
        return token.text

    def _ordered(self, field: Field, operator: _Token, token: _Token) -> Expression:
        self._check_ordered(field, token)
        sign = operator.text
        if field.kind == "time":
            start, end = self._time(token)
            if sign in (">", ">="):
                return Range(field, low=start, above=sign == ">")
            return Range(field, high=end if sign == "<=" else start, below=True)
        bound = self._bound(field, token)
        if sign in (">", ">="):
            return Range(field, low=bound, above=sign == ">")
        return Range(field, high=bound, below=sign == "<")

    def _time(self, token: _Token) -> tuple[int, int]:
        """[start, end) in milliseconds of the day, minute, second or millisecond that was written."""
        found = _TIME.fullmatch(token.text.strip())
        try:
            if found and (found["day"] or found["clock"]):
                return _span(found, self._now)
        except (ValueError, OverflowError):
            pass
        raise self._error(
            token.at,
            f"{_shown(token.text)} is not a time",
            "UTC: '2024-12-19', '2024-12-19 14:00', '2024-12-19T14:00:00Z', '14:25' (today)",
        )

    def _error(self, at: int, message: str, help: str | None = None) -> BadQuery:
        before = self._text[:at]
        line, column = before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1
        return BadQuery(
            message, where=f"query:{line}:{column}", help=_pointed(self._text, at) + (f"\n  {help}" if help else "")
        )


_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)?(?:(?(day)(?:[Tt]|\s+))(?P<clock>\d{1,2}:\d\d)"
    r"(?::(?P<second>\d\d)(?:\.(?P<part>\d{1,9}))?)?\s?(?P<zone>[Zz]|UTC|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def _span(found: re.Match[str], now_ms: int) -> tuple[int, int]:
    day = found["day"] or iso_time(now_ms)[:10]
    clock = (found["clock"] or "00:00").rjust(5, "0")
    moment = datetime.strptime(f"{day} {clock}:{found['second'] or '00'}+0000", "%Y-%m-%d %H:%M:%S%z")
    zone = found["zone"] or "Z"
    if zone[0] in "+-":
        digits = zone[1:].replace(":", "")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment -= offset if zone[0] == "+" else -offset
    start = (moment - _EPOCH) // _MS + int((found["part"] or "0").ljust(3, "0")[:3])
    unit = 1 if found["part"] else 1000 if found["second"] else 60_000 if found["clock"] else 86_400_000
    iso_time(start + unit)  # both ends must be times that can be written
    return start, start + unit


def _number(text: str) -> int | float | None:
    if not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?", text, re.ASCII) or len(text) > 400:
        return None
    number = int(text) if text.lstrip("+-").isdigit() else float(text)
    if isinstance(number, int) and abs(number) > MAX_SAFE_INTEGER:
        number = float(text)
    return number if math.isfinite(number) else None


def _nearest(word: str, options: Any) -> str | None:
    near = difflib.get_close_matches(word[:64], options, n=1, cutoff=0.6)
    return near[0] if near else None


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def _shown(text: str) -> str:
    return f"`{_plain(text if len(text) <= 60 else text[:59] + '…')}`"


def _pointed(text: str, at: int) -> str:
    """The line with a caret under the column; a long line is cut round it."""
    begin = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line, column = text[begin : end if end >= 0 else len(text)], at - begin
    left = max(0, column - 60)
    right = "…" if len(line) > column + 40 else ""
    shown = ("…" if left else "") + _plain(line[left : column + 40]) + right
    return f"here:\n    {shown}\n    {' ' * (column - left + bool(left))}^"
