"""From the rule graph to Python source that runs without builtins, one function per set of action types.

A rule that can only fire for certain action types stands in the function of those types, so a policy of a
thousand rules costs a request only the rules of its own action type. Each function reads its facts once, then
tests its rules by two expressions each: certainly true, certainly false; neither means unknown. Only numbers
and escaped text become literals; patterns are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from schemas.ids import iso_time
from streams.policy import facts, operators
from streams.policy.facts import Fact
from streams.policy.operators import OPERATORS
from streams.policy.rules import AllOf, Condition, Leaf, Not, PolicyGraph, Rule, leaves

Found = tuple[int, bool, tuple[Any, ...]]
"""A rule that hit: its index, whether it is certain, and the values of its leaves in order."""

Function = Callable[[dict[str, Any], int, dict[str, Any] | None], list[Found]]

Constants = dict[tuple[str, str], tuple[str, Any]]
"""What is passed in because it has no literal: by prefix and text, the name and the value."""

ANY_ACTION: Final = None


@dataclass(frozen=True, slots=True)
class Program:
    """The compiled rules: `find` gives the hits of a request in rule order."""

    source: str
    of_type: Mapping[str, tuple[Function, ...]]
    for_any: tuple[Function, ...]
    every: tuple[Function, ...]

    def find(self, request: dict[str, Any], time_ms: int, memory: dict[str, Any] | None) -> list[Found]:
        """Rules that matched or are indeterminate."""
        action = request.get("action")
        kind = action.get("type") if action.__class__ is dict else None
        if kind.__class__ is str:
            functions = self.of_type.get(kind, self.for_any)
        else:
            functions = self.every
        if len(functions) == 1:
            return functions[0](request, time_ms, memory)
        found = [hit for function in functions for hit in function(request, time_ms, memory)]
        found.sort(key=_index_of)
        return found


def _index_of(found: Found) -> int:
    return found[0]


def required_actions(condition: Condition) -> frozenset[str] | None:
    """The only action types for which the condition can be anything but false; None: any."""
    if isinstance(condition, Leaf):
        if condition.fact.name != "action_type":
            return ANY_ACTION
        if condition.op not in ("eq", "in"):
            return ANY_ACTION
        wanted = condition.want if condition.op == "in" else (condition.want,)
        types = frozenset(item for item in wanted if item.__class__ is str)
        # Compared with no text at all it is unknown, not false, for every action type.
        return types if types or not wanted else ANY_ACTION
    if isinstance(condition, Not):
        return ANY_ACTION
    parts = [required_actions(item) for item in condition.items]
    known = [part for part in parts if part is not None]
    if isinstance(condition, AllOf):
        return frozenset.intersection(*known) if known else ANY_ACTION
    return frozenset[str]().union(*known) if len(known) == len(parts) else ANY_ACTION


def compile_rules(graph: PolicyGraph) -> Program:
    """The program of a policy. The same graph gives the same source."""
    groups: dict[frozenset[str] | None, list[tuple[int, Rule]]] = {}
    for index, rule in enumerate(graph.rules):
        groups.setdefault(required_actions(rule.condition), []).append((index, rule))
    constants: Constants = {}
    parts = [
        _Function(f"rules_{number}", constants).text(types, rules)
        for number, (types, rules) in enumerate(groups.items())
    ]
    source = "\n\n".join([_header(constants), *parts])
    namespace: dict[str, Any] = {"__builtins__": {}, **_RUNTIME, "FX": dict(graph.fx)}
    namespace.update(constants.values())
    code = compile(source, f"<policy {graph.name}@{graph.version}>", "exec", dont_inherit=True)
    exec(code, namespace)  # noqa: S102  the source is ours: only numbers and escaped text of the policy get into it
    functions = {types: namespace[f"rules_{n}"] for n, types in enumerate(groups)}
    return _program(source, functions)


def _program(source: str, functions: Mapping[frozenset[str] | None, Function]) -> Program:
    for_any = tuple(function for types, function in functions.items() if types is ANY_ACTION)
    of_type: dict[str, list[Function]] = {}
    for types, function in functions.items():
        for kind in types or ():
            of_type.setdefault(kind, [*for_any]).append(function)
    whole = {kind: tuple(some) for kind, some in of_type.items()}
    return Program(source, MappingProxyType(whole), for_any, tuple(functions.values()))


_RUNTIME: Final[dict[str, Any]] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "dict": dict,
    "INF": float("inf"),
    "NAN": float("nan"),
    "EMPTY": {},
    "walk": facts.walk,
    "amount_of": facts.amount_of,
    "currency_of": facts.currency_of,
    "amount_usd_of": facts.amount_usd_of,
    "date_of": facts.date_of,
    "iso_time": iso_time,
    "contains": operators.contains,
    "found": operators.found,
}


def _header(constants: Constants) -> str:
    lines = [
        "# Generated from the policy's rule graph. Each function gives the hits of its action types' rules:",
        "# (rule index, True when it matched or None when it can't tell, values of its facts).",
    ]
    lines += [f"# {name} = {shown}" for (_, shown), (name, _) in constants.items()]
    return "\n".join(lines) + "\n"


class _Function:
    """The text of one function; it collects the facts its rules need while they are written."""

    def __init__(self, name: str, constants: Constants) -> None:
        self._name = name
        self._constants = constants
        self._roots: dict[str, None] = {}
        self._prelude: dict[str, str] = {}
        self._numbers: dict[str, int] = {}

    def text(self, types: frozenset[str] | None, rules: Iterable[tuple[int, Rule]]) -> str:
        body = [line for index, rule in rules for line in self._rule(index, rule)]
        whom = "any action" if types is None else ", ".join(map(ascii, sorted(types))) or "no action"
        prelude = [f"{name} = {expression}" for name, expression in self._prelude.items()]
        roots = [line for root in self._roots for line in _ROOT_LINES[root]]
        lines = [f"# {whom}", *roots, *prelude, "hits = []", *body, "return hits"]
        return f"def {self._name}(request, time_ms, memory):\n" + "".join(f"    {line}\n" for line in lines)

    def _rule(self, index: int, rule: Rule) -> list[str]:
        true, false = self._condition(rule.condition)
        values = "".join(f"{self.fact(leaf.fact)}, " for leaf in leaves(rule.condition))
        return [
            f"if {true}:  # {rule.id}",
            f"    hits.append(({index}, True, ({values})))",
            f"elif not {false}:",
            f"    hits.append(({index}, None, ({values})))",
        ]

    def _condition(self, condition: Condition) -> tuple[str, str]:
        if isinstance(condition, Leaf):
            names = _FactNames(self, condition.fact)
            return OPERATORS[condition.op].code(condition.want, names)
        if isinstance(condition, Not):
            true, false = self._condition(condition.item)
            return false, true
        if not condition.items:
            return "True", "False"
        pairs = [self._condition(item) for item in condition.items]
        trues, falses = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if isinstance(condition, AllOf):
            return _joined("and", trues), _joined("or", falses)
        return _joined("or", trues), _joined("and", falses)

    def fact(self, fact: Fact) -> str:
        """The local that holds the fact's value."""
        number = self._numbers.setdefault(fact.name, len(self._numbers))
        local = f"f{number}"
        if local not in self._prelude:
            self._prelude[local] = self._read(fact)
        return local

    def derive(self, local: str, expression: str) -> str:
        self._prelude.setdefault(local, expression)
        return local

    def constant(self, prefix: str, value: Any, shown: str) -> str:
        return self._constants.setdefault((prefix, shown), (f"{prefix}{len(self._constants)}", value))[0]

    def _read(self, fact: Fact) -> str:
        if fact.root == "built-in":
            root, expression = _BUILT_IN_CODE[fact.name]
        else:
            root, expression = fact.root, f"{fact.root}.get({fact.parts[0]!a})"
            if len(fact.parts) > 1:
                steps = self.constant("PATH_", facts.steps_to(fact.parts), ascii(".".join(fact.parts)))
                expression = f"walk({root}, {steps})"
        if root:
            self._roots[root] = None
        return expression


