"""What a writer of the SQLite record index sums up before it writes."""

from __future__ import annotations

import sqlite3

from memory_service.index_layout import CROWDED
from memory_service.record_index import IndexRow


class Batch:
    """What one transaction of `apply` sums up: counts, and what is known of provenance names."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._names: dict[tuple[int, str], tuple[int, int]] = {}
        self._seen: set[tuple[int, str, str]] = set()
        self._counts: dict[tuple[str, int], int] = {}

    def split(self, tenant: int, row: IndexRow) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Provenance values that go into the origin, and those of names with too many values for that."""
        low: list[tuple[str, str]] = []
        crowded: list[tuple[str, str]] = []
        for name, value in row.provenance:
            distinct, unindexed = self._name(tenant, name)
            if distinct < CROWDED and self._is_new(tenant, name, value):
                self._names[tenant, name] = (distinct + 1, unindexed)
            (low if distinct < CROWDED else crowded).append((name, value))
        for name in row.unindexed:
            self._names[tenant, name] = (self._name(tenant, name)[0], 1)
        return low, crowded

    def _name(self, tenant: int, name: str) -> tuple[int, int]:
        known = self._names.get((tenant, name))
        if known is None:
            row = self._db.execute(
                "SELECT distinct_values, unindexed FROM names WHERE tenant = ? AND name = ?", (tenant, name)
            ).fetchone()
            known = self._names[tenant, name] = row or (0, 0)
        return known

    def _is_new(self, tenant: int, name: str, value: str) -> bool:
        if (tenant, name, value) in self._seen:
            return False
        self._seen.add((tenant, name, value))
        return not self._db.execute(
            "SELECT 1 FROM origin_values WHERE tenant = ? AND name = ? AND value = ?", (tenant, name, value)
        ).fetchone()

    def count(self, tenant: int, kind: int, origin: int) -> None:
        """One more row."""
        for key in (("tenant", tenant), ("kind", kind), ("origin", origin)):
            self._counts[key] = self._counts.get(key, 0) + 1

    def write(self) -> None:
        """Put it all into the file."""
        for (what, number), more in self._counts.items():
            self._db.execute(f"UPDATE {what}s SET count = count + ? WHERE {what} = ?", (more, number))
        self._db.executemany(
            "INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", [(*key, *known) for key, known in self._names.items()]
        )
