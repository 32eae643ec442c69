"""Where a fact comes from: the fields of the request that a rule's fact is read from, to read, set and leave out.

Facts that are worked out (`amount_usd`) lead to what they are worked out of. What a rule reads at a dotted path is
changed where the rule finds it (`streams.policy.facts.walk`): at each step the longest key wins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from streams.policy.facts import Fact, Steps, steps_to, walk

_REQUIRED = frozenset({"action.type", "subject.id", "subject.type"})
_PATHS = {"action_type": "action.type", "subject_id": "subject.id", "subject_type": "subject.type"}


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the request. `base` is the mapping that it is in, `parts` the dotted path below it."""

    name: str
    base: tuple[str, ...]
    parts: tuple[str, ...]
    kind: Literal["path", "amount", "bare_amount", "currency"] = "path"

    @property
    def is_amount(self) -> bool:
        """Whether it is the amount, which is never negative."""
        return self.kind in ("amount", "bare_amount")

    @property
    def required(self) -> bool:
        """Whether a request without it is none."""
        return self.name in _REQUIRED

    def value(self, request: dict[str, Any]) -> Any:
        """What is there; None where it is absent."""
        if self.kind != "path":
            amount = _mapping(request.get("action")).get("amount")
            if isinstance(amount, dict):
                return amount.get(self._key)
            return amount if self.kind == "bare_amount" else None
        return walk(self._base(request), steps_to(self.parts))

    def put(self, request: dict[str, Any], value: Any) -> dict[str, Any]:
        """The request with another value there; nothing of the given one is changed."""
        if self.kind != "path":
            return self._put_amount(request, value)
        return self._with_base(request, _put(self._base(request), self.parts, value))

    def without(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request without it."""
        if self.kind != "path":
            return self._without_amount(request)
        base, steps = self._base(request), steps_to(self.parts)
        while walk(base, steps) is not None:  # behind the longest key there may be a shorter one
            base = _without(base, steps)
        return self._with_base(request, base)

    def _base(self, request: dict[str, Any]) -> dict[str, Any]:
        node: Any = request
        for key in self.base:
            node = _mapping(node).get(key)
        return _mapping(node)

    def _with_base(self, request: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
        if self.base != ("context", "inline"):
            return {**request, self.base[0]: base}
        context = {key: value for key, value in _mapping(request.get("context")).items() if key != "digest"}
        return {**request, "context": {**context, "mode": "inline", "inline": base}}

    @property
    def _key(self) -> str:
        return "currency" if self.kind == "currency" else "value"

    def _put_amount(self, request: dict[str, Any], value: Any) -> dict[str, Any]:
        action = _mapping(request.get("action"))
        amount = action.get("amount")
        if isinstance(amount, dict):
            amount = {**amount, self._key: value}
        elif self.kind == "bare_amount":
            amount = value
        elif amount is None:
            amount = {"currency": "USD", self._key: value}
        else:
            amount = {"value": amount, self._key: value}
        return {**request, "action": {**action, "amount": amount}}

    def _without_amount(self, request: dict[str, Any]) -> dict[str, Any]:
        action = dict(_mapping(request.get("action")))
        amount = action.get("amount")
        if isinstance(amount, dict):
            action["amount"] = {key: value for key, value in amount.items() if key != self._key}
        else:
            action.pop("amount", None)
        return {**request, "action": action}


AMOUNT = Field("action.amount.value", ("action",), ("amount", "value"), "amount")
BARE_AMOUNT = Field("action.amount", ("action",), ("amount",), "bare_amount")
CURRENCY = Field("action.amount.currency", ("action",), ("amount", "currency"), "currency")


def fields_of(fact: Fact, request: dict[str, Any]) -> tuple[Field, ...]:
    """The fields that a fact is made of: none for what is not the request's (memory, time, tenant)."""
    action = _mapping(request.get("action"))
    of_amount = AMOUNT if isinstance(action.get("amount"), dict | None) else BARE_AMOUNT
    if fact.name == "amount_usd":
        return of_amount, CURRENCY
    if fact.name in ("amount", "currency"):
        return (of_amount,) if fact.name == "amount" else (CURRENCY,)
    known = _plain(fact)
    if known is None:
        return ()
    if known.root == "action" and known.parts[0] == "amount" and ".".join(known.parts) not in action:
        if known.parts == ("amount",):
            return () if isinstance(action.get("amount"), dict) else (BARE_AMOUNT,)
        if known.parts == ("amount", "value"):
            return (AMOUNT,)
        if known.parts == ("amount", "currency"):
            return (CURRENCY,)
    base = ("context", "inline") if known.root == "context" else (known.root,)
    return (Field(".".join((known.root, *known.parts)), base, known.parts),)


def _plain(fact: Fact) -> Fact | None:
    """A fact that is read at a path of the request."""
    path = _PATHS.get(fact.name)
    if path is not None:
        root, _, last = path.partition(".")
        return Fact(path, root, (last,))
    return None if fact.root in ("built-in", "memory", "time") else fact


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _keys(node: Any, steps: Steps) -> tuple[str, ...] | None:
    """The keys that `walk` goes by to its end."""
    if not isinstance(node, dict):
        return None
    for key, rest in steps:
        if key in node:
            if rest is None:
                return (key,)
            found = _keys(node[key], rest)
            if found is not None:
                return (key, *found)
    return None


def _put(node: dict[str, Any], parts: tuple[str, ...], value: Any) -> dict[str, Any]:
    keys = _keys(node, steps_to(parts)) or _new_keys(node, parts)
    return _replaced(node, keys, value)


def _new_keys(node: dict[str, Any], parts: tuple[str, ...]) -> tuple[str, ...]:
    """Into the mapping that is there already; else under its whole dotted name."""
    if len(parts) > 1 and isinstance(node.get(parts[0]), dict):
        return (parts[0], *_new_keys(node[parts[0]], parts[1:]))
    return (".".join(parts),)


def _replaced(node: dict[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    key, rest = keys[0], keys[1:]
    return {**node, key: _replaced(_mapping(node.get(key)), rest, value) if rest else value}


def _without(node: dict[str, Any], steps: Steps) -> dict[str, Any]:
    keys = _keys(node, steps)
    assert keys is not None
    return _removed(node, keys)


def _removed(node: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    key, rest = keys[0], keys[1:]
    if rest:
        return {**node, key: _removed(node[key], rest)}
    return {name: value for name, value in node.items() if name != key}
