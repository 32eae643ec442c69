"""Suspects: labels in the memory that are probably wrong, with the reasons, and the labellers they come from."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from memory_service.fold import Standing
from memory_service.label_errors import label_errors, neighbourhood
from memory_service.point import OPEN
from memory_service.timeline import stands
from memory_service.vectoriser import Vectoriser, query_of
from schemas.ids import time_ms_of
from schemas.label import LabelEvent
from schemas.policy import MemorySettings
from schemas.reasons import FAILURE_MEMORY_SIMILAR_BLOCK, FAILURE_MEMORY_SIMILAR_ESCALATE
from streams.label_history import History

NEIGHBOURS = 15
NEAR_DUPLICATE = 0.98
BURST = 20
BURST_MS = 10 * 60 * 1000
_MEMORY_CODES = {FAILURE_MEMORY_SIMILAR_BLOCK, FAILURE_MEMORY_SIMILAR_ESCALATE}
_AT_ONCE = 1000


@dataclass(slots=True)
class Suspect:
    """A labelled decision in the memory. `wrong`: how probable it is that its label is wrong.

    `near_harmful`: the share of harm among its nearest labels. `opposite`: the nearest near-duplicate that is labelled
    the opposite. `burst`: how many labels its labeller gave within ten minutes of it, if many. `flips`: how many past
    decisions were made stricter or milder because of it.
    """

    decision_id: str
    action_type: str
    standing: Standing
    wrong: float
    near_harmful: float
    opposite: str | None = None
    burst: int | None = None
    flips: int = 0


@dataclass(frozen=True, slots=True)
class Labeller:
    """One labeller: how many labels of his count, the estimated share of wrong ones, and his largest burst."""

    name: str
    labels: int
    error_rate: float
    suspects: int
    largest_burst: int


@dataclass(slots=True)
class Suspects:
    """All labels of a tenant that mean something, the most suspect first, and their labellers, likewise."""

    points: list[Suspect] = field(default_factory=list)
    labellers: list[Labeller] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Label:
    event: LabelEvent
    standing: Standing
    at_ms: int


def find_suspects(
    known: Mapping[str, History],
    vectoriser: Vectoriser,
    flips: Mapping[str, int],
    tick: Callable[[int], None] = lambda count: None,
) -> Suspects:
    """Rank the labels that count now. `flips`: decisions that rest on each (`decided_by`); a tick is a label."""
    labels = [label for history in known.values() if (label := _label_of(history)) is not None]
    if not labels:
        return Suspects()
    names = sorted({label.standing.labeller for label in labels})
    numbers = {name: number for number, name in enumerate(names)}
    harmful = np.array([label.standing.meaning == "harmful" for label in labels])
    labellers = np.array([numbers[label.standing.labeller] for label in labels])
    by_type: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        by_type.setdefault(_action_type(label.event), []).append(number)
    groups = []
    for members in by_type.values():
        queries, vectors = _matrices([labels[at].event for at in members], vectoriser)
        groups.append((np.array(members), neighbourhood(queries, vectors, NEIGHBOURS, tick)))
    errors = label_errors(harmful, labellers, groups)
    found = [
        Suspect(
            label.event["decision_id"], _action_type(label.event), label.standing, round(float(wrong), 6),
            round(float(near), 6), flips=flips.get(label.event["decision_id"], 0),
        )
        for label, wrong, near in zip(labels, errors.wrong, errors.harmful, strict=True)
    ]  # fmt: skip
    for members_, around in groups:
        for member, places, scores in zip(members_, around.places, around.scores, strict=True):
            others = members_[places[scores >= NEAR_DUPLICATE]]
            contrary = others[harmful[others] != harmful[member]]
            if len(contrary):
                found[int(member)].opposite = found[int(contrary[0])].decision_id
    bursts = _bursts(labels)
    for suspect, burst in zip(found, bursts, strict=True):
        suspect.burst = burst if burst >= BURST else None
    points = sorted(found, key=lambda s: (-s.wrong, -s.flips, s.decision_id))
    return Suspects(points, _labellers(names, found, bursts, errors.error_rates.tolist()))


def _action_type(event: LabelEvent) -> str:
    assert event["decision"] is not None
    return event["decision"]["action_type"]


def _label_of(history: History) -> _Label | None:
    """What a decision stands for now, unless that is nothing or neutral, and when its labeller said so."""
    stand = next((stand for stand in stands(history.events) if stand[2] == OPEN), None)
    if stand is None or stand[0].meaning == "neutral":
        return None
    own = [event for event in history.events if event["actor"] == stand[0].labeller]
    return _Label(history.events[0], stand[0], time_ms_of((own or history.events)[-1]["at"]))


def _matrices(events: Sequence[LabelEvent], vectoriser: Vectoriser) -> tuple[Any, Any]:
    """(labels, dimensions) queries and vectors, weighed as a policy without a say of its own does."""
    weights = MemorySettings().weights
    queries = np.zeros((len(events), vectoriser.dimensions), dtype=np.float32)
    vectors = np.zeros_like(queries)
    for start in range(0, len(events), _AT_ONCE):
        facts = [e["decision"]["facts"] for e in events[start : start + _AT_ONCE] if e["decision"] is not None]
        for at, vector in enumerate(vectoriser.vectorise(facts), start):
            vectors[at], queries[at] = vector.values, query_of(vector, weights).full
    return queries, vectors


def _bursts(labels: Sequence[_Label]) -> list[int]:
    """Of each label, how many its labeller gave in the ten minutes around it that hold the most of them."""
    times: dict[str, list[int]] = {}
    for label in labels:
        times.setdefault(label.standing.labeller, []).append(label.at_ms)
    fullest = {name: _fullest(sorted(own)) for name, own in times.items()}
    return [fullest[label.standing.labeller][label.at_ms] for label in labels]


def _fullest(times: Sequence[int]) -> dict[int, int]:
    """Of each time, how many of the ascending times are in the fullest ten minutes that it is in."""
    counts = [bisect_right(times, start + BURST_MS) - at for at, start in enumerate(times)]
    best: deque[int] = deque()  # places whose windows may still hold the next time, the fullest first
    out: dict[int, int] = {}
    for at, time in enumerate(times):
        while best and counts[best[-1]] <= counts[at]:
            best.pop()
        best.append(at)
        while times[best[0]] < time - BURST_MS:
            best.popleft()
        out[time] = max(out.get(time, 0), counts[best[0]])
    return out


def _labellers(
    names: Sequence[str], found: Sequence[Suspect], bursts: Sequence[int], rates: Sequence[float]
) -> list[Labeller]:
    count, wrong, largest = Counter[str](), Counter[str](), Counter[str]()
    for suspect, burst in zip(found, bursts, strict=True):
        name = suspect.standing.labeller
        count[name] += 1
        wrong[name] += suspect.wrong > 0.5
        largest[name] = max(largest[name], burst)
    made = [
        Labeller(name, count[name], round(rate, 6), wrong[name], largest[name])
        for name, rate in zip(names, rates, strict=True)
    ]
    return sorted(made, key=lambda labeller: (-labeller.error_rate, labeller.name))


def decided_by(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many decisions memory bent because of each memory: the neighbour that was the nearest in its role."""
    flips: Counter[str] = Counter()
    for record in records:
        if _MEMORY_CODES & set(record["reason_codes"]):
            first = _decisive(record["memory"]["counted"], record)
            if first is not None:
                flips[first] += 1
    return flips


def _decisive(counted: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> str | None:
    """Softened decisions rest on a softening neighbour, all others on the nearest harmful one."""
    settings = record["memory"]["settings"]
    nearest: dict[str, Mapping[str, Any]] = {}
    for hit in counted:
        nearest.setdefault(hit["role"], hit)
    harmful, bare = nearest.get("harmful"), nearest.get("harmful_without_text")
    if FAILURE_MEMORY_SIMILAR_BLOCK in record["reason_codes"]:
        return str(harmful["memory_id"]) if harmful else None
    if harmful is not None and harmful["score"] >= settings["failure_escalate"]:
        return str(harmful["memory_id"])
    if bare is not None and bare["score"] >= settings["failure_block"]:
        return str(bare["memory_id"])
    soft = nearest.get("softening")
    return str(soft["memory_id"]) if soft is not None else None
