"""How the SQLite record index runs a query: the shortest way into the table, and what is checked on the way."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from memory_service.index_layout import COLUMNS, CROWDED, KIND_FIELDS, label_number, mark_of
from memory_service.index_sql import (
    FALSE,
    TRUE,
    UNKNOWN,
    Sql,
    all_of,
    any_of,
    at_times,
    digests_of,
    ids_of,
    is_in,
    is_one_of,
    signed,
    within,
)
from schemas.query import And, Expression, Field, Leaf, Not, OneOf, Or, Range, leaves

_MOST_RUNS = 256


@dataclass(frozen=True, slots=True)
class Run:
    """A way into the table that yields rows in the order of their ids."""

    source: str
    condition: Sql
    rows: int


class Plan:
    """How one query runs in one tenant: the shortest way into the table, and what is left to check on the way."""

    def __init__(
        self,
        db: sqlite3.Connection,
        tenant: int,
        name: str,
        total: int,
        expression: Expression,
        cursors: list[sqlite3.Cursor] | None = None,
    ) -> None:
        """`cursors` receives those that `rows` leaves open."""
        self._db = db
        self._cursors = [] if cursors is None else cursors
        self._tenant = tenant
        self._name = name
        terms = list(_conjuncts(expression))
        of_kind = [term for term in terms if _is_of_kind(term)]
        others = [term for term in terms if not _is_of_kind(term)]
        rest = [self._where(term, True, "id") for term in others]
        kinds = self._few_kinds(of_kind)
        ways = [runs for runs in map(self._ways, others) if runs is not None]
        if kinds is not None:
            ways.append([Run("rows INDEXED BY rows_kind", Sql("kind = ?", (kind,)), count) for kind, count in kinds])
            of_kinds = is_in("+kind", [kind for kind, _ in kinds])
        else:
            of_kinds = self._kind_where(And(tuple(of_kind)), True) if of_kind else TRUE
        self._runs = min(ways, key=lambda runs: sum(run.rows for run in runs), default=None)
        if self._runs is not None and sum(run.rows for run in self._runs) * 4 > total > 1000:
            self._runs = None  # so many rows match that reading on in order finds them sooner
        by_kind = kinds is not None and self._runs is ways[-1]
        self.rest = all_of(rest if by_kind or not of_kind else [of_kinds, *rest])
        self._only_kinds = sum(count for _, count in kinds) if kinds is not None and not others else None

    def rows(self, edge: Sql, limit: int | None, newest_first: bool) -> Iterator[tuple[Any, ...]]:
        """Rows in order. Each run is in order by itself; merging them keeps it without sorting."""
        order = "DESC" if newest_first else "ASC"
        cursors = [
            self._db.execute(
                f"SELECT {COLUMNS} {text} ORDER BY id {order} LIMIT ?", (*values, -1 if limit is None else limit)
            )
            for text, values in self._selects(edge)
        ]
        self._cursors += cursors
        if len(cursors) == 1:
            return cursors[0]
        return heapq.merge(*cursors, key=lambda row: row[0], reverse=newest_first)

    def count(self) -> int:
        """How many rows, when `rest` is exact."""
        if self._only_kinds is not None:
            return self._only_kinds
        selects = self._selects(TRUE)
        return sum(self._db.execute(f"SELECT count(*) {text}", values).fetchone()[0] for text, values in selects)

    def _selects(self, edge: Sql) -> Iterator[tuple[str, tuple[Any, ...]]]:
        if self.rest.text == "0":
            return
        runs = self._runs if self._runs is not None else [Run("rows", TRUE, 0)]
        for run in runs:
            where = all_of([run.condition, edge, self.rest])
            yield f"FROM {run.source} WHERE tenant = ? AND {where.text}", (self._tenant, *where.values)

    def _few_kinds(self, terms: Sequence[Expression]) -> list[tuple[int, int]] | None:
        """(kind, rows) of the kinds that meet all terms; None when there are no terms, or too many kinds."""
        if not terms:
            return None
        where = self._kinds(And(tuple(terms)))
        found = self._db.execute(
            f"SELECT kind, count FROM kinds WHERE tenant = ? AND {where.text} LIMIT ?",
            (self._tenant, *where.values, _MOST_RUNS + 1),
        ).fetchall()
        return found if len(found) <= _MOST_RUNS else None

    def _ways(self, term: Expression) -> list[Run] | None:
        """Runs that together yield every row that meets this term, or None."""
        if not isinstance(term, OneOf) or None in term.values or len(term.values) > _MOST_RUNS:
            return None
        field, term = term.field, replace(term, values=tuple(dict.fromkeys(term.values)))  # a row has one way
        if field.name in ("subject_id", "request_id"):
            source = f"rows INDEXED BY rows_{field.name.removesuffix('_id')}"
            return [self._probed(source, Sql(f"{field.name} = ?", (value,))) for value in term.values]
        if field.name == "inputs_digest":
            return [
                self._probed("rows INDEXED BY rows_digest", Sql("substr(inputs_digest, 1, 4) = ?", (digest[:4],)))
                for digest in {digest[:4]: digest for digest in digests_of(term.values)}.values()
            ]
        if field.name == "label" and "none" not in term.values:
            numbers = [label_number(str(value)) for value in term.values]
            return [self._probed("rows INDEXED BY rows_label", Sql("label = ?", (n,))) for n in numbers]
        if field.name == "decision_id":
            return [Run("rows", Sql("id = ?", (key,)), 1) for key in ids_of(term.values)]
        return self._provenance_ways(term) if field.name.startswith("provenance.") else None

    def _probed(self, source: str, condition: Sql) -> Run:
        most = 10_000
        rows = self._db.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE tenant = ? AND {condition.text} LIMIT ?)",
            (self._tenant, *condition.values, most),
        ).fetchone()[0]
        return Run(source, condition, rows if rows < most else most * 10)

    def _provenance_ways(self, term: OneOf) -> list[Run] | None:
        name, crowded, unindexed = self._known_name(term.field)
        if unindexed:
            return None
        texts = [value for value in term.values if isinstance(value, str)]
        marks = ", ".join("?" * len(texts))
        origins = self._db.execute(
            "SELECT origin, count FROM origins WHERE origin IN (SELECT origin FROM origin_values WHERE tenant = ? "
            f"AND name = ? AND value IN ({marks})) LIMIT ?",
            (self._tenant, name, *texts, _MOST_RUNS + 1),
        ).fetchall()
        if len(origins) > _MOST_RUNS:
            return None
        runs = [Run("rows INDEXED BY rows_origin", Sql("origin = ?", (origin,)), n) for origin, n in origins]
        if crowded:
            marked = "id IN (SELECT id FROM marks WHERE tenant = ? AND mark = ?)"
            runs += [self._probed("rows", Sql(marked, (self._tenant, mark_of(name, text)))) for text in texts]
        return runs

    def _where(self, node: Expression, positive: bool, key: str = "+id") -> Sql:
        """The condition on rows; of what the index doesn't hold, one that lets everything through.

        A `+` before a column keeps SQLite from seeking by it: the way into the table is chosen here.
        """
        if _is_of_kind(node):
            return self._kind_where(node, positive)
        match node:
            case Not(item):
                return self._where(item, not positive)
            case And(items) | Or(items):
                parts = [self._where(item, positive) for item in items]
                return all_of(parts) if isinstance(node, And) == positive else any_of(parts)
            case _:
                return signed(self._leaf(node, key), positive)

    def _kind_where(self, node: Expression, positive: bool) -> Sql:
        where = self._kinds(node)
        sign = "IN" if positive else "NOT IN"
        return Sql(
            f"+kind {sign} (SELECT kind FROM kinds WHERE tenant = ? AND {where.text})", (self._tenant, *where.values)
        )

    def _kinds(self, node: Expression) -> Sql:
        """The condition on `kinds`."""
        match node:
            case Not(item):
                return signed(self._kinds(item), False)
            case And(items):
                return all_of([self._kinds(item) for item in items])
            case Or(items):
                return any_of([self._kinds(item) for item in items])
            case OneOf(field, values) if field.name in ("reason", "rule"):
                codes = "SELECT kind FROM codes WHERE field = ?"
                listed = is_in("code", [value for value in values if value is not None])
                some = Sql(f"kind IN ({codes} AND {listed.text})", (field.name, *listed.values))
                none = Sql(f"kind NOT IN ({codes})", (field.name,))
                return any_of([some, none]) if None in values else some
            case OneOf(field, values):
                return is_one_of(field.name, values)
            case _:
                return FALSE

    def _leaf(self, leaf: Leaf, key: str) -> Sql:
        """One comparison on a row."""
        field = leaf.field
        if field.name == "tenant" and isinstance(leaf, OneOf):
            return TRUE if self._name in leaf.values else FALSE
        if field.name == "created_at" and isinstance(leaf, Range):
            return at_times(key, leaf)
        if field.name.startswith("provenance."):
            return self._provenance(leaf)
        if field.path:
            return UNKNOWN
        if isinstance(leaf, Range):
            return within(f"+{field.name}", leaf)
        match field.name:
            case "decision_id":
                return is_in(key, ids_of(leaf.values))
            case "inputs_digest":
                return is_in("+inputs_digest", digests_of(leaf.values))
            case "label":
                return is_one_of("+label", [label_number(str(value)) for value in leaf.values])
            case _:
                return is_one_of(f"+{field.name}", leaf.values)

    def _provenance(self, leaf: Leaf) -> Sql:
        name, crowded, unindexed = self._known_name(leaf.field)
        if unindexed or (crowded and (isinstance(leaf, Range) or None in leaf.values)):
            return UNKNOWN
        if isinstance(leaf, Range):
            if not isinstance(leaf.low if leaf.low is not None else leaf.high, str):
                return FALSE
            return self._of_origins(name, within("value", leaf))
        texts = [value for value in leaf.values if isinstance(value, str)]
        parts = [self._of_origins(name, is_in("value", texts))]
        if crowded and texts:
            marks = is_in("mark", [mark_of(name, text) for text in texts])
            parts.append(
                Sql(f"+id IN (SELECT id FROM marks WHERE tenant = ? AND {marks.text})", (self._tenant, *marks.values))
            )
        if None in leaf.values:
            parts.append(self._of_origins(name, TRUE, "NOT IN"))
        return any_of(parts)

    def _of_origins(self, name: str, values: Sql, sign: str = "IN") -> Sql:
        return Sql(
            f"+origin {sign} (SELECT origin FROM origin_values WHERE tenant = ? AND name = ? AND {values.text})",
            (self._tenant, name, *values.values),
        )

    def _known_name(self, field: Field) -> tuple[str, bool, bool]:
        """(name, has too many values for origins, may be where only the record shows it)."""
        name = ".".join(field.path)
        above = [".".join(field.path[:end]) for end in range(1, len(field.path) + 1)]
        known = {
            row[0]: row[1:]
            for row in self._db.execute(
                "SELECT name, distinct_values, unindexed FROM names WHERE tenant = ? "
                f"AND name IN ({', '.join('?' * len(above))})",
                (self._tenant, *above),
            )
        }
        return name, known.get(name, (0, 0))[0] >= CROWDED, any(row[1] for row in known.values())


def _conjuncts(expression: Expression) -> Iterator[Expression]:
    if isinstance(expression, And):
        for item in expression.items:
            yield from _conjuncts(item)
    else:
        yield expression


def _is_of_kind(node: Expression) -> bool:
    return all(leaf.field.name in KIND_FIELDS for leaf in leaves(node))
