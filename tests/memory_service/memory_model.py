"""A deliberately naive memory: a list of events folded anew for every question, int64 arithmetic, no index.

Written from CONTRACTS (Labels, Meaning, Amount gate) and the protocol's words, not from the store's code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from memory_service.blocks import BLOCKS, SLICES
from memory_service.store import Search
from memory_service.vectoriser import Vectoriser, query_of
from schemas.ids import iso_time, time_ms_of
from schemas.label import LabelEvent

EPOCH = "epoch-1"
WEIGHTS = {"text": 0.3, "categories": 0.4, "numbers": 0.3}
TENANTS = ("acme", "globex")
ACTIONS = ("refund", "credit")
ACTORS = ("ann", "bob", "cat")
INTENTS = (None, "customer asks for a late refund", "wants the parcel sent again")
AMOUNTS = (None, 20, 45.5, 60, 180, 20000)
RULES = ((), ("R_FRAUD",), ("R_FRAUD", "R_LIMIT"))
WORDS = (
    ("label", "failure", None),
    ("label", "success", None),
    ("label", "failure", "ALLOW"),
    ("label", "failure", "DENY"),
    ("label", "failure", "ESCALATE"),
    ("label", "retracted", None),
    ("settle", "failure", None),
    ("settle", "success", None),
    ("settle", "retracted", None),
    ("quarantine", None, None),
    ("release", None, None),
    ("trust", None, None),
    ("note", None, None),
    ("restore", None, None),
)
TRUSTS = tuple(("trust", who, much) for who in ACTORS for much in (0, 0, 0.25, 0.5, 0.7, 1))
"""The trust in a labeller, in the tenant of whatever decision it comes with."""
_RESTORED = (
    {"said": []},
    {"said": [("ann", "failure", None)]},
    {"said": [("bob", "success", None), ("ann", "success", None)]},
    {"said": [("cat", "retracted", None), ("ann", "failure", "ALLOW")], "quarantined": True},
    {"said": [("ann", "success", None), ("bob", "failure", "DENY")], "out": [("cat", True), ("ann", False)]},
    {"said": [("ann", "failure", None), ("bob", "success", None, True), ("bob", "failure", None)]},
    {"said": [("cat", "failure", None), ("ann", "retracted", None, True)], "out": [("ann", False), ("bob", True)]},
)
"""What a `restore` may leave said of a decision, whatever was said before; a fourth value: it settles."""
_START_MS = 1_734_600_000_000
_HOUR_MS = 3_600_000


def time_of(version: int) -> int:
    """When the log took an event in, in milliseconds: some six hours after the one before, sometimes at once."""
    return _START_MS + (version - version % 3) * 2 * _HOUR_MS + version % 5


def part(intent: str | None, tier: str, amount: Any, risk: float | None) -> dict[str, Any]:
    """What memory may use of a request."""
    action: dict[str, Any] = {"type": "ignored"}
    if intent is not None:
        action["intent"] = intent
    if amount is not None:
        action["amount"] = {"value": amount, "currency": "USD"}
    evidence: dict[str, Any] = {"tier": tier}
    if risk is not None:
        evidence["chargeback_risk"] = risk
    return {"action": action, "evidence": evidence}


PARTS = st.builds(
    part,
    st.sampled_from(INTENTS),
    st.sampled_from(("gold", "new")),
    st.sampled_from(AMOUNTS),
    st.sampled_from((None, 0.1, 0.91)),
)


@st.composite
def decisions(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few decisions that labels may speak of; ids are not in the order of their making."""
    count = draw(st.integers(1, 6))
    return [
        {
            "decision_id": name,
            "tenant": draw(st.sampled_from(TENANTS)),
            "decision": {
                "action_type": draw(st.sampled_from(ACTIONS)),
                "verdict": draw(st.sampled_from(("ALLOW", "ALLOW", "DENY", "DENY", "ESCALATE", "ABSTAIN"))),
                "rules": list(draw(st.sampled_from(RULES))),
                "amount": None,
                "facts": draw(PARTS),
            },
        }
        for name in draw(st.permutations([f"D{k}" for k in range(count)]))
    ]


def event(version: int, decision: dict[str, Any], word: tuple[Any, Any, Any], actor: str) -> LabelEvent:
    """A label event as the label agent makes it."""
    kind, label, should = word
    more: dict[str, Any] = {}
    if kind == "restore":
        form = _RESTORED[version % len(_RESTORED)]
        said = [_restored_word(version, *word) for word in form["said"]]
        more = {"undoes": {"after": 0}, "restored": {"said": said, "quarantined": form.get("quarantined", False)}}
        if "out" in form:
            more["restored"]["quarantines"] = [{"actor": who, "out": out} for who, out in form["out"]]
        label = said[-1]["label"] if said else None
    if kind == "trust" and label is not None:
        more, label, should = {"labeller": label, "trust": should}, None, None
        decision = {**decision, "decision_id": "", "decision": None}
    return {
        "version": version,
        "event_id": f"e{version}",
        "decision_id": decision["decision_id"],
        "tenant": decision["tenant"],
        "type": kind,
        "label": label,
        "should": should,
        "summary": f"said at {version}",
        "actor": actor,
        "at": iso_time(time_of(version)),
        "job": None,
        "decision": None if kind == "note" else decision["decision"],
        **more,
    }  # type: ignore[typeddict-item]