@dataclass(frozen=True, slots=True)
class _FactNames:
    function: _Function
    fact: Fact

    @property
    def value(self) -> str:
        return self.function.fact(self.fact)

    @property
    def number(self) -> str:
        v = self.value
        test = f"{v}.__class__ is int or {v}.__class__ is float and -INF < {v} < INF"
        return self.function.derive(f"n{v[1:]}", f"{v} if {test} else NAN")

    @property
    def is_text(self) -> str:
        v = self.value
        return self.function.derive(f"t{v[1:]}", f"{v}.__class__ is str")

    def pattern(self, text: str) -> str:
        return self.function.constant("PATTERN_", operators.compile_pattern(text), ascii(text))


def _joined(word: str, parts: list[str]) -> str:
    return "(" + f" {word} ".join(parts) + ")"


def _part_of_request(root: str) -> tuple[str, ...]:
    return (f"{root} = request.get('{root}')", f"if {root}.__class__ is not dict: {root} = EMPTY")


_ROOT_LINES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{root: _part_of_request(root) for root in ("action", "evidence", "subject", "provenance")},
        "context": (
            *_part_of_request("context"),
            "context = context.get('inline')",
            "if context.__class__ is not dict: context = EMPTY",
        ),
        "memory": ("if memory is None: memory = EMPTY",),
    }
)
_BUILT_IN_CODE: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "action_type": ("action", "action.get('type')"),
        "subject_id": ("subject", "subject.get('id')"),
        "subject_type": ("subject", "subject.get('type')"),
        "tenant": ("", f"'{facts.DEFAULT_TENANT}' if request.get('tenant') is None else request['tenant']"),
        "amount": ("action", "amount_of(action)"),
        "currency": ("action", "currency_of(action)"),
        "amount_usd": ("action", "amount_usd_of(action, FX)"),
        "time.hour": ("", "time_ms // 3600000 % 24"),
        "time.weekday": ("", "(time_ms // 86400000 + 3) % 7 + 1"),
        "time.date": ("", "date_of(time_ms)"),
        "time.iso": ("", "iso_time(time_ms)"),
    }
)
