"""The record index on Qdrant: a point a decision, without vectors, in one collection with its positions.

What was indexed up to where stands in points of the same collection, so that a snapshot restored is consistent with
itself. Writes go records first, positions last: whatever was broken off between is done again, to the same effect.
A decision's last label has a point of its own; so it may come before its record, and a record written again finds it.
Several processes may index different partitions at once; one at a time applies labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from ulid import ULID

from memory_service.qdrant.engine import EnginePoint, Fields, Filter, HasId, Match, NoCollection, QdrantEngine
from memory_service.qdrant.index_state import IndexState, Stand
from memory_service.qdrant.pages import in_order
from memory_service.qdrant.query_filter import (
    Bound,
    Bounds,
    all_of,
    as_filter,
    decided,
    fields_of,
    in_records_only,
    none_of,
    ranks,
    translate,
)
from memory_service.qdrant.record_points import (
    KIND,
    RANK,
    RECORD,
    decision_id_of,
    facts_in,
    label_point_id,
    listed,
    point_id,
    rank_of,
    record_point,
)
from memory_service.record_index import Cursor, Fetch, IndexedRecord, IndexRow, Refused, facts_of, index_row
from schemas.errors import BadInput, IntegrityError, StorageUnavailable, UsageError
from schemas.ids import id_prefix, is_decision_id
from schemas.label import LabelEvent, is_last_word
from schemas.query import Query, holds, leaves

_CHUNK = 500
_CHUNK_CHARS = 4_000_000
_PAGE = 1000
_T = TypeVar("_T")
_Labelled = tuple[str, str]
"""Tenant and decision id."""


def collection_of(prefix: str) -> str:
    """The name of the collection that holds the record index of a prefix."""
    return f"{prefix}-records"


def remove_record_index(engine: QdrantEngine, prefix: str) -> None:
    """Remove the index, whatever log it is of; the next opening starts from nothing. The log is not touched."""
    engine.drop_collection(collection_of(prefix))


class QdrantRecordIndex:
    """RecordIndex on a Qdrant engine; safe for several threads and processes."""

    def __init__(self, engine: QdrantEngine, prefix: str, epoch: str) -> None:
        """Open or create the index. `epoch` names the log that it must belong to. The engine stays the caller's."""
        self._engine = engine
        self._collection = collection_of(prefix)
        self._state = IndexState(engine, self._collection, epoch)
        self._asked_of = ""
        self._closed = False
        with self._guard():
            self._state.open()

    def positions(self) -> dict[int, int]:
        with self._guard():
            stand = self._state.read_all()
            self._asked_of = stand.generation
            return dict(stand.positions)

    def labels_position(self) -> int:
        with self._guard():
            return self._state.read().labels

    def apply(
        self, records: Sequence[tuple[int, int, Mapping[str, Any]]], labels: Sequence[LabelEvent] = ()
    ) -> list[Refused]:
        with self._guard():
            stand = self._state.read({partition for partition, _, _ in records})
            if self._asked_of not in ("", stand.generation):  # these records go on from positions that are no more
                raise StorageUnavailable("the index was emptied meanwhile", where=self._state.where, help="try again")
            events = self._new(labels, stand.labels)
            rows, refused, positions = _new_rows(records, stand.positions)
            said = self._keep(events)
            for chunk in _by_size(rows.values()):
                self._write(chunk)
            self._show(said)
            self._state.move(Stand(stand.generation, events[-1]["version"] if events else 0, positions))
            return refused

    def _new(self, labels: Sequence[LabelEvent], version: int) -> list[LabelEvent]:
        events: list[LabelEvent] = []
        for event in labels:
            if event["version"] <= version:
                continue
            if event["version"] != version + 1:
                raise self._state.unavailable(
                    f"label event {event['version']} came after {version}: events are missing"
                )
            version += 1
            events.append(event)
        return events

    def _keep(self, events: Sequence[LabelEvent]) -> dict[_Labelled, str]:
        """Write the points of the decisions' last labels. What was kept of a later event stays."""
        last = {
            (event["tenant"], event["decision_id"]): (event["version"], event["label"] or "none")
            for event in events
            if is_last_word(event) and is_decision_id(event["decision_id"])
        }
        kept = self._kept(last)
        points = [
            EnginePoint(label_point_id(*of), {KIND: "label", "name": name, "version": version})
            for of, (version, name) in last.items()
            if kept.get(of, (0, ""))[0] < version
        ]
        for chunk in _chunks(points):
            self._engine.upsert(self._collection, chunk)
        return {of: max(said, kept.get(of, (0, "")))[1] for of, said in last.items()}

    def _kept(self, decisions: Iterable[_Labelled]) -> dict[_Labelled, tuple[int, str]]:
        """The version and name of the last label of those decisions that have one."""
        by_point = {label_point_id(*of): of for of in decisions}
        found = self._engine.retrieve(self._collection, list(by_point)) if by_point else []
        return {by_point[str(point.id)]: (point.payload["version"], point.payload["name"]) for point in found}

    def _write(self, rows: Sequence[IndexRow]) -> None:
        """Write records with their labels; one that another process kept meanwhile is put right after."""
        of = [(row.tenant, row.decision_id) for row in rows]
        written = self._kept(of)
        points = [record_point(row, written.get(key, (0, "none"))[1]) for key, row in zip(of, rows, strict=True)]
        self._engine.upsert(self._collection, points)
        while (kept := self._kept(of)) != written:
            self._show({key: name for key, (_, name) in kept.items()})
            written = kept

    def _show(self, said: Mapping[_Labelled, str]) -> None:
        """Put labels on those of the decisions whose records are there."""
        groups: dict[tuple[str, str], list[str]] = {}
        for (tenant, decision_id), name in said.items():
            groups.setdefault((tenant, name), []).append(point_id(decision_id))
        self._engine.set_payload(
            self._collection,
            [
                (Filter(must=(Match("tenant", tenant), HasId(tuple(chunk)))), {"label": name})
                for (tenant, name), points in groups.items()
                for chunk in _chunks(points)
            ],
        )

    def find(
        self,
        query: Query | None = None,
        *,
        tenant: str | None,
        limit: int | None = None,
        after: Cursor | None = None,
        newest_first: bool = True,
        fetch: Fetch | None = None,
    ) -> list[IndexedRecord]:
        if limit is not None and limit <= 0:
            return []
        if after is not None and not is_decision_id(after):
            raise BadInput("this cursor is not one that a list gave")
        with self._guard():
            self._state.read()
            bounds = self._bounds(query, fetch)
            points = self._points(all_of([_scope(tenant), bounds.maybe]), newest_first, after, limit, True)
            found = (
                facts
                for facts in map(facts_in, points)
                if query is None or bounds.exact or _agrees(query, facts, fetch)
            )
            return [listed(facts) for facts in islice(found, limit)]

    def count(self, query: Query | None = None, *, tenant: str | None, fetch: Fetch | None = None) -> int:
        with self._guard():
            self._state.read()
            bounds = self._bounds(query, fetch)
            scope = _scope(tenant)
            total = self._counted(all_of([scope, bounds.sure]))
            if query is None or bounds.exact:
                return total
            rest = all_of([scope, bounds.maybe, none_of(bounds.sure)])
            points = self._points(rest, True, None, None, fields_of(query.expression))
            return total + sum(1 for facts in map(facts_in, points) if _agrees(query, facts, fetch))

    def _counted(self, bound: Bound) -> int:
        return 0 if bound is False else self._engine.count(self._collection, as_filter(bound))

    def _bounds(self, query: Query | None, fetch: Fetch | None) -> Bounds:
        if query is None:
            return Bounds(True, True)
        bounds = translate(query.expression)
        if fetch is None and not bounds.exact and any(in_records_only(leaf.field) for leaf in leaves(query.expression)):
            raise _needs_fetch()
        return bounds

    def _points(
        self, bound: Bound, newest_first: bool, after: Cursor | None, limit: int | None, fields: Fields
    ) -> Iterator[EnginePoint]:
        """Records in order; `limit` is how many will be read, if all goes well."""
        if bound is False:
            return iter(())
        page = _PAGE if limit is None else limit + 2  # two are for the cursor and what comes next
        edge = None if after is None else (rank_of(after), point_id(after))
        return in_order(self._engine, self._collection, bound, newest_first, edge, page, fields)

    def by_prefix(self, prefix: str, tenant: str | None, limit: int = 2) -> list[str]:
        if id_prefix(prefix) != prefix:
            return []
        low, high = (str(ULID.from_str(prefix.ljust(26, fill))) for fill in "0Z")
        with self._guard():
            self._state.read()
            if low == high:
                bound = all_of([_scope(tenant), HasId((point_id(low),))])
            else:
                bound = all_of([_scope(tenant), ranks(rank_of(low), rank_of(high))])
            found = map(decision_id_of, self._points(bound, False, None, limit, (RANK,)))
            return list(islice((name for name in found if low <= name <= high), limit))

    def reset(self) -> None:
        with self._guard():
            self._engine.drop_collection(self._collection)
            self._state.create()
            self._asked_of = self._state.read().generation

    def close(self) -> None:
        self._closed = True

    @contextmanager
    def _guard(self) -> Iterator[None]:
        if self._closed:
            raise self._state.unavailable("the index was closed")
        try:
            yield
        except NoCollection:
            raise self._state.emptied() from None


