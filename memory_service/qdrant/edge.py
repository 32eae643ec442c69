"""The engine in this process, on a folder: Qdrant Edge. The only module that knows `qdrant_edge`.

One process may have a folder open at a time; within it, engines on the same folder share what is open. What was
written is there after the process dies at any moment; a power failure may take the last writes with it, in order.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import numpy as np
import qdrant_edge as q

from memory_service.qdrant.engine import (
    Condition,
    EngineError,
    EnginePoint,
    Fields,
    Filter,
    HasId,
    IndexKind,
    IsEmpty,
    IsNull,
    Match,
    MatchAny,
    Nearest,
    NoCollection,
    OrderBy,
    PointId,
    Range,
    Ranked,
    Scrolled,
    Selection,
)
from schemas.canonical import decode_trusted

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_CONFIG = "edge_config.json"
_INDEXES: Mapping[IndexKind, Callable[[], Any]] = {
    "tenant": lambda: q.KeywordIndexParams(is_tenant=True),
    "keyword": q.KeywordIndexParams,
    "integer": lambda: q.IntegerIndexParams(lookup=True, range=True),
    "float": q.FloatIndexParams,
}


class _Folder:
    """A folder that this process has open: a shard a collection, one caller at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.RLock()
        self.openers = 0
        self.shards: dict[str, q.EdgeShard] = {}


_open_folders: dict[Path, _Folder] = {}
_opening = threading.Lock()


class EdgeEngine:
    """QdrantEngine on a folder; safe for threads, which take turns."""

    def __init__(self, path: Path) -> None:
        """Open the folder, or make it. Raises `EngineError` at the first use when another process has it open."""
        self._where = f"edge:{path}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            place = path.resolve(strict=True)
        except OSError as error:
            raise EngineError(f"the folder can't be used: {error.strerror}", where=self._where) from None
        with _opening:
            self._folder = _open_folders.setdefault(place, _Folder(place))
            self._folder.openers += 1
        self._closed = False

    @property
    def where(self) -> str:
        return self._where

    def version(self) -> str:
        with self._shards():
            return f"edge {_installed()}"

    @contextmanager
    def _shards(self) -> Iterator[dict[str, q.EdgeShard]]:
        """The open shards, for one caller; whatever goes wrong with them is an `EngineError`."""
        with self._folder.lock:
            if self._closed:
                raise EngineError("qdrant edge was closed", where=self._where)
            try:
                yield self._folder.shards
            except EngineError:
                raise
            except BaseException as error:
                # a fault inside the engine arrives as `Exception` or, when it panicked, as a `BaseException`
                if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                    raise
                raise EngineError(f"qdrant edge refused: {error}", where=self._where) from None

    def _do(self, collection: str, work: Callable[[q.EdgeShard], _T]) -> _T:
        """Do something with a collection's shard, opening it on first use."""
        with self._shards() as shards:
            shard = shards.get(collection)
            if shard is None:
                shard = shards[collection] = self._load(collection)
            return work(shard)

    def _place(self, collection: str) -> Path:
        if not _NAME.fullmatch(collection):
            raise EngineError(f"`{collection}` can't be a collection's name", where=self._where)
        return self._folder.path / collection

    def _load(self, collection: str) -> q.EdgeShard:
        place = self._place(collection)
        if not (place / _CONFIG).exists():
            raise NoCollection(f"there is no collection `{collection}`", where=self._where, help="was it emptied?")
        try:
            return q.EdgeShard.load(str(place))
        except Exception as error:
            if "WouldBlock" in str(error):
                raise EngineError(
                    "another process has the memory folder open",
                    where=self._where,
                    help="Qdrant Edge serves one process at a time: stop the other one, or use a Qdrant server",
                ) from None
            raise

    def exists(self, collection: str) -> bool:
        with self._shards():
            return (self._place(collection) / _CONFIG).exists()

    def ensure_collection(self, collection: str, vector_size: int | None, indexes: Mapping[str, IndexKind]) -> None:
        with self._shards() as shards:
            if not self.exists(collection):
                place = self._place(collection)
                shutil.rmtree(place, ignore_errors=True)  # what a creation left that did not come to its end
                shards[collection] = q.EdgeShard.create(str(place), _config(vector_size))
            size = _vector_size(self._place(collection))
            if size != vector_size:
                message = f"collection `{collection}` has vectors of {size}, not {vector_size}"
                raise EngineError(message, where=self._where)
            self._do(collection, lambda shard: _index(shard, indexes))

    def drop_collection(self, collection: str) -> None:
        with self._shards() as shards:
            shard = shards.pop(collection, None)
            if shard is not None:
                shard.close()
            place = self._place(collection)
            (place / _CONFIG).unlink(missing_ok=True)
            shutil.rmtree(place, ignore_errors=True)

    def upsert(self, collection: str, points: Sequence[EnginePoint], only_if: Filter | None = None) -> None:
        if not points:
            return

        def work(shard: q.EdgeShard) -> None:
            made = [
                q.Point(p.id, {} if p.vector is None else p.vector.tolist(), cast(dict[str, Any], p.payload))
                for p in points
            ]
            condition = None if only_if is None else _filter(only_if)
            shard.update(q.UpdateOperation.upsert_points(made, condition))

        self._do(collection, work)

    def set_payload(self, collection: str, changes: Sequence[tuple[Selection, Mapping[str, Any]]]) -> None:
        def work(shard: q.EdgeShard) -> None:
            for which, payload in changes:
                if isinstance(which, Filter):
                    shard.update(q.UpdateOperation.set_payload_by_filter(_filter(which), dict(payload)))
                else:
                    shard.update(q.UpdateOperation.set_payload(list(which), dict(payload)))

        self._do(collection, work)

    def delete(self, collection: str, which: Selection) -> None:
        def work(shard: q.EdgeShard) -> None:
            if isinstance(which, Filter):
                shard.update(q.UpdateOperation.delete_points_by_filter(_filter(which)))
            else:
                shard.update(q.UpdateOperation.delete_points(list(which)))

        self._do(collection, work)

    def retrieve(
        self, collection: str, ids: Sequence[PointId], with_payload: Fields = True, with_vector: bool = False
    ) -> list[EnginePoint]:
        if not ids:
            return []
        found = self._do(collection, lambda shard: shard.retrieve(list(ids), _fields(with_payload), with_vector))
        return [_stored(record) for record in found]

    def query_batch(self, collection: str, queries: Sequence[Nearest]) -> list[Ranked]:
        if not queries:
            return []
        answers = self._do(
            collection, lambda shard: shard.query_batch(q.QueryBatchRequest([_query(query) for query in queries]))
        )
        return [
            Ranked(
                ids=[_plain_id(hit.id) for hit in hits],
                scores=[hit.score for hit in hits],
                payloads=[hit.payload or {} for hit in hits] if query.with_payload else (),
                vectors=[np.array(hit.vector, dtype=np.float32) for hit in hits] if query.with_vector else (),
            )
            for query, hits in zip(queries, answers, strict=True)
        ]

    def scroll(
        self,
        collection: str,
        filter: Filter | None = None,
        *,
        limit: int,
        offset: PointId | None = None,
        order_by: OrderBy | None = None,
        with_payload: Fields = True,
        with_vector: bool = False,
    ) -> Scrolled:
        request = q.ScrollRequest(
            offset=offset,
            limit=limit,
            filter=None if filter is None else _filter(filter),
            with_payload=_fields(with_payload),
            with_vector=with_vector,
            order_by=None if order_by is None else _order(order_by),
        )
        records, more = self._do(collection, lambda shard: shard.scroll(request))
        next_offset = None if more is None or order_by is not None else _plain_id(more)
        return Scrolled([_stored(record) for record in records], next_offset)

    def count(self, collection: str, filter: Filter | None = None, exact: bool = True) -> int:
        request = q.CountRequest(exact=exact, filter=None if filter is None else _filter(filter))
        return self._do(collection, lambda shard: shard.count(request))

    def close(self) -> None:
        with _opening, self._folder.lock:
            if self._closed:
                return
            self._closed = True
            self._folder.openers -= 1
            if self._folder.openers == 0:
                _open_folders.pop(self._folder.path, None)
                for shard in self._folder.shards.values():
                    shard.close()
                self._folder.shards.clear()


