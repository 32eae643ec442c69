"""What was captured with an incident's decisions and what was not, and whether that has changed since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lumyn.home import Home
from lumyn.incidents.evidence import Decisions
from lumyn.lookup import sound_record
from lumyn.uncontrolled import all_factors
from memory_service.record_index import IndexedRecord
from schemas.canonical import encode
from schemas.errors import Erased, IntegrityError, LumynError
from schemas.query import Field, Query, Range
from schemas.seal import is_sealed
from streams.index_sync import fetcher
from streams.log import Log
from streams.outcome import plain_values
from streams.statistics.multiple import holm
from streams.statistics.two_groups import fisher
from streams.topics import RECEIPTS, REQUESTS

MOST_READ: Final = 500
"""So many decisions are read whole: the shares of more are those of these, spread evenly over them."""
_SINCE = 200
_CHANCE = 0.05

EXPECTED: Final[Mapping[str, tuple[str, ...]]] = {
    "model": ("model",),
    "system fingerprint": ("system_fingerprint", "fingerprint"),
    "finish reason": ("finish_reason", "stop_reason"),
    "prompt hash": ("prompt_hash", "prompt"),
    "tool schema hash": ("tool_schema_hash", "tool_schema"),
    "retrieval index version": ("retrieval_index_version", "index_version"),
    "freshness lag of the index": ("freshness_lag_s", "freshness_lag"),
    "token counts": ("prompt_tokens", "completion_tokens", "usage.prompt_tokens", "usage.completion_tokens"),
    "cache hit": ("cached", "cached_tokens", "cache_hit"),
    "safety filter": ("safety", "safety_filter", "content_filter"),
    "batch": ("batch", "batch_id"),
}
"""What is not controlled and moves silently, by the names it is captured under (provenance). Source: tianpan.co, From a
Bug to a Behavior Rate, and the request contract."""


@dataclass(slots=True)
class Seen:
    """What the decisions that were read hold, each count one a decision."""

    read: int = 0
    gone: int = 0
    erased: int = 0
    closed: int = 0
    unsound: int = 0
    names: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    without_context: int = 0
    without_memory: int = 0
    requests_expired: int = 0
    receipts_expired: int = 0
    rules: Counter[str] = field(default_factory=Counter)
    neighbours: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    factors: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, record: Mapping[str, Any], factors: Mapping[str, str]) -> None:
        """Take an open record in, with its factors."""
        self.read += 1
        provenance = plain_values(record["provenance"])
        self.names.update(provenance.keys())
        for what, names in EXPECTED.items():
            if not any(name in provenance for name in names):
                self.missing[what] += 1
        self.without_context += not (record["request"].get("context") or {}).get("inline")
        self.without_memory += record["memory"].get("available") is False
        for rule in record["matched_rules"]:
            self.rules[f"{rule['id']} ({rule['effect'] or rule['outcome']})"] += 1
            self.facts.update(_fact(fact) for fact in rule["facts"])
        self.neighbours.update(one["meaning"] for one in record["memory"].get("counted") or ())
        self.factors.update(factors.items())


def _fact(fact: Mapping[str, Any]) -> str:
    told = "missing" if fact.get("missing") else "known"
    return f"{fact['fact']} {fact['op']} {encode(fact.get('want')).decode()} ({told})"


def seen_in(home: Home, found: Decisions) -> Seen:
    """Read the incident's decisions, at most `MOST_READ` of them, evenly."""
    seen = Seen()
    for row in evenly(found.rows, MOST_READ):
        try:
            record = sound_record(home, row.decision_id)[1]
        except Erased:
            seen.erased += 1
        except IntegrityError:
            seen.unsound += 1
        except LumynError:
            seen.gone += 1
        else:
            _expired(home.log, record, seen)
            if is_sealed(record):
                seen.erased += bool(getattr(record, "erased", False))
                seen.closed += not getattr(record, "erased", False)
            else:
                seen.add(record, all_factors(home, record)[0])
    return seen


def _expired(log: Log, record: Mapping[str, Any], seen: Seen) -> None:
    """Whether the messages that the record came from are still held."""
    partition, offset = record["log"]["partition"], record["log"]["offset"]
    seen.requests_expired += log.begin(REQUESTS, partition) > offset
    seen.receipts_expired += log.begin(RECEIPTS, partition) > offset


def evenly(rows: Sequence[IndexedRecord], most: int) -> list[IndexedRecord]:
    """At most `most` of them, spread evenly, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(at * (len(rows) - 1) / (most - 1))] for at in range(most)]


NOTHING_SINCE: Final[Mapping[str, Any]] = {"later": 0, "new": [], "lost": [], "shifted": []}
"""What `captured_since` has where there is nothing to compare."""


def captured_since(home: Home, seen: Seen, end_ms: int) -> dict[str, Any]:
    """What is captured since, beside what was captured with the incident's decisions (fields of provenance).

    `later`: how many decisions since were looked at. `new`: fields that those have and its own did not; `lost`: the
    reverse. `shifted`: fields of both whose share differs by more than chance, as (decisions with it, decisions).
    """
    after = home.index().find(
        Query("", Range(Field("created_at", "time"), end_ms, None)), tenant=home.settings.tenant, limit=_SINCE,
        fetch=fetcher(home.log),
    )  # fmt: skip
    later = seen_in(home, Decisions(tuple(after), 0, None))
    none = {**NOTHING_SINCE, "later": later.read}
    if not seen.read or not later.read:
        return none
    both = {name: ((count, seen.read), (later.names[name], later.read)) for name, count in seen.names.items()}
    p_values = holm({name: fisher(*shares).p_value for name, shares in both.items() if shares[1][0]})
    return none | {
        "new": [name for name, _ in later.names.most_common() if not seen.names[name]],
        "lost": [name for name, _ in seen.names.most_common() if not later.names[name]],
        "shifted": [
            {"field": name, "then": list(both[name][0]), "since": list(both[name][1]), "p_adjusted": p_value}
            for name, p_value in sorted(p_values.items(), key=lambda one: (one[1], one[0]))
            if p_value < _CHANCE
        ],
    }
