"""Load: a mixture of everything that callers send, from a seed, and what the log said of it."""

from __future__ import annotations

import json
import random
import threading
import time
from typing import Any

from confluent_kafka import Producer

from faults.deployment import Deployment, wait_until
from faults.reading import ends
from schemas.errors import LumynError
from schemas.request import parse_request
from streams.decide_agent import request_append
from streams.log import Append, Message
from streams.topics import RECEIPTS, REQUESTS

_WORDS = ("late", "parcel", "broken", "screen", "wrong", "size", "charged", "twice", "never", "arrived", "gift", "lid")


class Load:
    """Sends batches and remembers what was acknowledged. Used by one thread at a time, or by its own (`running`)."""

    def __init__(self, deployment: Deployment, seed: int, *, poison: float = 0.04, tombstones: float = 0.01) -> None:
        """`poison`, `tombstones`: their shares of all messages."""
        self.acknowledged: dict[tuple[int, int], bytes | None] = {}
        self.failed = 0
        self._random = random.Random(seed)
        self._deployment = deployment
        self._log = deployment.open_log(timeout_s=10.0)
        self._poison, self._tombstones = poison, tombstones
        self._made = 0
        self._seed = seed
        self._sent: list[dict[str, Any]] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._broken: BaseException | None = None

    def body(self, request_id: str | None = None) -> dict[str, Any]:
        """A request as an agent would make it."""
        pick = self._random
        value: dict[str, Any] = {
            "tenant": pick.choice(["default", "acme", "globex"]),
            "subject": {"type": "user", "id": f"usr_{pick.randrange(500)}"},
            "action": {
                "type": pick.choice(["refund", "refund", "payout", "discount"]),
                "intent": " ".join(pick.choices(_WORDS, k=6)),
                "amount": {"value": pick.randrange(1, 900), "currency": "USD"},
            },
            "evidence": {"chargeback_risk": pick.choice([0.1, 0.4, 0.75, 0.95])},
            "context": {"mode": "inline", "inline": {"channel": pick.choice(["chat", "mail", "phone"])}},
        }
        return value if request_id is None else {**value, "request_id": request_id}

    def batch(self, count: int) -> None:
        """Send so many messages of the mixture; what fails is counted, and may be in the log or not."""
        appends: list[Append] = []
        tombstones = 0
        for _ in range(count):
            kind = self._random.random()
            if kind < self._tombstones:
                tombstones += 1
            elif kind < self._tombstones + self._poison:
                appends.append(self.poison())
            else:
                appends.append(self._request())
        try:
            for item, result in zip(appends, self._log.send_many(appends), strict=True):
                if isinstance(result, Message):
                    self.acknowledged[(result.partition, result.offset)] = item.value
                else:
                    self.failed += 1
        except LumynError:
            self.failed += len(appends)
        if tombstones:
            self.tombstones(tombstones)

    def _request(self) -> Append:
        """A fresh one, an exact retry, a retry with another body, one without a request_id, or one from a stranger."""
        kind = self._random.random()
        if kind < 0.15 and self._sent:
            return self._append(self._earlier())
        if kind < 0.22 and self._sent:
            value = json.loads(json.dumps(self._earlier()))
            value["action"]["amount"]["value"] += 1000
            return self._append(value)
        if kind < 0.32:
            return self._append(self.body())
        self._made += 1
        value = self.body(f"r{self._seed}-{self._made}")
        self._sent.append(value)
        if kind < 0.37:  # another client: keys in its own order, with spaces
            return Append(REQUESTS, json.dumps(value, indent=1).encode(), f"{value['tenant']}/{value['request_id']}".encode())
        return self._append(value)

    def _earlier(self) -> dict[str, Any]:
        """One sent before: mostly just now, sometimes long ago."""
        if self._random.random() < 0.7:
            return self._sent[-self._random.randint(1, min(40, len(self._sent)))]
        return self._random.choice(self._sent)

    def _append(self, value: dict[str, Any]) -> Append:
        return request_append(parse_request(value), self._random.randrange(self._deployment.partitions))

    def poison(self) -> Append:
        """Bytes that are no request, each in another way."""
        pick = self._random
        value = self.body()
        text = json.dumps(value)
        bodies = [
            b"",
            b"\xff\xfe\x00",
            b"null",
            b"[]",
            b"{",
            text[: pick.randrange(1, len(text) - 1)].encode(),
            text.replace('"chargeback_risk": ', '"chargeback_risk": NaN, "was": ').encode(),
            b'{"tenant": "acme", "tenant": "acme", ' + text[1:].encode(),
            json.dumps({**value, "verdict": "ALLOW"}).encode(),
            json.dumps({**value, "subject": {"type": "user"}}).encode(),
            json.dumps({**value, "action": {"type": "refund", "amount": -5}}).encode(),
            b'{"a":' * 5000,
        ]
        partition = pick.randrange(self._deployment.partitions)
        if pick.random() < 0.2 and self._deployment.partitions > 1:  # a request_id in another's partition
            self._made += 1
            right = parse_request({**value, "request_id": f"m{self._seed}-{self._made}"})
            from streams.partitioner import partition_for

            assert right.key is not None
            away = (partition_for(right.key, self._deployment.partitions) + 1) % self._deployment.partitions
            return Append(REQUESTS, right.canonical, right.key, away)
        return Append(REQUESTS, pick.choice(bodies), pick.choice([None, b"k", b"default/r1"]), partition)

    def tombstones(self, count: int) -> None:
        """Messages without a value, which a stranger's producer can send."""
        producer = Producer({"bootstrap.servers": self._deployment.address, "log_level": 0, "acks": "all"})

        def told(error: Any, message: Any) -> None:
            if error is None:
                self.acknowledged[(message.partition(), message.offset())] = None
            else:
                self.failed += 1

        for _ in range(count):
            producer.produce(
                self._deployment.name(REQUESTS),
                value=None,
                key=b"default/gone",
                partition=self._random.randrange(self._deployment.partitions),
                on_delivery=told,
            )
        producer.flush(20)

    def run(self, seconds: float, per_second: int = 300) -> None:
        """Send for a while, at about a rate."""
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end and not self._stop.is_set():
                begun = time.monotonic()
                self.batch(max(1, per_second // 10))
                self._stop.wait(max(0.0, 0.1 - (time.monotonic() - begun)))
        except BaseException as error:
            self._broken = error
            raise

    def __enter__(self) -> Load:
        """Send in the background until the block ends."""
        self._stop.clear()
        self._thread = threading.Thread(target=self.run, args=(3600.0,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive(), "the load does not end"
        assert self._broken is None, f"the load broke off: {self._broken!r}"

    def decided(self) -> int:
        """How many receipts there are, and markers."""
        places = [(self._deployment.name(RECEIPTS), p) for p in range(self._deployment.partitions)]
        return sum(ends(self._deployment.address, places, read_committed=True).values())

    def wait_for_decided(self, count: int, timeout_s: float = 60.0, since: int | None = None) -> None:
        """Until so many more have been decided, than now or than there were."""

        def told() -> str:
            sent = f"{len(self.acknowledged)} sent, {self.failed} failed, {self._broken!r}"
            return f"{sent}, waiting: {self._deployment.waiting()}\n{self._deployment.tails()}"

        wanted = (self.decided() if since is None else since) + count
        wait_until(lambda: self.decided() >= wanted, timeout_s, told, every_s=0.2)

    def close(self) -> None:
        self._log.close()
