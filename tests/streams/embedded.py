"""The embedded parts as `lumyn/wiring.py` puts them together, on files in a folder, for tests and their processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from memory_service.recaller import Recaller
from memory_service.sqlite_store import SqliteMemoryStore
from memory_service.vectoriser import Vectoriser
from schemas.canonical import decode_trusted
from schemas.request import Request, parse_request
from streams.decide_agent import DecideAgent
from streams.label_agent import LabelAgent
from streams.local_log import LocalLog, wall_clock_ms
from streams.log import Message
from streams.memory_sync import SyncedMemory
from streams.policy import CompiledPolicy, load_policy

POLICY = b"""
policy: refunds
version: 4.1.0
rules:
  - {id: R_RISK, stage: HARD_BLOCKS, if: {risk: {gte: 0.8}}, then: {verdict: DENY, reason_codes: [RISK]}}
  - {id: R_OK, stage: ALLOW_PATHS, if: {amount: {lte: 500}}, then: {verdict: ALLOW, reason_codes: [SMALL]}}
"""
WITH_MEMORY = POLICY + b"memory: {}\n"


def policy(source: bytes = POLICY) -> CompiledPolicy:
    return load_policy(source, name="refunds.yml")


def request(
    request_id: str | None = None, *, tenant: str = "default", risk: Any = 0.1, amount: Any = 100, **more: Any
) -> Request:
    body = {
        "tenant": tenant,
        "subject": {"type": "user", "id": "usr_1"},
        "action": {"type": "refund", "intent": "late refund", "amount": amount},
        "evidence": {"risk": risk, "tier": "gold"},
        **more,
    }
    return parse_request(body if request_id is None else {**body, "request_id": request_id})


class Embedded:
    """A home: log, memory, labels, agent. `vectoriser` None: the real one, loaded when memory is first asked."""

    def __init__(
        self,
        home: Path,
        fallback: CompiledPolicy | None = None,
        *,
        vectoriser: Vectoriser | None = None,
        clock: Callable[[], int] = wall_clock_ms,
        busy_timeout_s: float = 60,
    ) -> None:
        self.home = home
        self.log = LocalLog(home / "lumyn.db", clock=clock, busy_timeout_s=busy_timeout_s)
        self._vectoriser = vectoriser
        self.memory = SyncedMemory(self.log, self._open_memory)
        self.labels = LabelAgent(self.log)
        self.agent = DecideAgent(self.log, self.memory, fallback)

    def _open_memory(self) -> tuple[SqliteMemoryStore, Recaller]:
        if self._vectoriser is None:
            from memory_service.embedders.static import StaticEmbedder

            self._vectoriser = Vectoriser(StaticEmbedder())
        store = SqliteMemoryStore(self.home / "memory.db", self._vectoriser, self.log.epoch)
        return store, Recaller(store, self._vectoriser, self.log.epoch)

    def close(self) -> None:
        self.memory.close()
        self.log.close()

    def decide(self, *requests: Request) -> list[Any]:
        """Records (or errors), in order."""
        return [
            a if isinstance(a, Exception) else decode_trusted(a.canonical)
            for a in self.agent.decide(requests)
        ]

    def all(self, topic: str) -> list[Message]:
        return [m for p in range(self.log.partitions(topic)) for m in self.log.read(topic, p, 0, 10**6)]

    def values(self, topic: str) -> list[Any]:
        return [decode_trusted(m.value) for m in self.all(topic)]

    def label(
        self,
        decision_id: str,
        label: str = "failure",
        *,
        event_id: str = "",
        tenant: str = "default",
        **more: Any,
    ) -> Any:
        asked = {
            "event_id": event_id or f"e-{decision_id}-{label}-{self.log.end('labels', 0)}",
            "decision_id": decision_id,
            "tenant": tenant,
            "type": "label",
            "label": label,
            "summary": "what happened",
            "actor": "ann",
            **more,
        }
        (result,) = self.labels.label([asked])
        return result

    def check(self) -> Counter[str]:
        """ARCHITECTURE, invariant 1: each request offset has one receipt, and one record, dead letter or reference.

        Returns how many receipts there are of each outcome.
        """
        requests = {(m.partition, m.offset): m for m in self.all("requests")}
        receipts = self.values("receipts")
        places = [(r["source"]["partition"], r["source"]["offset"]) for r in receipts]
        assert sorted(places) == sorted(requests), "one receipt for each offset"
        records = {r["decision_id"]: r for r in self.values("records")}
        assert len(records) == len(self.all("records")), "a recorded decision is never written again"
        decided = {r["decision_id"]: r for r in receipts if r["outcome"] == "decided"}
        assert set(decided) == set(records)
        letters = [(d["source"]["partition"], d["source"]["offset"]) for d in self.values("dead-letters")]
        rejected = [p for p, r in zip(places, receipts, strict=True) if r["outcome"] == "rejected"]
        assert sorted(letters) == sorted(rejected), "one dead letter for each rejected offset"
        for place, receipt in zip(places, receipts, strict=True):
            assert receipt["source"]["topic"] == "lumyn.requests"
            if receipt["outcome"] == "decided":
                record = records[receipt["decision_id"]]
                assert (record["log"]["partition"], record["log"]["offset"]) == place
                assert record["record_digest"] == receipt["record_digest"]
            elif receipt["outcome"] == "duplicate":
                assert receipt["record_digest"] == records[receipt["decision_id"]]["record_digest"]
            elif receipt["outcome"] == "conflict":
                assert receipt["decision_id"] in records
        for partition in range(self.log.partitions("requests")):
            assert self.log.committed("decide", "requests", partition) == self.log.end("requests", partition)
        return Counter(r["outcome"] for r in receipts)