def _installed() -> str:
    from importlib.metadata import version

    return version("qdrant-edge-py")


_NO_VECTOR = "none"


def _index(shard: q.EdgeShard, indexes: Mapping[str, IndexKind]) -> None:
    """Create the payload indexes that are missing."""
    have = shard.info().payload_schema
    for name, kind in indexes.items():
        if name not in have:
            shard.update(q.UpdateOperation.create_field_index(name, _INDEXES[kind]()))


def _vector_size(place: Path) -> int | None:
    config = decode_trusted((place / _CONFIG).read_bytes())
    size: int | None = config.get("vectors", {}).get("", {}).get("size")
    return size


def _config(vector_size: int | None) -> q.EdgeConfig:
    """A shard must have some vector: one without gets a sparse one that no point fills."""
    if vector_size is None:
        return q.EdgeConfig(sparse_vectors={_NO_VECTOR: q.EdgeSparseVectorParams()})
    return q.EdgeConfig(vectors=q.EdgeVectorParams(size=vector_size, distance=q.Distance.Dot))


def _fields(fields: Fields) -> Any:
    return fields if isinstance(fields, bool) else list(fields)


def _plain_id(point_id: int | str | UUID) -> PointId:
    return point_id if isinstance(point_id, int) else str(point_id)


def _stored(record: q.Record) -> EnginePoint:
    vector = record.vector
    dense = np.array(vector, dtype=np.float32) if isinstance(vector, list) else None
    return EnginePoint(_plain_id(record.id), record.payload or {}, dense)


def _query(query: Nearest) -> q.QueryRequest:
    return q.QueryRequest(
        limit=query.limit,
        query=q.Query.Nearest(query.vector.tolist()),
        filter=None if query.filter is None else _filter(query.filter),
        params=q.SearchParams(exact=query.exact),
        score_threshold=query.above,
        with_payload=_fields(query.with_payload),
        with_vector=query.with_vector,
    )


def _order(order: OrderBy) -> q.OrderBy:
    direction = q.Direction.Desc if order.descending else q.Direction.Asc
    return q.OrderBy(order.key, direction, order.start_from)


@lru_cache(maxsize=1024)
def _filter(filter: Filter) -> q.Filter:
    return q.Filter(
        must=[_condition(c) for c in filter.must] or None,
        should=[_condition(c) for c in filter.should] or None,
        must_not=[_condition(c) for c in filter.must_not] or None,
    )


def _condition(condition: Condition) -> Any:
    match condition:
        case Match(key, value):
            return q.FieldCondition(key, match=q.MatchValue(value))
        case MatchAny(key, values):
            return q.FieldCondition(key, match=q.MatchAny(cast(Any, list(values))))
        case Range(key, gt, gte, lt, lte):
            return q.FieldCondition(key, range=q.RangeFloat(gt=gt, gte=gte, lt=lt, lte=lte))
        case IsEmpty(key):
            return q.IsEmptyCondition(key)
        case IsNull(key):
            return q.IsNullCondition(key)
        case HasId(ids):
            return q.HasIdCondition(set(ids))
        case Filter():
            return _filter(condition)