def _restored_word(version: int, who: str, label: str, should: str | None, settles: bool = False) -> dict[str, Any]:
    """Some know when they were said, some are of a time when nobody kept it."""
    word = {"actor": who, "label": label, "should": should, "summary": f"restored at {version}"}
    known = {"at": iso_time(time_of(version // 2))} if version % 2 else {}
    return {**word, **known, "settles": True} if settles else {**word, **known}


@st.composite
def histories(draw: st.DrawFn, most: int = 14) -> list[LabelEvent]:
    """Label events with dense versions over a few decisions, by several labellers."""
    known = draw(decisions())
    words = st.sampled_from(WORDS[:3] * 4 + WORDS * 2 + TRUSTS)
    steps = draw(
        st.lists(st.tuples(st.sampled_from(known), words, st.sampled_from(ACTORS)), min_size=1, max_size=most)
    )
    return [event(number, *step) for number, step in enumerate(steps, start=1)]


@st.composite
def searches(draw: st.DrawFn, vectoriser: Vectoriser, version: int) -> Search:
    """Any recall as of a version."""
    asked = draw(PARTS)
    weights = draw(st.sampled_from((WEIGHTS, {"text": 0, "categories": 1, "numbers": 0.5})))
    return Search(
        tenant=draw(st.sampled_from(TENANTS)),
        action_type=draw(st.sampled_from(ACTIONS)),
        version=version,
        query=query_of(vectoriser.vectorise([asked])[0], weights),
        amount=asked["action"].get("amount", {}).get("value"),
        amount_within=draw(st.sampled_from((1, 3, 1000))),
        top_k=draw(st.integers(1, 3)),
        neighbours=draw(st.sampled_from((2, 64))),
        leave_out=draw(st.sampled_from((None, None, "D0", "D1"))),
        half_life_ms=draw(st.sampled_from((None, None, 6 * _HOUR_MS, 30 * _HOUR_MS + 1, 1000 * _HOUR_MS))),
        at_ms=time_of(version) + draw(st.sampled_from((-1, 0, 1, 6 * _HOUR_MS, 30 * _HOUR_MS, 10**10))),
        named=draw(st.booleans()),
    )


@dataclass(frozen=True)
class Known:
    """What the model believes of one decision at one version."""

    memory_id: str
    label: str
    meaning: str
    contested: bool
    verdict: str
    rules: tuple[str, ...]
    amount: Any
    labeller: str
    summary: str
    trust: float
    at_ms: int
    vector: np.ndarray


def meaning(verdict: str, label: str, should: str | None) -> str:
    """CONTRACTS, Meaning, as a table."""
    if (verdict, label) == ("ALLOW", "failure"):
        return "harmful"
    if should is not None:
        return {"ALLOW": "fine", "DENY": "harmful"}.get(should, "neutral")
    table = {("ALLOW", "success"): "fine", ("DENY", "failure"): "fine", ("DENY", "success"): "harmful"}
    return table.get((verdict, label), "neutral")


class Model:
    """The whole memory, by brute force."""

    def __init__(self, vectoriser: Vectoriser, events: list[LabelEvent]) -> None:
        self.events = events
        self._vectoriser = vectoriser

    def known(self, tenant: str, action_type: str | None, version: int) -> list[Known]:
        """Every decision in force at a version, folded from the first event on."""
        said: dict[str, list[LabelEvent]] = {}
        trust: dict[str, float] = {}
        for one in self.events:
            if one["version"] > version or one["tenant"] != tenant:
                continue
            if one.get("labeller"):
                trust[one["labeller"]] = one["trust"]
            if one["decision"] is not None:
                said.setdefault(one["decision_id"], []).append(one)
        found = [self._fold(events, trust) for events in said.values() if self._is(events, action_type)]
        return sorted((k for k in found if k is not None), key=lambda k: k.memory_id)

    @staticmethod
    def _is(events: list[LabelEvent], action_type: str | None) -> bool:
        return action_type is None or events[0]["decision"]["action_type"] == action_type

    def _fold(self, events: list[LabelEvent], trust: dict[str, float]) -> Known | None:
        """All that was said since the last restore; who is held said nothing."""
        since = max((n for n, one in enumerate(events) if one["type"] == "restore"), default=0)
        said: list[dict[str, Any]] = []
        out: list[tuple[str, bool]] = []
        for one in events[since:]:
            if one["type"] == "restore":
                said += [{"at": one["at"], "settles": False, **word} for word in one["restored"]["said"]]
                out += [("", one["restored"]["quarantined"])]
                out += [(o["actor"], o["out"]) for o in one["restored"].get("quarantines", [])]
            elif one["type"] in ("quarantine", "release"):
                out.append((one["actor"], one["type"] == "quarantine"))
            elif one["type"] in ("settle", "label"):
                said.append({**one, "settles": one["type"] == "settle"})
        trusted = [(trust.get(word["actor"], 1), word) for word in said if trust.get(word["actor"], 1) > 0]
        verdict = events[0]["decision"]["verdict"]
        words = [
            (much, w, None if w["label"] == "retracted" else meaning(verdict, w["label"], w["should"]))
            for n, (much, w) in enumerate(trusted)
            if not any(
                v["actor"] == w["actor"] or (v["settles"] and other >= much) for other, v in trusted[n + 1 :]
            )
        ]
        standing = [word for word in words if word[2] is not None]
        if [False, *(is_out for who, is_out in out if trust.get(who, 1) > 0)][-1] or not standing:
            return None
        contested = any((w["label"], m) != (words[0][1]["label"], words[0][2]) for _, w, m in words)
        newest, means = standing[-1][1:]
        if contested and "harmful" in [m for _, _, m in standing]:
            means = "harmful"
        much, at = max((much, w["at"]) for much, w, m in standing if m == means)
        facts = events[0]["decision"]["facts"]
        return Known(
            memory_id=events[0]["decision_id"],
            label=newest["label"],
            meaning=means,
            contested=contested,
            verdict=verdict,
            rules=tuple(events[0]["decision"]["rules"]),
            amount=facts["action"].get("amount", {}).get("value"),
            labeller=newest["actor"],
            summary=newest["summary"],
            trust=much,
            at_ms=time_ms_of(at),
            vector=self._vectoriser.vectorise([facts])[0].values.astype(np.int64),
        )

    def search(self, search: Search) -> dict[str, Any]:
        """What a store must find, as plain lists of (memory_id, dot, dots)."""
        known = [
            k
            for k in self.known(search.tenant, search.action_type, search.version)
            if k.memory_id != search.leave_out
        ]
        query = search.query.full

        def ranked(points: list[Known], vector: np.ndarray = query) -> list[tuple[Any, ...]]:
            return sorted((hit(k, vector) for k in points), key=lambda h: (-h[1], h[0]))

        def enough(k: Known) -> bool:
            if k.amount is None or search.amount is None:
                return k.amount is None and search.amount is None
            return k.amount >= search.amount / search.amount_within

        def little(k: Known) -> bool:
            if k.amount is None or search.amount is None:
                return True
            return k.amount <= search.amount * search.amount_within

        def worth(k: Known) -> float:
            if search.half_life_ms is None:
                return k.trust
            return k.trust * 0.5 ** (max(0, search.at_ms - k.at_ms) / search.half_life_ms)

        harmful = [k for k in known if k.meaning == "harmful" and little(k)]
        fine = [k for k in known if k.meaning == "fine" and not k.contested and enough(k) and worth(k) >= 0.5]
        nearest = ranked(harmful)[:1]
        denied = ranked([k for k in fine if k.verdict == "DENY" and k.label == "failure"])
        bare = search.query.without_text
        wrong = {k.memory_id for k in known if k.meaning == "harmful"}
        near = ranked([k for k in known if k.meaning != "neutral"])[: search.neighbours]
        worths = [worth(next(k for k in known if k.memory_id == h[0])) for h in near]
        return {
            "failures": ranked([k for k in known if k.label == "failure"])[: search.top_k],
            "successes": ranked([k for k in known if k.label == "success"])[: search.top_k],
            "nearby": [(h[1], h[0] in wrong) for h in near],
            "worths": [round(one, 9) for one in worths] if any(one < 1 for one in worths) else [],
            "named": near if search.named else [],
            "harmful": nearest,
            "harmful_without_text": [] if bare is None else ranked(harmful, bare)[:1],
            "fine": ranked(fine)[:1],
            "softening": [h for h in denied if not nearest or h[1] >= nearest[0][1]][:16],
        }


def hit(known: Known, query: np.ndarray) -> tuple[Any, ...]:
    """(memory_id, dot, dots by block), in int64."""
    product = known.vector * query.astype(np.int64)
    dots = tuple(int(product[SLICES[name]].sum()) for name in BLOCKS)
    return known.memory_id, sum(dots), dots


def plain(found: Any) -> dict[str, Any]:
    """A store's `Found` in the model's form."""
    out: dict[str, Any] = {"nearby": list(found.nearby), "worths": [round(one, 9) for one in found.worths]}
    for name in ("named", "failures", "successes", "harmful", "harmful_without_text", "fine", "softening"):
        value = getattr(found, name)
        hits = value if isinstance(value, tuple) else [] if value is None else [value]
        out[name] = [(h.point.memory_id, h.dot, h.dots) for h in hits]
    return out
