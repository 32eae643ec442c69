"""What a home's memory holds, for the command line and HTTP alike: of the home's tenant, never of another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from lumyn.home import Home
from lumyn.label_jobs import known
from lumyn.lookup import find_record, sound_record
from lumyn.stores import chosen, chosen_vectoriser
from memory_service.fold import Standing
from memory_service.point import OPEN
from memory_service.recall import Asked, MemoryChoice, Recall, unavailable
from memory_service.recaller import Term
from memory_service.timeline import stands, with_trust
from memory_service.vectoriser import Vectoriser
from schemas.errors import BadInput, MemoryUnavailable, NotFound, UsageError
from schemas.label import FULL_TRUST, labellers_of, trust_of
from schemas.policy import MemorySettings
from schemas.request import Request
from schemas.seal import is_sealed
from streams.as_of import RecalledAgain, recall_again, was_recalled
from streams.erasures import erasures
from streams.label_history import History, trust_events
from streams.memory_explain import MemoryExplanation, explain_memory
from streams.sealing import opened_record, require_open, revealed
from streams.subject_keys import SubjectKeys


def stats(home: Home) -> dict[str, Any]:
    """Version, epoch, vectoriser, and how many memories mean what. Raises `LumynError`."""
    control = home.agent.control()
    store = home.memories.of(control.memory).store()
    mark = store.watermark()
    points = list(store.points(home.settings.tenant))
    meanings = Counter(p.meaning for p in points)
    return {
        "version": mark.version,
        "epoch": mark.epoch,
        "points": len(points),
        "embedder": chosen(home.settings, control.memory).embedder,
        "vectoriser_id": mark.vectoriser_id,
        "left": [name for name in control.memories if name != mark.vectoriser_id],
        "harmful": meanings["harmful"],
        "fine": meanings["fine"],
        "neutral": meanings["neutral"],
        "contested": [p.memory_id for p in points if p.contested],
        "trusted_less": sum(p.trust < FULL_TRUST for p in points),
    }


def near(home: Home, request: Request, limit: int) -> Recall:
    """What the memory holds near a request. Raises `BadInput` for another tenant's request."""
    if request.tenant != home.settings.tenant:
        raise BadInput(
            f"the request's tenant is not this home's `{home.settings.tenant}`", where="tenant",
            help="set LUMYN_TENANT to look into the other's",
        )  # fmt: skip
    return _asked(home, Asked(request.value, replace(MemorySettings(), top_k=limit), home.memory.version()))


def near_decision(home: Home, decision: str, limit: int) -> Recall:
    """What the memory holds now near a past decision, without the decision itself. Raises `NotFound`."""
    _, record = sound_record(home, decision)
    settings = replace(MemorySettings(), top_k=limit)
    return _asked(home, Asked(require_open(record)["request"], settings, home.memory.version(), record["decision_id"]))


def _asked(home: Home, asked: Asked) -> Recall:
    """The memory's answer. Raises `MemoryUnavailable`."""
    recall = home.memory.recaller().recall([asked])[0]
    if not recall.available:
        raise MemoryUnavailable("the memory can't answer", help="`lumyn doctor` checks it")
    return replace(recall, signals=revealed(home.log.keys, recall.signals))


def recall_then(home: Home, record: Mapping[str, Any]) -> tuple[Vectoriser, Callable[[Asked], Recall]]:
    """The vectoriser of the memory that a decision was made with, and how that memory is asked as of then."""
    memory = record["memory"]
    choice = home.agent.control().memory_of(memory["vectoriser_id"])
    vectoriser = chosen_vectoriser(home.settings, choice)

    def recall(asked: Asked) -> Recall:
        if (memory["epoch"], memory["vectoriser_id"]) != (home.log.epoch, vectoriser.id):
            return unavailable()  # the same version of another memory says nothing
        return home.memories.of(choice).recaller().recall([asked])[0]  # type: ignore[no-any-return]

    return vectoriser, recall


