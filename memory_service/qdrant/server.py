"""The engine on a Qdrant server, over gRPC. The only module that knows `qdrant_client` and `grpc`.

It speaks the client's raw messages: the client's own models, made and checked one by one, are what is slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import numpy as np
from qdrant_client import grpc as q

from memory_service.blocks import Array
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
from schemas.errors import BadConfig

_HELP = "is Qdrant running and its gRPC port open? see `lumyn doctor`"
_CHUNK = 512
"""Points a message: some 2 MB, far below what a server takes."""
_FLOATS = np.dtype("<f4")
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)
_INDEXES: Mapping[IndexKind, tuple[Any, Any]] = {
    "tenant": (
        q.FieldType.FieldTypeKeyword,
        q.PayloadIndexParams(keyword_index_params=q.KeywordIndexParams(is_tenant=True)),
    ),
    "keyword": (q.FieldType.FieldTypeKeyword, None),
    "integer": (
        q.FieldType.FieldTypeInteger,
        q.PayloadIndexParams(integer_index_params=q.IntegerIndexParams(lookup=True, range=True)),
    ),
    "float": (q.FieldType.FieldTypeFloat, None),
}


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _asking(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """What can't be put into a message, or not any more since the engine was closed, is an `EngineError` too."""

    @wraps(method)
    def asked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except (TypeError, ValueError) as error:
            where = cast("ServerEngine", args[0]).where
            raise EngineError(f"qdrant can't be asked: {error}", where=where) from None

    return asked


