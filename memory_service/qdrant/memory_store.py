"""The memory store on Qdrant: exact recall by dot product, written by one label agent, read by any number of workers.

A batch of label events is written in this order: points, then what was said of each decision, then the watermark.
Each step may be repeated, and none undoes what a later one has done, so a writer that dies anywhere, or one that comes
back late, does no harm: readers ask as of a version, and see a batch when its watermark stands.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from memory_service.point import OPEN, Point
from memory_service.qdrant import memory_labels, memory_points
from memory_service.qdrant.engine import EngineError, EnginePoint, Filter, Nearest, NoCollection, PointId, QdrantEngine
from memory_service.qdrant.memory_cache import PointCache
from memory_service.qdrant.memory_forget import Forgetter
from memory_service.qdrant.memory_labels import Document, Trust, document_id
from memory_service.qdrant.memory_points import WATERMARK, engine_point, in_force, not_beyond
from memory_service.qdrant.memory_search import Recollecting, identity
from memory_service.qdrant.memory_watermark import HELP, WatermarkKeeper
from memory_service.redaction import kept_event
from memory_service.store import Found, Search, Watermark
from memory_service.timeline import Change, by_decision
from memory_service.vectoriser import Vectoriser
from schemas.errors import MemoryUnavailable
from schemas.label import LabelEvent, key_of, speaks_of_decision, speaks_of_labeller

_BATCH = 512
_PAGE = 1000


def _batches(events: Sequence[LabelEvent]) -> Iterator[Sequence[LabelEvent]]:
    """Events to be written at once, always cut alike: one that speaks of a labeller or a subject stands by itself."""
    start = 0
    for at, event in enumerate(events):
        alone = not speaks_of_decision(event)
        if at > start and (alone or at - start == _BATCH):
            yield events[start:at]
            start = at
        if alone:
            yield events[at : at + 1]
            start = at + 1
    if start < len(events):
        yield events[start:]


class QdrantMemoryStore:
    """MemoryStore on a Qdrant engine, which it closes; safe for threads.

    One label agent writes (`apply`, `beat`, `reset`). Workers open it with `create=False`: then a store that is not
    there is unavailable, never new and empty; nothing is asked of the engine before the first question.
    """

    def __init__(
        self, engine: QdrantEngine, vectoriser: Vectoriser, epoch: str, prefix: str = "lumyn", *, create: bool = False
    ) -> None:
        """`epoch` names the `labels` topic generation that the store must belong to; `prefix` its collections.

        Raises `MemoryUnavailable` when it is to be created and that can't be done.
        """
        self._engine, self._vectoriser = engine, vectoriser
        self._memory, self._labels = f"{prefix}-memory", f"{prefix}-memory-labels"
        self._cache = PointCache(engine, self._memory)
        self._forgetter = Forgetter(engine, self._memory, self._labels)
        self._writing = threading.RLock()
        self._mark = WatermarkKeeper(engine, self._memory, epoch, vectoriser)
        nothing = memory_points.no_vector(vectoriser.dimensions)
        self._is_watermark = Nearest(nothing, memory_points.IS_WATERMARK, 1, with_payload=True)
        if create:
            with self._guard():
                self._create()

    # the watermark

    def watermark(self) -> Watermark:
        """The store's own state, with its points counted: costs a pass over their index."""
        with self._guard():
            return self._mark.read_and_count()

    def version(self) -> int:
        """The last label event applied: what `watermark` says, without counting points."""
        with self._guard():
            return self._mark.read().version

    def beat(self, at_ms: int) -> Watermark:
        """Vouch that at `at_ms` (Unix milliseconds) the store held all there was. For the label agent, at its end."""
        with self._writing, self._guard():
            mark = self._mark.read()
            self._mark.put(replace(mark, at_ms=max(at_ms, mark.at_ms or 0)))
            return self._mark.read()

    # creating

    def _create(self) -> None:
        """Make what is missing. A memory that lost its watermark but not its points is refused, not begun anew."""
        if self._engine.exists(self._memory):
            self._ensure()
            if self._engine.retrieve(self._memory, [WATERMARK]):
                self._forgetter.finish(self._mark.read().version)
                return
            if self._engine.count(self._memory):
                raise self._unavailable("memory has points, but no watermark")
        self._begin()

    def _ensure(self) -> None:
        self._engine.ensure_collection(self._memory, self._vectoriser.dimensions, memory_points.INDEXES)
        self._engine.ensure_collection(self._labels, None, memory_labels.INDEXES)

    def _begin(self) -> None:
        """An empty memory at version 0; the watermark comes last."""
        self._engine.drop_collection(self._labels)
        self._engine.drop_collection(self._memory)
        self._ensure()
        self._engine.upsert(self._labels, [memory_labels.head_point(self._mark.epoch, 0)])
        self._mark.put(Watermark(self._mark.epoch, 0, 0, self._vectoriser.id))
        self._mark.forget()
        self._mark.read()

    def reset(self, epoch: str) -> None:
        with self._writing, self._guard():
            if self._engine.exists(self._memory):
                self._engine.delete(self._memory, [WATERMARK])
            self._mark.epoch = epoch
            self._cache.clear()
            self._begin()

    # writing

    def apply(self, events: Sequence[LabelEvent]) -> Watermark:
        with self._writing, self._guard():
            mark = self._mark.read()
            fresh = [kept_event(event, self._vectoriser.profile) for event in events if event["version"] > mark.version]
            for version, event in enumerate(fresh, start=mark.version + 1):
                if event["version"] != version:
                    raise self._unavailable(
                        f"label event {event['version']} came after {version - 1}: events are missing"
                    )
            for batch in _batches(fresh):
                if batch[0]["version"] == mark.version + 1:  # or else another writer was quicker
                    try:
                        self._apply(mark, batch)
                    except MemoryUnavailable:
                        if self._mark.read().version == mark.version:
                            raise
                    mark = self._mark.read()
            return mark

    def _apply(self, mark: Watermark, events: Sequence[LabelEvent]) -> None:
        """One batch. Whatever an earlier try left beyond the watermark is made again, the same."""
        end = events[-1]["version"]
        if speaks_of_labeller(events[0]):
            opened = self._apply_trust(mark.version, events[0])
        else:
            told = by_decision(events)
            documents = self._documents(mark.version, told)
            for name, spoken in told.items():
                documents.setdefault(name, Document.first(spoken[0], mark.version))
            opened = self._tell(mark.version, end, self._trusting(mark.version, documents, told), told)
        forgotten = [str(event.get("subject")) for event in events if event["type"] == "forget"]
        opened -= self._forgetter.begin(forgotten, mark.version, end)
        self._mark.put(replace(mark, version=end, count=mark.count + opened))
        if forgotten:
            self._forgetter.finish(end)
            self._cache.clear()

    def _trusting(
        self, version: int, documents: Mapping[str, Document], told: Mapping[str, Sequence[LabelEvent]]
    ) -> dict[str, Document]:
        """The documents as of a version, with the trust in force in those who newly speak."""
        newly = {name: documents[name].newly_spoken(spoken) for name, spoken in told.items()}
        asked = {memory_labels.trust_id(labeller) for labellers in newly.values() for labeller in labellers}
        stored = self._engine.retrieve(self._labels, list(asked)) if asked else []
        trusts = {one.labeller: one for one in (Trust.read(point.payload) for point in stored)}
        return {name: documents[name].trusting(version, trusts, newly[name]) for name in told}

    def _apply_trust(self, version: int, event: LabelEvent) -> int:
        """A batch of one event, that reaches all that a labeller spoke of; how many more points are in force then."""
        labeller, opened = key_of(event), 0
        self._documents(version, ())  # raises when the documents do not go that far
        stored = self._engine.retrieve(self._labels, [memory_labels.trust_id(labeller)])
        known = Trust.read(stored[0].payload) if stored else Trust(labeller)
        head = memory_labels.head_point(self._mark.epoch, event["version"])
        self._engine.upsert(self._labels, [head, known.told(event).point()], not_beyond(event["version"]))
        spoken_of = self._scroll(self._labels, memory_labels.spoken_of_by(labeller), ("decision_id",))
        names = [point.payload["decision_id"] for point in spoken_of]
        for start in range(0, len(names), _BATCH):
            some = names[start : start + _BATCH]
            told = {name: [event] for name in some}
            opened += self._tell(version, event["version"], self._documents(version, some), told)
        return opened

    def _tell(
        self,
        version: int,
        end: int,
        documents: Mapping[str, Document],
        told: Mapping[str, Sequence[LabelEvent]],
    ) -> int:
        """Write what events make of decisions, their points first; how many more of those are in force then."""
        changes: list[tuple[Document, Change]] = []
        for name, spoken in told.items():
            timeline = documents[name].at(version)
            changes += [(documents[name], c) for event in spoken if (c := timeline.take(event)) is not None]
        points = self._points_of(changes)
        if points:
            self._engine.upsert(self._memory, points, memory_points.STILL_OPEN)
        extended = [documents[name].extended(version, spoken).point() for name, spoken in told.items()]
        self._engine.upsert(self._labels, [memory_labels.head_point(self._mark.epoch, end), *extended], not_beyond(end))
        return sum((c.began is not None) - (c.ended is not None) for _, c in changes)

    def _documents(self, version: int, decision_ids: Collection[str]) -> dict[str, Document]:
        """What was said of these decisions, those that were spoken of, for a version of the memory."""
        asked = [document_id(name) for name in decision_ids]
        found = {p.id: p for p in self._engine.retrieve(self._labels, [memory_labels.HEAD, *asked])}
        head = found.pop(memory_labels.HEAD, None)
        if head is None or head.payload["epoch"] != self._mark.epoch or head.payload["version"] < version:
            raise self._unavailable("what was said of the labelled decisions is not all there")
        documents = [Document.read(point.payload) for point in found.values()]
        for one in documents:
            if one.base > version:
                raise self._unavailable(f"what was said of `{one.decision_id}` begins at {one.base}, after {version}")
        return {one.decision_id: one for one in documents}

    def _points_of(self, changes: Sequence[tuple[Document, Change]]) -> list[EnginePoint]:
        """The points that changes close and open, each written once and whole."""
        labels = {d.decision_id: d.at(d.base).labels for d, _ in changes}
        parts = [one.decision["facts"] for one in labels.values()]
        vectors = dict(zip(labels, (v.values for v in self._vectoriser.vectorise(parts)), strict=True))
        points: dict[PointId, EnginePoint] = {}
        profile = self._vectoriser.profile
        for document, change in changes:
            name = document.decision_id
            if change.ended is not None:
                stood, since = change.ended
                versions = (since, change.version)
                point = engine_point(name, labels[name], stood, versions, vectors[name], profile)
                points[point.id] = point
            if change.began is not None:
                versions = (change.version, OPEN)
                point = engine_point(name, labels[name], change.began, versions, vectors[name], profile)
                points[point.id] = point
        return list(points.values())

    # reading

    def search(self, searches: Sequence[Search]) -> list[Found]:
        """Exact recall, one answer a search, in order. The watermark comes along with every call, and is checked."""
        with self._guard():
            newest = max((s.version for s in searches), default=0)
            seen = self._mark.seen
            if seen is None or newest > seen.version or not self._mark.trusted:
                stands = self._mark.read().version
                if newest > stands:
                    raise self._unavailable(f"memory stands at version {stands}, asked for {newest}", help=None)
            under_way = {identity(search): Recollecting(search, self._most(search)) for search in searches}
            self._ask(list(under_way.values()))
            whole = self._cache.whole(point for one in under_way.values() for point in one.reported())
            found = {key: one.found(whole) for key, one in under_way.items()}
            return [found[identity(search)] for search in searches]

    def _most(self, search: Search) -> int:
        """No more points than this are in force at a version: each decision needs an event of its own."""
        seen = self._mark.seen
        return seen.count if seen is not None and seen.version == search.version else search.version

    def _ask(self, under_way: Sequence[Recollecting]) -> None:
        """Ask the engine until every search has its answer: mostly once, in one call for all of them."""
        while asked := [(one, *to_ask) for one in under_way for to_ask in one.to_ask().items()]:
            asked.sort(key=lambda ask: ask[0].kin(ask[1]))
            queries = [*(query for *_, query in asked), self._is_watermark]
            before = self._mark.seen
            *answers, mark = self._engine.query_batch(self._memory, queries)
            self._mark.check(mark.payloads[0] if mark.payloads else None, before)
            known = self._cache.known(point_id for ranked in answers for point_id in ranked.ids)
            for (one, name, _), ranked in zip(asked, answers, strict=True):
                one.take(name, ranked, known)

    def points(self, tenant: str | None = None, version: int | None = None) -> Iterator[Point]:
        with self._guard():
            newest = self._mark.read().version
            at = newest if version is None else version
            if at > newest:
                raise self._unavailable(f"memory stands at version {newest}, asked for {at}", help=None)
            scrolled = self._scroll(self._memory, in_force(at, tenant), ("memory_id",))
            found = sorted((p.payload["memory_id"], p.id) for p in scrolled)
        for start in range(0, len(found), _PAGE):
            with self._guard():
                ids = [point_id for _, point_id in found[start : start + _PAGE]]
                stored = self._engine.retrieve(self._memory, ids, memory_points.CONTENT, with_vector=True)
                page = [memory_points.point_of(p.payload, p.vector, newest) for p in stored if p.vector is not None]
                if len(page) != len(ids):
                    raise self._unavailable("points went away while they were listed", help="try again")
            yield from sorted(page, key=lambda point: point.memory_id)

    def _scroll(self, collection: str, which: Filter, fields: tuple[str, ...]) -> Iterator[EnginePoint]:
        offset: PointId | None = None
        while True:
            page = self._engine.scroll(collection, which, limit=_PAGE, offset=offset, with_payload=fields)
            yield from page.points
            offset = page.next_offset
            if offset is None:
                return

    def is_remembered(self, memory_id: str) -> bool:
        with self._guard():
            version = self._mark.read().version
            document = self._documents(version, [memory_id]).get(memory_id)
            return document is not None and document.at(version).since > 0

    def close(self) -> None:
        self._engine.close()

    # what goes wrong

    def _unavailable(self, message: str, help: str | None = HELP) -> MemoryUnavailable:
        return MemoryUnavailable(message, where=self._engine.where, help=help)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Turns every fault of the engine or of its content into `MemoryUnavailable`."""
        try:
            yield
        except MemoryUnavailable as error:
            if error.where is None:
                error.where = self._engine.where
            raise
        except EngineError as error:
            self._mark.distrust()
            help = HELP if isinstance(error, NoCollection) else error.help
            raise MemoryUnavailable(error.message, where=error.where, help=help) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._unavailable(f"memory can't answer: {type(error).__name__}: {error}") from error
