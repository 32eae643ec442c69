"""A home whose log is checkpointed and edited behind its back, as an embedded log and as a sparse one.

The sparse log is the embedded one with its rows moved apart, as transaction markers do on Kafka: receipts and records
have offsets of their own, and requests have gaps.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import embedded
from embedded import Embedded

from schemas.canonical import decode_trusted, encode
from schemas.record import record_digest
from streams.checkpointer import Checkpointer
from streams.checkpoints import Chain, Checkpoint
from streams.local_log import LocalLog
from streams.log import Append, Log
from streams.signing import SigningKey
from streams.span import EVERYTHING, Span
from streams.sweep import Summary, verify_all
from streams.topics import DAY_MS

SHIFT = 48
START_MS = 1_760_000_000_000
PARTITIONS = 2
ALL = ("records", "receipts", "requests", "labels", "control", "checkpoints", "dead_letters")


class OnlyLog:
    """A log without the embedded one's transactions: whatever uses it can't know that offsets are dense."""

    def __init__(self, log: LocalLog) -> None:
        for name in ("prefix", "partitions", "append", "read", "begin", "end", "committed", "latest", "writer", "close"):
            setattr(self, name, getattr(log, name))


class Home(Embedded):
    """An embedded home with few partitions, whose file can be edited behind its back."""

    def __init__(self, folder: Path, *, sparse: bool) -> None:
        self.now_ms = START_MS
        LocalLog(folder / "lumyn.db", partitions=PARTITIONS).close()
        super().__init__(folder, embedded.policy(), clock=self._clock)
        self.key = SigningKey.load_or_create(folder / "signing.pem")
        self.sparse = sparse

    def _clock(self) -> int:
        self.now_ms += 1
        return self.now_ms

    def sql(self, text: str, *values: Any) -> list[Any]:
        db = sqlite3.connect(self.home / "lumyn.db", isolation_level=None)
        try:
            return db.execute(text, values).fetchall()
        finally:
            db.close()

    def pass_requests(self, partition: int, count: int) -> None:
        """Leave a gap: offsets that hold nothing and never will, like those of transaction markers."""
        end = self.log.end("requests", partition)
        self.sql("INSERT INTO log_requests VALUES (?, ?, NULL, x'00')", (partition << SHIFT) + end + count - 1, self.now_ms)
        self.sql(
            "INSERT INTO log_positions VALUES ('decide', 'requests', ?, ?, NULL) ON CONFLICT DO UPDATE SET "
            "position = excluded.position", partition, end + count,
        )  # fmt: skip

    def fill(self) -> None:
        """Decisions, retries, a conflict, dead letters, labels: something of each kind in both partitions."""
        for number in range(6):
            if self.sparse and number % 2:
                for partition in range(PARTITIONS):
                    self.pass_requests(partition, number)
            self.decide(*(embedded.request(f"r{number}-{n}", amount=number + n) for n in range(6)))
        first = embedded.request("r0-0", amount=0)
        self.decide(first, first, embedded.request("r0-0", amount=7), embedded.request("x", policy="unknown"))
        self.agent.drain()
        self.log.append([Append("requests", b"not a request", None, p) for p in range(PARTITIONS)])
        self.agent.drain()
        for number, record in enumerate(self.values("records")[:5]):
            self.label(record["decision_id"], ("failure", "success")[number % 2])
        if self.sparse:
            self._move_apart()

    def _move_apart(self) -> None:
        self.sql("DELETE FROM log_requests WHERE value = x'00'")
        for topic in ("receipts", "records", "labels"):
            low = (1 << SHIFT) - 1
            self.sql(f"UPDATE log_{topic} SET pos = -1 - ((pos & ~{low}) + (pos & {low}) * 2 + 1)")
            self.sql(f"UPDATE log_{topic} SET pos = -1 - pos")

    @property
    def seen(self) -> Log:
        """The log as the code under test gets it."""
        return OnlyLog(self.log) if self.sparse else self.log  # type: ignore[return-value]

    def checkpoint(self, key: SigningKey | None = None) -> list[Checkpoint]:
        checkpointer = Checkpointer(self.seen, key or self.key)
        try:
            return checkpointer.run()
        finally:
            checkpointer.close()

    def chain(self, *keys: SigningKey) -> Chain:
        chain = Chain(self.seen, {key.public.key_id for key in (self.key, *keys)})
        chain.catch_up()
        return chain

    def verify(self, *, days: float = 0, span: Span = EVERYTHING, chain: Chain | None = None) -> tuple[list[str], Summary]:
        """What is wrong, a line each, and the summary; `days` after the last message."""
        summary = Summary()
        now_ms = self.now_ms + int(days * DAY_MS)
        told = []
        for finding in verify_all(self.seen, chain or self.chain(), summary, now_ms=now_ms, span=span):
            told += [f"{finding.name}: {check.name}: {check.detail}" for check in finding.failed]
        return told, summary

    def places(self, topic: str) -> list[int]:
        return [row[0] for row in self.sql(f"SELECT pos FROM log_{topic} ORDER BY pos")]

    def value(self, topic: str, pos: int) -> Any:
        return decode_trusted(self.sql(f"SELECT value FROM log_{topic} WHERE pos = ?", pos)[0][0])

    def set(self, topic: str, pos: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else encode(value)
        self.sql(f"UPDATE log_{topic} SET value = ? WHERE pos = ?", data, pos)

    def rows(self, *topics: str) -> dict[str, list[Any]]:
        return {topic: self.sql(f"SELECT * FROM log_{topic}") for topic in topics}

    def restore(self, rows: dict[str, list[Any]]) -> None:
        for topic, values in rows.items():
            self.sql(f"DELETE FROM log_{topic}")
            for row in values:
                self.sql(f"INSERT INTO log_{topic} VALUES (?, ?, ?, ?)", *row)

    def decided(self) -> list[tuple[int, int]]:
        """(record's, receipt's) rows of every decision, in order."""
        of = {self.value("receipts", pos)["decision_id"]: pos for pos in reversed(self.places("receipts"))}
        return [(pos, of[self.value("records", pos)["decision_id"]]) for pos in self.places("records")]

    def request_row(self, record: dict[str, Any]) -> int:
        return (record["log"]["partition"] << SHIFT) + record["log"]["offset"]


def rewritten(home: Home, record_pos: int, receipt_pos: int, **changes: Any) -> str:
    """Edit a record, hash it again, and make its receipt say the same: no digest in the log disagrees."""
    record = {**home.value("records", record_pos), **changes}
    record["record_digest"] = record_digest(record)
    home.set("records", record_pos, record)
    home.set("receipts", receipt_pos, {**home.value("receipts", receipt_pos), "record_digest": record["record_digest"]})
    return str(record["decision_id"])


def expire(home: Home, *topics: str, keep: int = 0) -> None:
    """What retention does: the oldest messages of each partition go, all but the newest `keep`."""
    for topic in topics:
        for partition in range(PARTITIONS):
            places = [pos for pos in home.places(topic) if pos >> SHIFT == partition]
            for pos in places[: len(places) - keep]:
                home.sql(f"DELETE FROM log_{topic} WHERE pos = ?", pos)