class ServerEngine:
    """QdrantEngine on a server; safe for threads. It connects on first use, and again by itself after an outage."""

    def __init__(
        self,
        url: str,
        *,
        grpc_port: int | None = None,
        api_key: str | None = None,
        ca_certificate: bytes | None = None,
        replicas: int = 1,
        deadline: float = 5.0,
        write_deadline: float = 30.0,
    ) -> None:
        """`url` is the REST address, `http(s)://host:port`; gRPC is the next port unless said. Deadlines in seconds.

        `https` is TLS, against `ca_certificate` (PEM) or the system's roots. `replicas` holds for collections that it
        creates: each write waits for all of them. Raises `BadConfig`.
        """
        host, port, secure = _address(url)
        self._url = f"{'https' if secure else 'http'}://{host}:{port}"
        self._metadata = (("api-key", api_key),) if api_key else ()
        self._replicas, self._deadline, self._write_deadline = replicas, deadline, write_deadline
        target = f"{host}:{grpc_port or port + 1}"
        if secure:
            credentials = grpc.ssl_channel_credentials(root_certificates=ca_certificate)
            self._channel = grpc.secure_channel(target, credentials, options=_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, options=_OPTIONS)
        self._points = q.PointsStub(self._channel)  # type: ignore[no-untyped-call]
        self._collections = q.CollectionsStub(self._channel)  # type: ignore[no-untyped-call]
        self._server = q.QdrantStub(self._channel)  # type: ignore[no-untyped-call]

    @property
    def where(self) -> str:
        return self._url

    def _call(self, method: Callable[..., Any], request: Any, deadline: float) -> Any:
        """One remote call; whatever goes wrong with it is an `EngineError`."""
        try:
            return method(request, timeout=deadline, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self._error(error, deadline) from None

    def _read(self, method: Callable[..., Any], request: Any) -> Any:
        return self._call(method, request, self._deadline)

    def _write(self, method: Callable[..., Any], request: Any) -> Any:
        return self._call(method, request, self._write_deadline)

    def _error(self, error: Any, deadline: float) -> EngineError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.NOT_FOUND and "ollection" in details:
            return NoCollection("qdrant has no such collection", where=self._url, help="was its storage emptied?")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return EngineError(f"qdrant did not answer within {deadline:g} s", where=self._url, help=_HELP)
        if code is grpc.StatusCode.UNAVAILABLE:
            return EngineError("qdrant can't be reached", where=self._url, help=_HELP)
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return EngineError("qdrant refused the API key", where=self._url, help="set its key under `[qdrant]`")
        return EngineError(f"qdrant refused: {details or code.name.lower()}", where=self._url)

    @_asking
    def version(self) -> str:
        return str(self._read(self._server.HealthCheck, q.HealthCheckRequest()).version)

    @_asking
    def exists(self, collection: str) -> bool:
        request = q.CollectionExistsRequest(collection_name=collection)
        return bool(self._read(self._collections.CollectionExists, request).result.exists)

    @_asking
    def ensure_collection(self, collection: str, vector_size: int | None, indexes: Mapping[str, IndexKind]) -> None:
        if not self.exists(collection):
            self._create(collection, vector_size)
        request = q.GetCollectionInfoRequest(collection_name=collection)
        info = self._read(self._collections.Get, request).result
        size = info.config.params.vectors_config.params.size or None
        if size != vector_size:
            raise EngineError(f"collection `{collection}` has vectors of {size}, not {vector_size}", where=self._url)
        for name, kind in indexes.items():
            if name not in info.payload_schema:
                field_type, params = _INDEXES[kind]
                index = q.CreateFieldIndexCollection(
                    collection_name=collection,
                    wait=True,
                    field_name=name,
                    field_type=field_type,
                    field_index_params=params,
                )
                self._write(self._points.CreateFieldIndex, index)

    def _create(self, collection: str, vector_size: int | None) -> None:
        """Without an HNSW graph: every search that has to be right is exact, and the graph would only cost."""
        vectors = q.VectorsConfig(params_map=q.VectorParamsMap())
        if vector_size is not None:
            vectors = q.VectorsConfig(params=q.VectorParams(size=vector_size, distance=q.Distance.Dot))
        request = q.CreateCollection(
            collection_name=collection,
            vectors_config=vectors,
            hnsw_config=q.HnswConfigDiff(m=0),
            replication_factor=self._replicas,
            write_consistency_factor=self._replicas,
            on_disk_payload=True,
        )
        try:
            self._write(self._collections.Create, request)
        except EngineError:
            if not self.exists(collection):  # another process may have been quicker
                raise

    @_asking
    def drop_collection(self, collection: str) -> None:
        self._write(self._collections.Delete, q.DeleteCollection(collection_name=collection))

    @_asking
    def upsert(self, collection: str, points: Sequence[EnginePoint], only_if: Filter | None = None) -> None:
        condition = None if only_if is None else _filter(only_if)
        for start in range(0, len(points), _CHUNK):
            request = q.UpsertPoints(
                collection_name=collection,
                wait=True,
                points=[_point(point) for point in points[start : start + _CHUNK]],
                update_filter=condition,
            )
            self._write(self._points.Upsert, request)

    @_asking
    def set_payload(self, collection: str, changes: Sequence[tuple[Selection, Mapping[str, Any]]]) -> None:
        for start in range(0, len(changes), _CHUNK):
            operations = [
                q.PointsUpdateOperation(
                    set_payload=q.PointsUpdateOperation.SetPayload(
                        payload=_payload(payload), points_selector=_selector(which)
                    )
                )
                for which, payload in changes[start : start + _CHUNK]
            ]
            request = q.UpdateBatchPoints(collection_name=collection, wait=True, operations=operations)
            self._write(self._points.UpdateBatch, request)

    @_asking
    def delete(self, collection: str, which: Selection) -> None:
        request = q.DeletePoints(collection_name=collection, wait=True, points=_selector(which))
        self._write(self._points.Delete, request)

    @_asking
    def retrieve(
        self, collection: str, ids: Sequence[PointId], with_payload: Fields = True, with_vector: bool = False
    ) -> list[EnginePoint]:
        found: list[EnginePoint] = []
        for start in range(0, len(ids), 2 * _CHUNK):
            request = q.GetPoints(
                collection_name=collection,
                ids=map(_id, ids[start : start + 2 * _CHUNK]),
                with_payload=_with_payload(with_payload),
                with_vectors=q.WithVectorsSelector(enable=with_vector),
            )
            found += map(_stored, self._read(self._points.Get, request).result)
        return found

    @_asking
    def query_batch(self, collection: str, queries: Sequence[Nearest]) -> list[Ranked]:
        if not queries:
            return []
        request = q.QueryBatchPoints(
            collection_name=collection,
            query_points=[_query(collection, query) for query in queries],
            timeout=math.ceil(self._deadline),
        )
        answer = self._read(self._points.QueryBatch, request)
        return [_ranked(query, batch.result) for query, batch in zip(queries, answer.result, strict=True)]

    @_asking
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
        request = q.ScrollPoints(
            collection_name=collection,
            filter=None if filter is None else _filter(filter),
            offset=None if offset is None else _id(offset),
            limit=limit,
            order_by=None if order_by is None else _order(order_by),
            with_payload=_with_payload(with_payload),
            with_vectors=q.WithVectorsSelector(enable=with_vector),
        )
        answer = self._read(self._points.Scroll, request)
        more = answer.HasField("next_page_offset") and order_by is None
        return Scrolled([_stored(p) for p in answer.result], _plain_id(answer.next_page_offset) if more else None)

    @_asking
    def count(self, collection: str, filter: Filter | None = None, exact: bool = True) -> int:
        request = q.CountPoints(
            collection_name=collection, filter=None if filter is None else _filter(filter), exact=exact
        )
        return int(self._read(self._points.Count, request).result.count)

    def close(self) -> None:
        self._channel.close()


def _address(url: str) -> tuple[str, int, bool]:
    """Host, REST port, whether TLS. What a URL may carry besides (a user, a password) is refused and not shown."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or parts.scheme not in ("http", "https") or parts.username or parts.path.strip("/"):
        raise BadConfig("the address of qdrant can't be read", help="give `http://host:6333` or `https://host:6333`")
    return (f"[{host}]" if ":" in host else host), port or 6333, parts.scheme == "https"


# to the server


def _id(point_id: PointId) -> Any:
    return q.PointId(num=point_id) if isinstance(point_id, int) else q.PointId(uuid=point_id)


def _value(value: Any) -> Any:
    match value:
        case None:
            return q.Value(null_value=q.NullValue.NULL_VALUE)
        case bool():
            return q.Value(bool_value=value)
        case int():
            return q.Value(integer_value=value)
        case float():
            return q.Value(double_value=value)
        case str():
            return q.Value(string_value=value)
        case Mapping():
            return q.Value(struct_value=q.Struct(fields=_payload(value)))
        case _:
            return q.Value(list_value=q.ListValue(values=map(_value, value)))


def _payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _value(value) for key, value in payload.items()}


def _dense(vector: Array) -> Any:
    """The message of a vector, from its packed bytes: a repeated float field is its little-endian floats in a row."""
    raw = vector.astype(_FLOATS, copy=False).tobytes()
    size, header = len(raw), bytearray(b"\x0a")
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return q.DenseVector.FromString(bytes(header) + raw)


def _point(point: EnginePoint) -> Any:
    message = q.PointStruct(id=_id(point.id), payload=_payload(point.payload))
    if point.vector is not None:
        message.vectors.CopyFrom(q.Vectors(vector=q.Vector(dense=_dense(point.vector))))
    else:
        message.vectors.CopyFrom(q.Vectors(vectors=q.NamedVectors()))
    return message


def _selector(which: Selection) -> Any:
    if isinstance(which, Filter):
        return q.PointsSelector(filter=_filter(which))
    return q.PointsSelector(points=q.PointsIdsList(ids=map(_id, which)))


@lru_cache(maxsize=1024)
def _filter(filter: Filter) -> Any:
    """The message of a filter; kept, since searches ask with the same ones again and again."""
    return q.Filter(
        must=map(_condition, filter.must),
        should=map(_condition, filter.should),
        must_not=map(_condition, filter.must_not),
    )


def _condition(condition: Condition) -> Any:
    match condition:
        case Match(key, int(value)):
            return _field(key, match=q.Match(integer=value))
        case Match(key, str(value)):
            return _field(key, match=q.Match(keyword=value))
        case MatchAny(key, values) if isinstance(next(iter(values), None), int):
            return _field(key, match=q.Match(integers=q.RepeatedIntegers(integers=cast(tuple[int, ...], values))))
        case MatchAny(key, values):
            return _field(key, match=q.Match(keywords=q.RepeatedStrings(strings=cast(tuple[str, ...], values))))
        case Range(key, gt, gte, lt, lte):
            return _field(key, range=q.Range(gt=gt, gte=gte, lt=lt, lte=lte))
        case IsEmpty(key):
            return q.Condition(is_empty=q.IsEmptyCondition(key=key))
        case IsNull(key):
            return q.Condition(is_null=q.IsNullCondition(key=key))
        case HasId(ids):
            return q.Condition(has_id=q.HasIdCondition(has_id=map(_id, ids)))
        case Filter():
            return q.Condition(filter=_filter(condition))


def _field(key: str, **test: Any) -> Any:
    return q.Condition(field=q.FieldCondition(key=key, **test))


def _with_payload(fields: Fields) -> Any:
    if isinstance(fields, bool):
        return q.WithPayloadSelector(enable=fields)
    return q.WithPayloadSelector(include=q.PayloadIncludeSelector(fields=fields))


def _query(collection: str, query: Nearest) -> Any:
    return q.QueryPoints(
        collection_name=collection,
        query=q.Query(nearest=q.VectorInput(dense=_dense(query.vector))),
        filter=None if query.filter is None else _filter(query.filter),
        params=_EXACT if query.exact else None,
        score_threshold=query.above,
        limit=query.limit,
        with_payload=_with_payload(query.with_payload),
        with_vectors=q.WithVectorsSelector(enable=query.with_vector),
    )


_EXACT = q.SearchParams(exact=True)


def _order(order: OrderBy) -> Any:
    start = order.start_from
    return q.OrderBy(
        key=order.key,
        direction=q.Direction.Desc if order.descending else q.Direction.Asc,
        start_from=None
        if start is None
        else q.StartFrom(integer=start)
        if isinstance(start, int)
        else q.StartFrom(float=start),
    )


# from the server


def _plain_id(message: Any) -> PointId:
    return message.uuid or int(message.num)


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _plain_payload(value.struct_value.fields)
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    return None if kind in (None, "null_value") else getattr(value, kind)


def _plain_payload(payload: Any) -> dict[str, Any]:
    return {key: _plain(value) for key, value in payload.items()}


def _vector(vectors: Any) -> Array | None:
    """The floats of a vector, read from its packed bytes: the last 4 n of the message."""
    if not vectors.HasField("vector"):
        return None
    output = vectors.vector
    dense = output.dense if output.HasField("dense") else q.DenseVector(data=output.data)
    raw = dense.SerializeToString()
    return np.frombuffer(raw, dtype=_FLOATS, offset=len(raw) - 4 * len(dense.data)).astype(np.float32)


def _stored(message: Any) -> EnginePoint:
    return EnginePoint(_plain_id(message.id), _plain_payload(message.payload), _vector(message.vectors))


def _ranked(query: Nearest, hits: Iterable[Any]) -> Ranked:
    return Ranked(
        ids=[hit.id.uuid or hit.id.num for hit in hits],
        scores=[hit.score for hit in hits],
        payloads=[_plain_payload(hit.payload) for hit in hits] if query.with_payload else (),
        vectors=[_required(_vector(hit.vectors)) for hit in hits] if query.with_vector else (),
    )


def _required(vector: Array | None) -> Array:
    if vector is None:
        raise EngineError("qdrant gave a point without its vector")
    return vector
