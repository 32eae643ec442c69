"""Reading a rule's `if` into a normalised condition.

Several keys in a mapping mean all of them, so their order is dropped (sorted); the order of a list is kept.
An `all` inside an `all` is flattened, an `all` or `any` of one is that one. Two files with one normal form
decide and explain alike.
"""

from __future__ import annotations

from schemas.canonical import encode
from streams.policy.facts import MEMORY_FACTS, ROOTS, Fact, doubt_about, fact_named
from streams.policy.findings import Findings
from streams.policy.operators import EVERY_NAME, OPERATORS, OTHER_NAMES
from streams.policy.read import Unreadable, items_of, kind_name, scalar_value
from streams.policy.rules import ALWAYS, AllOf, AnyOf, Condition, Leaf, Not, condition_ir
from streams.policy.source import Entries, Items, Node, Scalar
from streams.policy.suggest import did_you_mean, quoted

MAX_NESTING = 32
COMBINATORS = ("all", "any", "not")


def read_condition(node: Node, out: Findings, depth: int = 0) -> Condition:
    """A condition from its mapping. Raises `Unreadable` once everything wrong inside has been reported."""
    if not isinstance(node, Entries):
        out.error(node.mark, f"a condition is a mapping such as `{{risk: {{gte: 0.8}}}}`, not {kind_name(node)}")
        raise Unreadable
    if depth > MAX_NESTING:
        out.error(node.mark, f"conditions nested deeper than {MAX_NESTING} levels")
        raise Unreadable
    if not node.entries and depth:
        out.error(node.mark, "an empty condition")
        raise Unreadable
    parts: list[Condition] = []
    failed = False
    for key, value in node.entries:
        try:
            parts.append(_part(key, value, out, depth))
        except Unreadable:
            failed = True
    if failed:
        raise Unreadable
    return _all_of(_flat(_sorted(parts)))


def _part(key: Scalar, value: Node, out: Findings, depth: int) -> Condition:
    if key.text == "not":
        return Not(read_condition(value, out, depth + 1))
    if key.text in COMBINATORS:
        return _combined(key, value, out, depth)
    return _comparisons(key, value, out)


def _combined(key: Scalar, value: Node, out: Findings, depth: int) -> Condition:
    items = items_of(value, f"`{key.text}`", out)
    if not items:
        out.error(value.mark, f"`{key.text}` needs at least one condition")
        raise Unreadable
    parts: list[Condition] = []
    for item in items:
        try:
            parts.append(read_condition(item, out, depth + 1))
        except Unreadable:
            continue
    if len(parts) < len(items):
        raise Unreadable
    if key.text == "all":
        return _all_of(_flat(parts))
    return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))


def _sorted(parts: list[Condition]) -> list[Condition]:
    return sorted(parts, key=lambda part: encode(condition_ir(part))) if len(parts) > 1 else parts


def _flat(parts: list[Condition]) -> list[Condition]:
    flat: list[Condition] = []
    for part in parts:
        flat.extend(part.items if isinstance(part, AllOf) else (part,))
    return flat


def _all_of(parts: list[Condition]) -> Condition:
    if not parts:
        return ALWAYS
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _comparisons(key: Scalar, value: Node, out: Findings) -> Condition:
    fact = _fact(key, out)
    if isinstance(value, Items):
        out.error(value.mark, f"{quoted(key.text)} is compared with a list; write `{{in: [...]}}`")
        raise Unreadable
    if isinstance(value, Scalar):
        return _leaf(fact, "eq", value, out)
    if not value.entries:
        out.error(value.mark, f"{quoted(key.text)} has no operator; the operators are {EVERY_NAME}")
        raise Unreadable
    parts: list[Condition] = []
    for name, operand in value.entries:
        try:
            if _is_operator(key, name, out):
                parts.append(_leaf(fact, name.text, operand, out))
        except Unreadable:
            continue
    if len(parts) < len(value.entries):
        raise Unreadable
    return _all_of(_sorted(parts))


def _fact(key: Scalar, out: Findings) -> Fact:
    try:
        fact = fact_named(key.text)
    except ValueError as error:
        out.error(key.mark, f"{error}{did_you_mean(key.text, COMBINATORS)}")
        raise Unreadable from None
    doubt = doubt_about(key.text)
    if doubt:
        out.warn(key.mark, doubt)
    return fact


def _is_operator(key: Scalar, name: Scalar, out: Findings) -> bool:
    if name.text in OPERATORS:
        return True
    hint = did_you_mean(name.text, (*OPERATORS, *COMBINATORS), OTHER_NAMES)
    if key.text in ROOTS:
        hint = f"; for the fact inside `{key.text}` write {quoted(f'{key.text}.{name.text}')}"
    elif name.text in COMBINATORS:
        hint = f"; `{name.text}` stands outside the fact: `{name.text}: ...{key.text}...`"
    out.error(name.mark, f"unknown operator {quoted(name.text)}{hint or '; the operators are ' + EVERY_NAME}")
    return False


def _leaf(fact: Fact, op: str, node: Node, out: Findings) -> Leaf:
    want = _operand(op, node, out)
    problem = OPERATORS[op].problem(want)
    if problem:
        out.error(node.mark, f"`{op}` {problem}")
        raise Unreadable
    if op in ("gt", "gte", "lt", "lte", "between") and isinstance(node, Scalar) and not node.plain:
        _doubt_quoted_number(op, node, out)
    return Leaf(fact, op, want)


def _doubt_quoted_number(op: str, node: Scalar, out: Findings) -> None:
    try:
        float(node.text)
    except ValueError:
        return
    out.warn(node.mark, f"`{op}` compares text here; to compare numbers write {node.text} without quotes")


def _operand(op: str, node: Node, out: Findings) -> object:
    if isinstance(node, Scalar):
        return scalar_value(node, f"`{op}`", out)
    if isinstance(node, Entries):
        out.error(node.mark, f"`{op}` takes a value, not a mapping")
        raise Unreadable
    values = []
    failed = False
    for item in node.items:
        try:
            values.append(scalar_value(item, f"each value of `{op}`", out))
        except Unreadable:
            failed = True
    if failed:
        raise Unreadable
    return tuple(values)


def tests_memory(condition_fact: Fact) -> bool:
    """Whether a fact comes from the recalled memory."""
    return condition_fact.root == "memory" or condition_fact.name in MEMORY_FACTS
