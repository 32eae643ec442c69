"""Which records of a range are taken: of a tenant, that a query finds, and that a sample or a limit chose."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from memory_service.record_index import facts_of
from schemas.query import Query, holds
from streams.backtest.raw import Raw

_ID = re.compile(rb'"decision_id":"([0-9A-HJKMNP-TV-Z]{26})"')


@dataclass(frozen=True, slots=True)
class Chosen:
    """What must hold of a record. None: anything does."""

    tenant: str | None = None
    query: Query | None = None
    ids: frozenset[str] | None = None
    since: str | None = None
    """Only the decision with this id and later ones."""
    places: Mapping[int, tuple[int, int | None]] | None = None
    """By partition, the first request offset and the one after the last (None: no end)."""

    def by_id(self, raw: Raw) -> bool:
        """Whether a record may be taken, by its id alone; one whose id can't be told is looked at."""
        if self.ids is None and self.since is None:
            return True
        name = id_of(raw)
        if name is None:
            return True
        return (self.ids is None or name in self.ids) and (self.since is None or name >= self.since)

    def takes(self, record: Mapping[str, Any], label: str | None) -> bool:
        """Whether a sound record is taken. Raises what a misshapen record raises."""
        at = record["log"]
        if not self.takes_at(record["tenant"], at["partition"], at["offset"]):
            return False
        return self.query is None or holds(self.query.expression, facts_of(record, label))

    def takes_at(self, tenant: str, partition: int, offset: int) -> bool:
        """Whether the record of a request at this place is taken, as far as the query is not asked."""
        if self.tenant is not None and tenant != self.tenant:
            return False
        if self.places is None:
            return True
        first, after = self.places.get(partition, (0, 0))
        return offset >= first and (after is None or offset < after)


def id_of(raw: Raw) -> str | None:
    """The decision id of a record that was not decoded: its key in a log, else what its bytes say."""
    if raw.key is not None:
        return raw.key.decode("ascii", "replace")
    found = _ID.search(raw.value)
    return found[1].decode() if found else None
