"""Facts: what a name in a rule points at in the request, the log's time and the recalled memory.

- Built in: `action_type tenant subject_id subject_type amount currency amount_usd`, `time.hour` (UTC, 0 to
  23), `time.weekday` (1 = Monday), `time.date` (`YYYY-MM-DD`), `time.iso`.
- Paths: `action.* evidence.* context.* subject.* provenance.* memory.*`; `context.x` is `context.inline.x`.
- Any other name is evidence and nothing else: `risk` is `evidence.risk`, `account.rate` is
  `evidence.account.rate`.

Keys may contain dots. At each step the longest key wins: `evidence.a.b.c` is the key `a.b.c`, else `a.b`
holding `c`, else `a` holding `b.c`; the first of these that is there to its end counts, even when its value
is null. null is absent. Lists have no parts.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal, TypeGuard

from schemas.ids import iso_time
from streams.policy.suggest import closest, did_you_mean, quoted

Kind = Literal["text", "number", "flag", "any"]

ROOTS: Final = ("action", "evidence", "context", "subject", "provenance", "memory", "time")
BUILT_IN: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "action_type": "text",
        "tenant": "text",
        "subject_id": "text",
        "subject_type": "text",
        "amount": "number",
        "currency": "text",
        "amount_usd": "number",
        "time.hour": "number",
        "time.weekday": "number",
        "time.date": "text",
        "time.iso": "text",
    }
)
MEMORY_FACTS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "memory.available": "flag",
        "memory.nearby.failure_rate": "number",
        "memory.nearby.lower": "number",
        "memory.nearby.upper": "number",
        "memory.nearby.n_effective": "number",
        "memory.failure_similarity": "number",
        "memory.success_similarity": "number",
        "memory.uncertainty_score": "number",
    }
)
DEFAULT_TENANT: Final = "default"
MAX_NAME: Final = 256
MAX_PARTS: Final = 12

_SAME_FACT: Final = {"action.type": "action_type", "subject.id": "subject_id", "subject.type": "subject_type"}

Steps = tuple[tuple[str, "Steps | None"], ...]
"""How to walk a dotted path: the keys to try, longest first, each with the steps that remain after it."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact by its canonical name; `root` is the part of the request it is in, or `built-in`."""

    name: str
    root: str
    parts: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The type its value has whenever it is there, where that is known."""
        return BUILT_IN.get(self.name) or MEMORY_FACTS.get(self.name) or "any"


@functools.lru_cache(maxsize=4096)
def fact_named(text: str) -> Fact:
    """The fact that a rule means by `text`. Raises `ValueError` saying why there is none."""
    if not text or len(text) > MAX_NAME:
        raise ValueError(f"a fact's name has 1 to {MAX_NAME} characters")
    name = _SAME_FACT.get(text, text)
    if name in BUILT_IN:
        return Fact(name, "built-in")
    parts = tuple(name.split("."))
    if not all(parts) or len(parts) > MAX_PARTS:
        raise ValueError(f"fact {quoted(text)} has an empty part, or more than {MAX_PARTS} parts between its dots")
    root, rest = parts[0], parts[1:]
    if root == "time" and rest:
        raise ValueError(f"unknown time fact {quoted(text)}{did_you_mean(text, _time_facts())}")
    if root not in ROOTS or not rest:
        return Fact(".".join(("evidence", *parts)), "evidence", parts)
    if root == "context" and rest[0] == "inline" and len(rest) > 1:
        rest = rest[1:]
    return Fact(".".join((root, *rest)), root, rest)


@functools.lru_cache(maxsize=4096)
def doubt_about(text: str) -> str | None:
    """Why `text` probably doesn't mean the fact it names, or None."""
    head, dot, _ = text.partition(".")
    fact = fact_named(text)
    if fact.root == "memory" and fact.name not in MEMORY_FACTS:
        near = closest(text, MEMORY_FACTS)
        return f"memory has no fact {quoted(text)}" + (f"; did you mean `{near}`?" if near else "")
    if fact.root != "evidence" or head == "evidence":
        return None
    if not dot and text in ROOTS:
        return f"`{text}` alone means `evidence.{text}`"
    if dot and head in BUILT_IN:
        return f"{quoted(text)} means `evidence.{text}`; `{head}` is a built-in fact without parts"
    near = closest(head, ROOTS) if dot else closest(text, BUILT_IN)
    if near is None or near[0] != head[0]:
        return None
    return f"{quoted(text)} means {quoted('evidence.' + text)}; did you mean `{near + text[len(head) :]}`?"


def _time_facts() -> list[str]:
    return [name for name in BUILT_IN if name.startswith("time.")]


def steps_to(parts: tuple[str, ...]) -> Steps:
    """The steps for `walk`. Tails are shared, so their number grows only with the square of the parts."""
    after: list[Steps] = []
    for start in range(len(parts) - 1, -1, -1):
        tails: list[Steps | None] = [None, *after]
        keys = [".".join(parts[start:end]) for end in range(len(parts), start, -1)]
        after.append(tuple(zip(keys, tails, strict=True)))
    return after[-1]


def walk(node: Any, steps: Steps) -> Any:
    """The value at the end of a dotted path, None when it is absent."""
    return _find(node, steps)[1]


def _find(node: Any, steps: Steps) -> tuple[bool, Any]:
    if node.__class__ is not dict:
        return False, None
    for key, rest in steps:
        if key in node:
            if rest is None:
                return True, node[key]
            found = _find(node[key], rest)
            if found[0]:
                return found
    return False, None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value counts as a number: finite, and true and false are not numbers."""
    return value.__class__ is int or (value.__class__ is float and math.isfinite(value))


def amount_of(action: dict[str, Any]) -> int | float | None:
    """`action.amount.value`, or `action.amount` itself when bare; None when that is no number."""
    amount = action.get("amount")
    value = amount.get("value") if amount.__class__ is dict else amount
    return value if is_number(value) else None


def currency_of(action: dict[str, Any]) -> str | None:
    """`action.amount.currency`; a bare amount has none."""
    amount = action.get("amount")
    currency = amount.get("currency") if amount.__class__ is dict else None
    return currency if currency.__class__ is str else None


def amount_usd_of(action: dict[str, Any], fx: Mapping[str, float]) -> int | float | None:
    """The amount in US dollars: as it is in USD, else times the policy's `fx` rate; None without a rate."""
    amount, currency = amount_of(action), currency_of(action)
    if amount is None or currency is None or currency == "USD":
        return amount if currency == "USD" else None
    rate = fx.get(currency)
    if rate is None:
        return None
    try:
        usd = amount * rate
    except OverflowError:
        return None
    return usd if is_number(usd) else None


def date_of(time_ms: int) -> str:
    """`YYYY-MM-DD`, UTC."""
    return iso_time(time_ms)[:10]
