"""Filters of a list as address parameters: every field of the query language, and the names of traceability APIs.

Each parameter becomes a comparison of the one query language; several of one name mean any of them, different names
mean all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Final

from schemas.errors import BadInput, BadQuery
from schemas.query import FIELDS, PATH_ROOTS, And, Expression, Field, Not, OneOf, Or, Query, parse_query
from schemas.verdict import VERDICTS

NUMBERS: Final = tuple(name for name, kind in FIELDS.items() if kind == "number")
BOUNDS: Final = {f"{name}_{end}": (name, sign) for name in NUMBERS for end, sign in (("min", ">="), ("max", "<="))}
SAME: Final = {
    "entity_id": "subject_id", "condition_version": "policy_version", "reason_code": "reason", "rule_id": "rule",
}  # fmt: skip
PLAIN: Final = ("query", "from", "to", "condition_id", "outcome")
PAGING: Final = ("cursor", "limit", "order", "expand")
OUTCOMES: Final = ("triggered", "not_triggered")
KNOWN: Final = (*PLAIN, *PAGING, *FIELDS, *SAME, *BOUNDS)
SAID: Final = {
    "query": "The query language: `verdict=DENY AND amount_usd > 100`.",
    "from": "From this day, minute or second on (UTC).",
    "to": "Up to the end of this day, minute or second (UTC).",
    "condition_id": "A policy's name or a rule's id.",
    "outcome": "`triggered`: a rule fired; `not_triggered`.",
    **{name: f"The same as `{field}`." for name, field in SAME.items()},
    **{name: f"The decision's {name}." for name in FIELDS},
    **{name: f"{field} {sign} this." for name, (field, sign) in BOUNDS.items()},
}
"""What each parameter means. Beside them `evidence.NAME` and the other paths of the query language."""
_BARE = re.compile(r"[A-Za-z0-9_.:+@-]+\Z", re.ASCII)
_SPACE_ZONE = re.compile(r"(?<=:\d\d) (?=\d\d:?\d\d\Z)|(?<=\.\d{3}) (?=\d\d:?\d\d\Z)", re.ASCII)
_WORDS = frozenset({"and", "or", "not", "in", "between"})


def filters(parameters: Iterable[tuple[str, str]], now_ms: int) -> Query | None:
    """The query that a list's parameters mean; None: everything. Raises `BadInput`, `BadQuery` naming the parameter."""
    given: dict[str, list[str]] = {}
    for name, value in parameters:
        if name not in PAGING:
            given.setdefault(_known(name), []).append(value)
    parts = _span(given.get("from"), given.get("to"), now_ms)
    for name, values in given.items():
        parts += [] if name in ("from", "to") else _part(name, values, now_ms)
    if not parts:
        return None
    text = " AND ".join(f"{name}={value}" for name, values in given.items() for value in values)
    return Query(text, parts[0] if len(parts) == 1 else And(tuple(parts)))


def _known(name: str) -> str:
    root, dot, rest = name.partition(".")
    if name in KNOWN or (dot and rest and root in PATH_ROOTS):
        return name
    near = get_close_matches(name[:64], KNOWN, n=1)
    raise BadInput(
        f"unknown parameter `{name[:64]}`" + (f"; did you mean `{near[0]}`?" if near else ""), where="query",
        help=f"fields: {', '.join(KNOWN)}, {', '.join(f'{root}.NAME' for root in PATH_ROOTS)}",
    )  # fmt: skip


def _part(name: str, values: Sequence[str], now_ms: int) -> list[Expression]:
    if name == "query":
        return [parse_query(value, now_ms=now_ms).expression for value in values if value.strip()]
    if name == "outcome":
        return [_any([_outcome(value) for value in values])]
    if name == "condition_id":
        of = [Field("policy", "text"), Field("rule", "codes")]
        return [Or(tuple(OneOf(field, tuple(dict.fromkeys(values))) for field in of))]
    if name in BOUNDS:
        field, sign = BOUNDS[name]
        return [_parsed(name, f"{field} {sign} {_quoted(value)}", now_ms) for value in values]
    field = SAME.get(name, name)
    literal = _quoted if field in FIELDS else _on_path
    listed = ", ".join(literal(value) for value in values)
    return [_parsed(name, f'"{_doubled(field)}" IN ({listed})', now_ms)]


def _outcome(value: str) -> Expression:
    """Whether a rule fired. A verdict is another thing, and often meant."""
    fired = Not(OneOf(Field("rule", "codes"), (None,)))
    if value == "triggered":
        return fired
    if value == "not_triggered":
        return fired.item
    hint = f"; a verdict is `verdict={value.upper()}`" if value.upper() in VERDICTS else ""
    raise BadInput(f"`outcome` is {' or '.join(OUTCOMES)}{hint}", where="outcome")


def _span(start: list[str] | None, end: list[str] | None, now_ms: int) -> list[Expression]:
    """From the beginning of `from` to the end of `to`: a day, minute or second written there is in it, whole."""
    for name, values in (("from", start), ("to", end)):
        if values is not None and len(values) > 1:
            raise BadInput(f"`{name}` is given {len(values)} times", where=name)
    if start and end:
        return [_parsed("from", f"created_at BETWEEN {_time(start[0])} AND {_time(end[0])}", now_ms, "to")]
    if start:
        return [_parsed("from", f"created_at >= {_time(start[0])}", now_ms)]
    return [_parsed("to", f"created_at <= {_time(end[0])}", now_ms)] if end else []


def _time(text: str) -> str:
    """A `+` of a time zone that came unescaped is a space by now."""
    return _quoted(_SPACE_ZONE.sub("+", text))


def _parsed(name: str, text: str, now_ms: int, *more: str) -> Expression:
    try:
        return parse_query(text, now_ms=now_ms).expression
    except BadQuery as error:
        raise BadQuery(error.message, where=" and ".join((name, *more)), help=_help_line(error.help)) from None


def _help_line(help: str | None) -> str | None:
    """Without the pointer: it shows a query that nobody has written."""
    last = (help or "").rpartition("^")[2].strip()
    return last or None


def _any(parts: list[Expression]) -> Expression:
    return parts[0] if len(parts) == 1 else Or(tuple(parts))


def _quoted(value: str) -> str:
    return f"'{value.replace(chr(39), chr(39) * 2)}'"


def _on_path(value: str) -> str:
    """Bare where it can be: then a number, `true` and `null` mean these, too."""
    return value if _BARE.match(value) and value.lower() not in _WORDS else _quoted(value)


def _doubled(name: str) -> str:
    return name.replace('"', '""')
