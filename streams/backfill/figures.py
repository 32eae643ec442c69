"""A backfill's figures: how many differ, which way, how much money, who is affected, what can be taken back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from schemas.errors import UsageError
from schemas.ledger import Contested

SCHEMA: Final = "lumyn.backfill/1"
Undoing = Literal["nothing_was_done", "left_to_a_person", "reversible", "irreversible", "not_said"]


@dataclass(frozen=True, slots=True)
class Reversibility:
    """Which action types can be taken back, as the user says. Of others nothing is claimed."""

    reversible: frozenset[str] = frozenset()
    irreversible: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        both = sorted(self.reversible & self.irreversible)
        if both:
            raise UsageError(f"`{both[0]}` can't be both reversible and irreversible")

    def of(self, verdict: str, action_type: str) -> Undoing:
        """What is to be undone of a decision with this recorded verdict. An ALLOW is taken as carried out."""
        if verdict == "ESCALATE":
            return "left_to_a_person"
        if verdict != "ALLOW":
            return "nothing_was_done"
        if action_type in self.reversible:
            return "reversible"
        return "irreversible" if action_type in self.irreversible else "not_said"


@dataclass(slots=True)
class Sums:
    """Exact sums by currency."""

    decisions: Counter[str] = field(default_factory=Counter)
    recorded: dict[str, Decimal] = field(default_factory=dict)
    would_be: dict[str, Decimal] = field(default_factory=dict)

    def add(self, currency: str, recorded: float, would_be: float | None) -> None:
        """Take a decision in; `would_be` None: what was recorded stands for both."""
        self.decisions[currency] += 1
        self.recorded[currency] = self.recorded.get(currency, Decimal()) + _exact(recorded)
        if would_be is not None:
            self.would_be[currency] = self.would_be.get(currency, Decimal()) + _exact(would_be)

    def as_list(self, way: Mapping[str, str]) -> list[dict[str, Any]]:
        """A row a currency. Amounts are text: exact, however large."""
        return [
            {
                **way,
                "currency": currency,
                "decisions": self.decisions[currency],
                "recorded": format(self.recorded[currency], "f"),
                "would_be": format(self.would_be[currency], "f") if currency in self.would_be else None,
            }
            for currency in sorted(self.decisions)
        ]


def _exact(amount: float) -> Decimal:
    return Decimal(str(amount))


Way = tuple[str, str, str]
"""(direction, what was recorded, what it would be)"""


def way_of(one: Contested) -> Way:
    """Which way a decision differs: verdicts, or action types."""
    recorded, would_be = one["recorded"], one["would_be"]
    if "verdict" in would_be:
        return one["direction"], recorded.get("verdict", ""), would_be["verdict"]
    return one["direction"], recorded.get("action_type") or "", would_be.get("action_type") or "(nothing)"


def figures_of(found: Iterable[Contested], reversibility: Reversibility) -> dict[str, Any]:
    """Sums over contested decisions. Memory: a few bytes a subject."""
    ways: Counter[Way] = Counter()
    meanings: dict[Way, Counter[str]] = {}
    money: dict[Way, Sums] = {}
    without: Counter[str] = Counter()
    subjects: dict[str, int] = {}
    undoing: Counter[str] = Counter()
    by_type: dict[str, Counter[str]] = {}
    for one in found:
        way = way_of(one)
        ways[way] += 1
        meanings.setdefault(way, Counter())[one["meaning"] or "unknown"] += 1
        subjects[one["subject"]] = subjects.get(one["subject"], 0) + 1
        kind = reversibility.of(one["recorded"].get("verdict", ""), one["action_type"])
        undoing[kind] += 1
        by_type.setdefault(one["action_type"], Counter())[kind] += 1
        _add_money(one, money.setdefault(way, Sums()), without)
    return {
        "differ": sum(ways.values()),
        "ways": [
            {"direction": way[0], "recorded": way[1], "would_be": way[2], "decisions": number,
             "outcomes": dict(sorted(meanings[way].items()))}
            for way, number in sorted(ways.items(), key=lambda item: (-item[1], item[0]))
        ],
        "money": [
            row
            for way, sums in sorted(money.items())
            for row in sums.as_list({"direction": way[0], "from": way[1], "to": way[2]})
        ],
        "money_not_comparable": dict(sorted(without.items())),
        "affected": {"subjects": len(subjects), "most_of_one": max(subjects.values(), default=0)},
        "undoing": {kind: undoing[kind] for kind in Undoing.__args__ if undoing[kind]},  # type: ignore[attr-defined]
        "undoing_by_type": {name: dict(sorted(kinds.items())) for name, kinds in sorted(by_type.items())},
    }  # fmt: skip


def _add_money(one: Contested, sums: Sums, without: Counter[str]) -> None:
    if one["amount"] is None:
        without["no amount"] += 1
    elif one["currency"] is None:
        without["no currency"] += 1
    elif "verdict" in one["would_be"]:
        sums.add(one["currency"], one["amount"], None)
    elif one["would_be"].get("action_type") is None:
        sums.add(one["currency"], one["amount"], 0)
    elif one["would_be"].get("amount") is None or one["would_be"].get("currency") != one["currency"]:
        without["another currency, or no amount in the new output"] += 1
    else:
        sums.add(one["currency"], one["amount"], one["would_be"]["amount"])