def explained(home: Home, decision: str) -> MemoryExplanation:
    """The whole sum behind a decision. Raises `NotFound`; `UsageError` for one that was made without memory."""
    _, record = sound_record(home, decision)
    name = record["decision_id"]
    require_open(record)
    if not was_recalled(record):
        raise UsageError(f"decision `{name}` was made without memory", help=f"`lumyn explain {name}` explains it")

    control = home.agent.control()
    choice = control.memory_of(record["memory"]["vectoriser_id"])
    vectoriser, recall = recall_then(home, record)

    def nearby(asked: Asked) -> list[Term]:
        if not recall(asked).available:
            raise MemoryUnavailable("the memory can't answer as of then")
        return home.memories.of(choice).recaller().nearby(asked)  # type: ignore[no-any-return]

    return explain_memory(
        record,
        control.compiled(record["policy"]["hash"]),
        vectoriser,
        home.events,
        recall,
        nearby,
        erasures(home.log),
    )


def recalled_again(home: Home, records: Iterable[Mapping[str, Any]]) -> Iterator[RecalledAgain]:
    """Each recalled decision's recall, made again in the memory that it was made in. Raises `LumynError`."""
    control, gone = home.agent.control(), erasures(home.log)
    by_choice: dict[MemoryChoice | None, list[Mapping[str, Any]]] = {}
    for record in records:
        # one of a memory that is not known here is asked of the present one, which says that it is another
        choice = control.memory_of(record["memory"]["vectoriser_id"]) or control.memory
        by_choice.setdefault(choice, []).append(record)
    for choice, some in by_choice.items():
        memory = home.memories.of(choice)
        mark = memory.store().watermark()
        yield from recall_again(
            some, memory.recaller(), epoch=mark.epoch, vectoriser_id=mark.vectoriser_id, version=mark.version,
            erasures=gone,
        )  # fmt: skip


def remembered(home: Home, decision: str) -> dict[str, Any]:
    """What one decision stands for now, what it stood for before, and all that was said. Raises `NotFound`."""
    _, record = find_record(home, decision)
    events = [event for event in home.events(record["decision_id"]) if event["tenant"] == home.settings.tenant]
    spoken = [event for event in events if event["type"] != "note"]
    if is_sealed(record):
        require_open(opened_record(home.log.keys, record))
    if not spoken:
        raise NotFound(f"decision `{record['decision_id']}` was never labelled: it is not in the memory")
    names = set[str]().union(*(labellers_of(event) for event in spoken))
    told = with_trust(spoken, trust_events(home.log, home.settings.tenant, names))
    stood = [
        {**_stood(standing), "from_version": since, "to_version": None if until == OPEN else until}
        for standing, since, until in stands(told)
    ]
    now = stood[-1] if stood and stood[-1]["to_version"] is None else None
    return {"memory_id": record["decision_id"], "now": now, "stood": stood, "events": events}


def _stood(standing: Standing) -> dict[str, Any]:
    return {**asdict(standing), "trust": standing.trust / FULL_TRUST}


def trusts(home: Home) -> list[dict[str, Any]]:
    """The labellers of the home's tenant who are not trusted in full, the least trusted first; 0 is held."""
    found = []
    for name, events in known(home).trusts.items():
        last = events[-1]
        if (trust := trust_of(last)) < FULL_TRUST:
            told = {"since": last["version"], "by": last["actor"], "why": last["summary"], "job": last["job"]}
            found.append({"labeller": name, "trust": trust / FULL_TRUST, **told})
    return sorted(found, key=lambda one: (one["trust"], one["labeller"]))


def contested(home: Home) -> list[dict[str, Any]]:
    """Labelled decisions whose labellers disagree, oldest first, with each labeller's last word."""
    return [_dispute(home.log.keys, history, standing) for history, standing in _disputed(known(home))]


def _disputed(labelled: Mapping[str, History]) -> list[tuple[History, Standing]]:
    found = []
    for name in sorted(labelled):
        standing = labelled[name].standing()
        if standing is not None and standing.contested:
            found.append((labelled[name], standing))
    return found


def _dispute(keys: SubjectKeys, history: History, standing: Standing) -> dict[str, Any]:
    return {
        "decision_id": history.decision_id,
        "verdict": history.verdict,
        "counts_as": standing.meaning,
        "said": [revealed(keys, word.as_word(), history.decision_id) for word in history.words()],
    }
