"""Finding what went wrong before: by words, and by likeness to a request or to what is planned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lumyn.incidents.evidence import records_of
from lumyn.incidents.incidents import Incidents
from lumyn.incidents.model import Incident
from lumyn.stores import chosen_vectoriser
from memory_service.blocks import BLOCKS, SLICES, UNIT
from memory_service.profile import remembered_part
from memory_service.vectoriser import Vector, query_of
from schemas.errors import UsageError
from schemas.policy import MemorySettings

if TYPE_CHECKING:
    from memory_service.vectoriser import Query

LEAST_ALIKE = 0.2
"""What is less alike than this is not told."""
_PER_INCIDENT = 50
_MOST_PIECES = 60
_WORD = re.compile(r"\w+")
_COMMON = (
    "a about after all also an and any are as at be because been before but by can could did do does for from had "
    "has have he her his how if in into is it its just may might more most must no not of on once or our should so "
    "than that the their them then there these they this those to too under until up us was we were what when where "
    "which while who whom why will with would you your agent ai bot feature "
)
_SAY_NOTHING = frozenset(_COMMON.split())
"""What stands in nearly every such text: two of them are not alike for it, and a mean of word vectors says they are."""


@dataclass(frozen=True, slots=True)
class Found:
    """An incident that was found, how well it fits (by words: BM25; by likeness: at most 1), and why."""

    incident: Incident
    score: float
    why: str
    decision_id: str | None = None
    score_by_block: Mapping[str, float] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        one = self.incident
        return {
            "id": one.id, "title": one.title, "severity": one.severity, "status": one.status,
            **{name: value for name, value in asdict(self).items() if name != "incident"},
        }  # fmt: skip


def by_words(incidents: Incidents, text: str, *, limit: int = 10) -> tuple[list[Found], bool]:
    """The incidents that hold the words of `text`, the best first; and whether they hold all of them.

    Where none holds all of them, those that hold some. Endings do not count (Porter's stemmer). Raises `UsageError`.
    """
    words = list(dict.fromkeys(_WORD.findall(text)))[:32]
    if not words:
        raise UsageError("there is no word in it to search for")
    quoted = [f'"{word}"' for word in words]
    for joint in (" AND ", " OR "):
        rows = incidents.store.matching(incidents.tenant, joint.join(quoted), limit)
        if rows:
            found = [Found(incidents.show(str(n)), score, " ".join(place.split())) for n, score, place in rows]
            return found, joint == " AND "
    return [], True


def near_request(
    incidents: Incidents, request: Mapping[str, Any], *, least: float = LEAST_ALIKE, limit: int = 10
) -> list[Found]:
    """The incidents near a request that is checked: by their decisions' requests, as a policy's memory would weigh

    them, and by what people wrote of them. The nearest first. Raises `UsageError`, `MemoryUnavailable`.
    """
    return _near(incidents, remembered_part(request), str(request["action"]["type"]), least, limit)


def near_text(incidents: Incidents, text: str, *, least: float = LEAST_ALIKE, limit: int = 10) -> list[Found]:
    """The incidents near a description, such as a planned feature's, by text alone. As `near_request`."""
    if not text.strip():
        raise UsageError("there is no text to compare with")
    return _near(incidents, _as_request(text), None, least, limit)


def _as_request(text: str) -> dict[str, Any]:
    """What people wrote as the text of a request, without the words that say nothing; all, if there are no others."""
    words = [word for word in _WORD.findall(text) if word.lower() not in _SAY_NOTHING]
    return {"action": {"type": "", "intent": " ".join(words) or text}}


def _near(
    incidents: Incidents, part: Mapping[str, Any], action_type: str | None, least: float, limit: int
) -> list[Found]:
    home = incidents.home
    vectoriser = chosen_vectoriser(home.settings, home.agent.control().memory)
    asked = vectoriser.vectorise([part])[0]
    if not asked.blocks:
        raise UsageError(
            "there is nothing in it that incidents could be compared by",
            help="evidence, context.inline or action.intent make a request comparable; or use `--near-text`",
        )
    query = query_of(asked, MemorySettings().weights)
    found: list[Found] = []
    for incident in incidents.list():
        pieces = [(where, text) for where, text in written(incident) if text.strip()][:_MOST_PIECES]
        records = [record for record in records_of(home, incident, _PER_INCIDENT) if record is not None]
        vectors = vectoriser.vectorise([*(_as_request(text) for _, text in pieces), *map(_part, records)])
        nearest = [
            *_by_text(incident, asked, pieces, vectors),
            *_by_decision(incident, query, action_type, records, vectors[len(pieces) :]),
        ]
        best = max(nearest, key=lambda one: one.score, default=None)
        if best is not None and best.score >= least:
            found.append(best)
    return sorted(found, key=lambda one: (-one.score, -one.incident.number))[:limit]


def _part(record: Mapping[str, Any]) -> dict[str, Any]:
    return remembered_part(record["request"])


def _by_text(
    incident: Incident, asked: Vector, pieces: Sequence[tuple[str, str]], vectors: Sequence[Vector]
) -> Iterator[Found]:
    """Each piece of what people wrote, by the text block alone."""
    for (where, text), vector in zip(pieces, vectors[: len(pieces)], strict=True):
        score = _dots(asked.values, vector.values)["text"]
        if score > 0:
            told = " ".join(text.split())
            shown = told if len(told) <= 120 else told[:119] + "…"
            yield Found(incident, round(score, 4), f"its {where}: {shown}", None, {"text": round(score, 4)})


def _by_decision(
    incident: Incident,
    query: Query,
    action_type: str | None,
    records: Sequence[Mapping[str, Any]],
    vectors: Sequence[Vector],
) -> Iterator[Found]:
    """Each decision of the incident, as memory weighs it."""
    for record, vector in zip(records, vectors, strict=True):
        score = float(np.dot(query.full, vector.values)) / UNIT
        if score <= 0:
            continue
        was, of = record["request"]["action"]["type"], record["decision_id"]
        also = "" if action_type is None else ", of the same action type" if was == action_type else ", another action"
        by = {name: round(part, 4) for name, part in _dots(query.full, vector.values).items() if part}
        why = f"its decision {of}: {was}, {record['verdict']}{also}"
        yield Found(incident, round(score, 4), why, str(of), by)


def _dots(one: Any, other: Any) -> dict[str, float]:
    return {name: float(np.dot(one[SLICES[name]], other[SLICES[name]])) / UNIT for name in BLOCKS}


def written(incident: Incident) -> Iterator[tuple[str, str]]:
    """What people wrote of an incident, piece by piece: (what it is, text)."""
    yield "title", incident.title
    yield "summary", incident.summary
    for section in incident.sections.values():
        yield f"section {section.name}", section.text
    for note in incident.notes:
        yield "note", note.text
    for action in incident.actions:
        yield f"action {action.id}", action.text
