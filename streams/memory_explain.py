"""The whole sum of what memory had to say about a decision: neighbours, blocks, weights, thresholds, the amount gate.

Everything is made again from the record, the labels and the memory as of the decision's version; where that does not
give what was recorded, it says so. What would have changed the verdict is tried, not guessed: the decision is made
again without the memory, and without each neighbour that counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from memory_service.blocks import BLOCKS, SLICES, score_of, share_of
from memory_service.profile import amount_of, remembered_part
from memory_service.recall import Asked, Recall, counted_hit, nothing_known, recorded
from memory_service.vectoriser import Vectoriser, query_of
from memory_service.worth import decay, worth
from schemas.canonical import encode
from schemas.errors import LumynError, MemoryUnavailable
from schemas.ids import time_ms_of
from schemas.label import FULL_TRUST, LabelEvent
from schemas.policy import DAY_MS, MemorySettings
from streams.diff import outcome_of
from streams.erasures import NOTHING_ERASED, Erasures
from streams.memory_step import recorded_settings
from streams.policy import CompiledPolicy

if TYPE_CHECKING:
    from memory_service.recaller import Term

_ROUNDED = 2e-5
@dataclass(frozen=True, slots=True)
class Neighbour:
    """A neighbour that counted: `by_block` are its parts of the score, None where its labels can't be found any more.

    `thresholds`: which of the policy's it meets. `amounts`: how the amount gate let it through. `worth`: trust times
    decay; a fine one needs a half. `age_days`: None where labels do not age.
    """

    role: str
    memory_id: str
    meaning: str
    verdict: str
    score: float
    by_block: dict[str, float] | None
    thresholds: dict[str, bool]
    amounts: str
    adds_up: bool
    trust: float
    age_days: float | None
    decay: float
    worth: float


@dataclass(frozen=True, slots=True)
class Otherwise:
    """What the decision would have been without something."""

    without: str
    verdict: str
    reason_codes: tuple[str, ...]
    changes: bool


@dataclass(frozen=True, slots=True)
class MemoryExplanation:
    """All of it; `shares` are the weights as they count here: of the blocks that the request fills.

    `sum`: what `nearby` is made of, the nearest first.
    """

    decision_id: str
    verdict: str
    reason_codes: tuple[str, ...]
    version: int
    weights: dict[str, float]
    shares: dict[str, float]
    coverage: float
    nearby: dict[str, Any]
    sum: tuple[Term, ...]
    half_life_days: float | None
    thresholds: dict[str, float]
    amount: float | int | None
    amount_within: float
    neighbours: tuple[Neighbour, ...]
    otherwise: tuple[Otherwise, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def explain_memory(
    record: Mapping[str, Any],
    policy: CompiledPolicy,
    vectoriser: Vectoriser,
    events_of: Callable[[str], Sequence[LabelEvent]],
    recall: Callable[[Asked], Recall],
    nearby: Callable[[Asked], Sequence[Term]],
    erasures: Erasures = NOTHING_ERASED,
) -> MemoryExplanation:
    """Explain a record that was decided with memory (`as_of.was_recalled`), by its own policy.

    `events_of` gives a decision's label events, `recall` asks the memory, `nearby` what its rate is made of. Raises
    `LumynError`.
    """
    memory = record["memory"]
    settings = recorded_settings(record)
    assert settings is not None
    vector = vectoriser.vectorise([remembered_part(record["request"])])[0]
    query = query_of(vector, settings.weights)
    notes = []
    if erasures.touched(record):
        notes.append("it could meet memories that are erased now: what it would have been without one is not exact")
    if memory["vectoriser_id"] != vectoriser.id:
        notes.append(f"recalled with another vectoriser ({memory['vectoriser_id']}): the blocks are not computed")
    comparable = memory["vectoriser_id"] == vectoriser.id
    present = {name: settings.weights[name] for name in BLOCKS if name in vector.blocks}
    total = sum(present.values()) or 1
    neighbours = tuple(
        _neighbour(hit, record, settings, _Sum(query, vectoriser, events_of, comparable)) for hit in memory["counted"]
    )
    if not all(neighbour.adds_up for neighbour in neighbours):
        notes.append("some blocks do not add up to the recorded score: `lumyn memory verify` says more")
    return MemoryExplanation(
        decision_id=record["decision_id"],
        verdict=record["verdict"],
        reason_codes=tuple(record["reason_codes"]),
        version=memory["version"],
        weights=dict(settings.weights),
        shares={name: round(weight / total, 6) for name, weight in present.items()},
        coverage=memory["coverage"],
        nearby=dict(record["risk_signals"]["nearby"]),
        sum=tuple(_sum(record, settings, nearby, notes)),
        half_life_days=settings.half_life_days,
        thresholds={
            name: getattr(settings, name) for name in ("failure_block", "failure_escalate", "soften", "success_support")
        },
        amount=amount_of(record["request"], vectoriser.profile),
        amount_within=settings.amount_within,
        neighbours=neighbours,
        otherwise=tuple(_otherwise(record, policy, settings, recall, notes)),
        notes=tuple(notes),
    )


def _sum(
    record: Mapping[str, Any],
    settings: MemorySettings,
    nearby: Callable[[Asked], Sequence[Term]],
    notes: list[str],
) -> Sequence[Term]:
    """The terms of `nearby`, asked for again; what they do not add up to is said."""
    try:
        terms = nearby(_asked(record, settings))
    except MemoryUnavailable as error:
        notes.append(f"what nearby is made of can't be asked for again: {error.message}")
        return ()
    total = sum(term.weight for term in terms)
    wrong = sum(term.weight for term in terms if term.harmful)
    rate, n_effective = (record["risk_signals"]["nearby"][name] for name in ("failure_rate", "n_effective"))
    off = abs(total - n_effective) > _ROUNDED
    if off or (rate is not None and abs(wrong - rate * total) > _ROUNDED * max(1, total)):
        notes.append("the terms of nearby do not add up to what was recorded: `lumyn memory verify` says more")
    return terms


def _asked(record: Mapping[str, Any], settings: MemorySettings, leave_out: str | None = None) -> Asked:
    """What the decision asked, once more."""
    at_ms = time_ms_of(record["created_at"])
    return Asked(record["request"], settings, record["memory"]["version"], leave_out, at_ms)


@dataclass(frozen=True, slots=True)
class _Sum:
    query: Any
    vectoriser: Vectoriser
    events_of: Callable[[str], Sequence[LabelEvent]]
    comparable: bool

    def blocks(self, hit: Mapping[str, Any]) -> dict[str, int] | None:
        """Each block's product, if the neighbour's facts are still in the labels."""
        if not self.comparable:
            return None
        told = next((e["decision"] for e in self.events_of(hit["memory_id"]) if e["decision"] is not None), None)
        if told is None or ("subject" in told and told["facts"].keys() & {"erased", "sealed"}):
            return None
        values = self.vectoriser.vectorise([told["facts"]])[0].values
        asked = self.query.without_text if hit["role"] == "harmful_without_text" else self.query.full
        return {name: int(asked[SLICES[name]] @ values[SLICES[name]]) for name in BLOCKS}


def _neighbour(hit: Mapping[str, Any], record: Mapping[str, Any], settings: MemorySettings, sums: _Sum) -> Neighbour:
    blocks = sums.blocks(hit)
    score = hit["score"]
    if hit["role"] == "harmful":
        met = {"failure_block": settings.failure_block, "failure_escalate": settings.failure_escalate}
    elif hit["role"] == "harmful_without_text":
        met = {"failure_block": settings.failure_block}
    elif hit["role"] == "fine":
        met = {"success_support": settings.success_support}
    else:
        met = {"soften": settings.soften}
    counted, half_life_ms = counted_hit(hit), settings.half_life_ms
    return Neighbour(
        role=hit["role"],
        memory_id=hit["memory_id"],
        meaning=hit["meaning"] + (" (contested)" if hit["contested"] else ""),
        verdict=hit["verdict"],
        score=score,
        by_block=None if blocks is None else {name: share_of(dot) for name, dot in blocks.items()},
        thresholds={name: score >= least for name, least in met.items()},
        amounts=_gate(hit, amount_of(record["request"], sums.vectoriser.profile), settings.amount_within),
        adds_up=blocks is None or (sum(blocks.values()) == hit["dot"] and score_of(hit["dot"]) == score),
        trust=counted.trust / FULL_TRUST,
        age_days=None if half_life_ms is None else counted.age_ms / DAY_MS,
        decay=1.0 if half_life_ms is None else decay(counted.age_ms, half_life_ms),
        worth=worth(counted.trust, counted.age_ms, half_life_ms),
    )


def _gate(hit: Mapping[str, Any], asked: float | int | None, within: float) -> str:
    """How the amount gate let a neighbour through."""
    theirs = hit["amount"]
    if asked is None:
        return "no amount is asked for"
    if theirs is None:
        return "its amount is not known: harm counts all the same"
    if hit["meaning"] == "harmful":
        return f"{_digits(theirs)} <= {_digits(asked)} x {within:g}"
    return f"{_digits(theirs)} >= {_digits(asked)} / {within:g}"


def _digits(amount: float | int) -> str:
    return encode(amount).decode()


def _otherwise(
    record: Mapping[str, Any],
    policy: CompiledPolicy,
    settings: MemorySettings,
    recall: Callable[[Asked], Recall],
    notes: list[str],
) -> list[Otherwise]:
    """The decision made again without memory, and without each neighbour that counted."""

    def tried(without: str, verdict: str, reasons: tuple[str, ...]) -> Otherwise:
        same = (verdict, list(reasons)) == (record["verdict"], record["reason_codes"])
        return Otherwise(without, verdict, reasons, not same)

    was = recorded(record)
    try:
        now = outcome_of(record, policy, was)
    except LumynError as error:
        notes.append(error.message)
        return []
    if (now[0], list(now[1])) != (record["verdict"], record["reason_codes"]):
        notes.append("the recorded memory does not give the recorded verdict any more: `lumyn replay` says more")
    out = [tried("any memory of the like", *outcome_of(record, policy, nothing_known(was)))]
    for name in dict.fromkeys(hit["memory_id"] for hit in record["memory"]["counted"]):
        try:
            other = recall(_asked(record, settings, name))
            if not other.available:
                raise MemoryUnavailable("the memory can't answer")
        except MemoryUnavailable as error:
            notes.append(f"what would have changed the verdict can't be tried: {error.message}")
            break
        out.append(tried(name, *outcome_of(record, policy, other)))
    return out
