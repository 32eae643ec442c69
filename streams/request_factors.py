"""What was asked, as factors: the plain values of evidence, `context.inline` and action."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.digests import digest
from schemas.query import Expression, leaves
from schemas.seal import is_sealed
from streams.factors import FEW, MOSTLY, Observed, number
from streams.outcome import ABSENT, LONGEST, plain_values

MOST_FIELDS: Final = 64
"""So many fields are read of each root of a request, and as many are compared: those that most requests have."""
PRESENT: Final = "(present)"
_ROOTS: Final = ("action", "context", "evidence")
_FACTORS_ELSEWHERE: Final = ("action.type", "action.amount.currency")
_LONGEST_WORD: Final = 64
_MOST_WORDS: Final = 6
_TWO: Final = 2
_OF_FIELD: Final[Mapping[str, tuple[str, ...]]] = {
    "policy": ("policy", "policy_hash"),
    "policy_version": ("policy", "policy_hash"),
    "amount": ("action.amount",),
    "amount_usd": ("action.amount",),
    "action.amount.currency": ("currency",),
}
"""Fields of queries that are called otherwise as factors."""


def is_of_request(name: str) -> bool:
    """Whether a factor is a value of the request."""
    return name.partition(".")[0] in _ROOTS and "." in name


def request_factors(record: Mapping[str, Any]) -> dict[str, str] | None:
    """`evidence.NAME`, `context.NAME` (of `context.inline`) and `action.NAME` of a record; None where it is sealed.

    A text of many words is told by its length and digest: the same one is the same value, and its words stay out.
    """
    if is_sealed(record):
        return None
    request = record["request"]
    given = {
        "action": request["action"],
        "context": (request.get("context") or {}).get("inline"),
        "evidence": request.get("evidence"),
    }
    out: dict[str, str] = {}
    for root, fields in given.items():
        if isinstance(fields, Mapping):
            whole = plain_values({root: fields}, most=MOST_FIELDS, cut=_told)
            out |= {name: value for name, value in whole.items() if len(name) < LONGEST}
    return {name: value for name, value in out.items() if name not in _FACTORS_ELSEWHERE}


def _told(text: str) -> str:
    if len(text) <= _LONGEST_WORD and text.count(" ") < _MOST_WORDS - 1:
        return text
    return f"text of {len(text)} characters, {digest(text.encode('utf-8', 'surrogatepass'))[:15]}"


def shown(factors: Mapping[str, str], hidden: Sequence[str]) -> dict[str, str]:
    """The factors without those that `[privacy] redact` keeps out (paths such as `evidence.note`, and all below)."""
    return {name: value for name, value in factors.items() if not under(name, hidden)}


def under(name: str, paths: Collection[str]) -> bool:
    """Whether a dotted name is one of some paths, or below one."""
    return any(name == path or name.startswith(f"{path}.") for path in paths)


def request_kinds(given: Sequence[str]) -> list[str] | None:
    """The values as categories where they are few kinds; else whether there is one; None where there always is one.

    What is another one in more than half of the requests is an id, a name or a text, but for numbers that are enough
    to be binned (`categories`).
    """
    present = [value for value in given if value != ABSENT]
    kinds = set(present)
    many = len(kinds) > _TWO and 2 * len(kinds) > len(present)
    if many and len(kinds) > FEW and sum(number(value) is not None for value in present) >= MOSTLY * len(present):
        many = False
    if not many and (len(present) > 1 or not present):
        return list(given)
    if len(present) == len(given):
        return None
    return [PRESENT if value != ABSENT else ABSENT for value in given]


def beyond(observed: Sequence[Observed]) -> list[str]:
    """The request's fields that are too many to be compared: those that the fewest requests have."""
    held = Counter(name for one in observed for name in one.factors if is_of_request(name))
    out: list[str] = []
    for root in _ROOTS:
        of_root = [name for name in held if name.startswith(f"{root}.")]
        out += sorted(of_root, key=lambda name: (-held[name], name))[MOST_FIELDS:]
    return out


def named_by(expressions: Collection[Expression], names: Collection[str]) -> list[str]:
    """The factors that a query names: that they tell what it finds from the rest says nothing."""
    fields = {leaf.field.name for expression in expressions for leaf in leaves(expression)}
    wanted = set(_wanted(fields))
    return sorted(name for name in names if under(name, wanted))


def _wanted(fields: Collection[str]) -> Iterator[str]:
    for field in fields:
        yield from _OF_FIELD.get(field, (field,))