def _scope(tenant: str | None) -> Bound:
    """Records only: no other point has a tenant."""
    return Match(KIND, RECORD) if tenant is None else Match("tenant", tenant)


def _new_rows(
    records: Sequence[tuple[int, int, Mapping[str, Any]]], known: Mapping[int, int]
) -> tuple[dict[str, IndexRow], list[Refused], dict[int, int]]:
    """Rows by decision id (of one that comes twice the later), what is no record, and the positions after them."""
    rows: dict[str, IndexRow] = {}
    refused: list[Refused] = []
    positions: dict[int, int] = {}
    for partition, offset, record in records:
        if offset < positions.get(partition, known.get(partition, 0)):
            continue
        positions[partition] = offset + 1
        try:
            row = index_row(record, partition, offset)
        except IntegrityError as error:
            refused.append(Refused(partition, offset, error.message))
        else:
            rows[row.decision_id] = row
    return rows, refused, positions


def _agrees(query: Query, facts: Mapping[str, Any], fetch: Fetch | None) -> bool:
    answer = decided(query.expression, facts)
    if answer is not None:
        return answer
    if fetch is None:
        raise _needs_fetch()
    record = fetch(facts["partition"], facts["offset"])
    return record is not None and holds(query.expression, facts_of(record, facts["label"]))


def _needs_fetch() -> UsageError:
    return UsageError("this query needs the records themselves: give `fetch`")


def _by_size(rows: Iterable[IndexRow]) -> Iterator[list[IndexRow]]:
    """In portions of so many rows, or so many characters: a single text may have hundreds of thousands."""
    portion: list[IndexRow] = []
    size = 0
    for row in rows:
        chars = len(repr(row))
        if portion and (len(portion) == _CHUNK or size + chars > _CHUNK_CHARS):
            yield portion
            portion, size = [], 0
        portion.append(row)
        size += chars
    if portion:
        yield portion


def _chunks(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
