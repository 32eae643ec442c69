"""Points in the exact order of their ids, either way, page by page.

Qdrant orders by a number only, and a page of it may cut anywhere through points of an equal number. So the last number
of a full page is left to the next page, or read by itself when it fills the whole page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from memory_service.qdrant.engine import EnginePoint, Fields, OrderBy, QdrantEngine
from memory_service.qdrant.query_filter import Bound, all_of, as_filter, ranks
from memory_service.qdrant.record_points import RANK

_MOST = 256


def in_order(
    engine: QdrantEngine,
    collection: str,
    bound: Bound,
    newest_first: bool,
    after: tuple[int, str] | None,
    page: int,
    with_payload: Fields = True,
) -> Iterator[EnginePoint]:
    """The records that pass `bound`, beginning after a (rank, point id); `page` is the most that is wanted at first.

    `with_payload` names `RANK` at least.
    """
    edge = None if after is None else after[0]
    page = min(page, _MOST)
    while True:
        found = engine.scroll(
            collection,
            as_filter(bound),
            limit=page,
            order_by=OrderBy(RANK, newest_first, start_from=edge),
            with_payload=with_payload,
        ).points
        if len(found) < page:
            yield from _sorted(found, newest_first, after)
            return
        edge = found[-1].payload[RANK]
        whole = [point for point in found if point.payload[RANK] != edge]
        if whole:
            yield from _sorted(whole, newest_first, after)
        else:
            yield from _sorted(_of_rank(engine, collection, bound, edge, with_payload), newest_first, after)
            edge += -1 if newest_first else 1
        page = min(page * 4, _MOST)


def _of_rank(engine: QdrantEngine, collection: str, bound: Bound, rank: int, with_payload: Fields) -> list[EnginePoint]:
    found: list[EnginePoint] = []
    offset = None
    while True:
        within = as_filter(all_of([bound, ranks(rank, rank)]))
        part = engine.scroll(collection, within, limit=_MOST, offset=offset, with_payload=with_payload)
        found += part.points
        if part.next_offset is None:
            return found
        offset = part.next_offset


def _sorted(points: Sequence[EnginePoint], newest_first: bool, after: tuple[int, str] | None) -> Iterator[EnginePoint]:
    """Each once: a point that is just being moved may come twice."""
    by_id = {str(point.id): point for point in points}
    for name in sorted(by_id, reverse=newest_first):
        if after is None or (name < after[1] if newest_first else name > after[1]):
            yield by_id[name]
