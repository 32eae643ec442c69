"""Labels as people send them: fresh ones, retries, contradictions, of decisions that are not there, and bytes that are none."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from faults.deployment import Deployment
from faults.reading import Message
from schemas.canonical import encode
from schemas.errors import LumynError
from streams.log import Append
from streams.topics import LABEL_REQUESTS


class LabelLoad:
    """Sends label requests on decisions that exist, for the most part."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._log = deployment.open_log()
        self._random = random.Random(seed)
        self._seed = seed
        self._made = 0
        self._sent: list[dict[str, Any]] = []

    def batch(self, records: Sequence[Message], count: int, *, clean: bool = False) -> None:
        """Ask for so many labels on these records; `clean` leaves out what must be refused. Errors are let pass."""
        appends = [self._one(records, clean) for _ in range(count)]
        try:
            self._log.send_many(appends)
        except LumynError:
            return

    def _one(self, records: Sequence[Message], clean: bool) -> Append:
        pick = self._random
        kind = pick.random()
        if not clean and kind < 0.04:
            return Append(LABEL_REQUESTS, pick.choice([b"", b"{", b"[1]", b"\xff", b'{"event_id": 5}']), b"bad")
        if kind < 0.15 and self._sent:
            return _append(pick.choice(self._sent))
        if kind < 0.20 and self._sent and not clean:
            return _append({**pick.choice(self._sent), "summary": "another story"})
        record = json.loads(pick.choice(records).value or b"{}")
        self._made += 1
        value = {
            "event_id": f"e{self._seed}-{self._made}",
            "decision_id": record["decision_id"],
            "tenant": record["tenant"],
            "type": pick.choice(["label", "label", "label", "label", "note"]),
            "label": pick.choice(["failure", "success", "retracted"]),
            "summary": f"seen {self._made}",
            "actor": pick.choice(["ann", "bob"]),
        }
        if value["type"] == "note":
            del value["label"]
        if not clean and kind < 0.25:
            value["tenant"] = "somebody-else"
        elif not clean and kind < 0.28:
            value["decision_id"] = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
        self._sent.append(value)
        return _append(value)

    def close(self) -> None:
        self._log.close()


def _append(value: dict[str, Any]) -> Append:
    return Append(LABEL_REQUESTS, encode(value), f"{value['tenant']}/{value['event_id']}".encode())
