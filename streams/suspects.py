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
from memory_service.vectoriser import Vectoriser, query_of
from schemas.ids import time_ms_of
from schemas.label import LabelEvent, Meaning, Word, meaning_of
from schemas.policy import MemorySettings
from schemas.reasons import FAILURE_MEMORY_SIMILAR_BLOCK, FAILURE_MEMORY_SIMILAR_ESCALATE
from streams.diff import MISSHAPEN
from streams.label_history import History

NEIGHBOURS = 15
NEAR_DUPLICATE = 0.98
BURST = 20
BURST_MS = 10 * 60 * 1000
_MEMORY_CODES = {FAILURE_MEMORY_SIMILAR_BLOCK, FAILURE_MEMORY_SIMILAR_ESCALATE}
_AT_ONCE = 1000


@dataclass(slots=True)
class Suspect:
    """One labeller's last word on a decision in the memory. `wrong`: how probable it is that it is wrong.

    `meaning` is that of this word; `contested`: others say otherwise. `near_harmful`: the share of harm among its
    nearest labels. `opposite`: the nearest near-duplicate that is labelled the opposite. `burst`: how many labels its
    labeller gave within ten minutes of it, if many. `flips`: how many past decisions were made stricter or milder
    because of it.
    """

    decision_id: str
    action_type: str
    labeller: str
    label: str
    meaning: Meaning
    summary: str
    contested: bool
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
    """All words of a tenant's labellers that mean something, the most suspect first, and their labellers, likewise."""

    points: list[Suspect] = field(default_factory=list)
    labellers: list[Labeller] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Word:
    event: LabelEvent
    said: Word
    meaning: Meaning
    standing: Standing
    at_ms: int


def find_suspects(
    known: Mapping[str, History],
    vectoriser: Vectoriser,
    flips: Mapping[str, int],
    tick: Callable[[int], None] = lambda count: None,
) -> Suspects:
    """Rank the labels that count now. `flips`: decisions that rest on each (`decided_by`); a tick is a label."""
    words = [word for history in known.values() for word in _words_of(history)]
    if not words:
        return Suspects()
    names = sorted({word.said["actor"] for word in words})
    numbers = {name: number for number, name in enumerate(names)}
    harmful = np.array([word.meaning == "harmful" for word in words])
    labellers = np.array([numbers[word.said["actor"]] for word in words])
    by_type: dict[str, list[int]] = {}
    for number, word in enumerate(words):
        by_type.setdefault(_action_type(word.event), []).append(number)
    groups = []
    for members in by_type.values():
        queries, vectors = _matrices([words[at].event for at in members], vectoriser)
        groups.append((np.array(members), neighbourhood(queries, vectors, NEIGHBOURS, tick)))
    errors = label_errors(harmful, labellers, groups)
    found = [
        _suspect(word, float(wrong), float(near), flips)
        for word, wrong, near in zip(words, errors.wrong, errors.harmful, strict=True)
    ]
    for members_, around in groups:
        for member, places, scores in zip(members_, around.places, around.scores, strict=True):
            others = members_[places[scores >= NEAR_DUPLICATE]]
            contrary = [found[at].decision_id for at in others[harmful[others] != harmful[member]].tolist()]
            suspect = found[int(member)]
            suspect.opposite = next((name for name in contrary if name != suspect.decision_id), None)
    bursts = _bursts(words)
    for suspect, burst in zip(found, bursts, strict=True):
        suspect.burst = burst if burst >= BURST else None
    points = sorted(found, key=lambda s: (-s.wrong, -s.flips, s.decision_id, s.labeller))
    return Suspects(points, _labellers(names, found, bursts, errors.error_rates.tolist()))


def _suspect(word: _Word, wrong: float, near: float, flips: Mapping[str, int]) -> Suspect:
    name = word.event["decision_id"]
    return Suspect(
        decision_id=name,
        action_type=_action_type(word.event),
        labeller=word.said["actor"],
        label=word.said["label"],
        meaning=word.meaning,
        summary=word.said["summary"],
        contested=word.standing.contested,
        wrong=round(wrong, 6),
        near_harmful=round(near, 6),
        flips=flips.get(name, 0) if word.meaning == word.standing.meaning else 0,
    )


def _action_type(event: LabelEvent) -> str:
    assert event["decision"] is not None
    return event["decision"]["action_type"]


def _words_of(history: History) -> list[_Word]:
    """Each labeller's last word on a decision that is in the memory, unless it is neutral or taken back.

    Who says what is judged by what he says himself, not by what a contested decision counts as.
    """
    standing = history.standing()
    if standing is None:
        return []
    out = []
    for said in (word.as_word() for word in history.words()):
        if said["label"] == "retracted":
            continue
        meaning = meaning_of(history.verdict, said["label"], said["should"])
        if meaning != "neutral":
            out.append(_Word(history.events[0], said, meaning, standing, time_ms_of(said["at"])))
    return out


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


def _bursts(words: Sequence[_Word]) -> list[int]:
    """Of each label, how many its labeller gave in the ten minutes around it that hold the most of them."""
    times: dict[str, list[int]] = {}
    for word in words:
        times.setdefault(word.said["actor"], []).append(word.at_ms)
    fullest = {name: _fullest(sorted(own)) for name, own in times.items()}
    return [fullest[word.said["actor"]][word.at_ms] for word in words]


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
        name = suspect.labeller
        count[name] += 1
        wrong[name] += suspect.wrong > 0.5
        largest[name] = max(largest[name], burst)
    made = [
        Labeller(name, count[name], round(rate, 6), wrong[name], largest[name])
        for name, rate in zip(names, rates, strict=True)
    ]
    return sorted(made, key=lambda labeller: (-labeller.error_rate, labeller.name))


def decided_by(records: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """How many decisions memory bent because of each memory: the neighbour that was the nearest in its role.

    Records that do not have a record's form are passed over.
    """
    flips: Counter[str] = Counter()
    for record in records:
        try:
            if _MEMORY_CODES & set(record["reason_codes"]) and (first := _decisive(record)) is not None:
                flips[first] += 1
        except MISSHAPEN:
            continue
    return flips


def _decisive(record: Mapping[str, Any]) -> str | None:
    """Softened decisions rest on a softening neighbour of the rules that blocked, all others on the nearest harmful."""
    settings, counted = record["memory"]["settings"], record["memory"]["counted"]
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
    rules = {rule["id"] for rule in record["matched_rules"] if rule["effect"] == "DENY"}
    excusing = (hit for hit in counted if hit["role"] == "softening" and rules <= set(hit["rules"]))
    return next((str(hit["memory_id"]) for hit in excusing), None)
