"""One history through the embedded log and through Kafka: the same records but for log names, times, ids and digests."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from faults.deployment import POLICY, Deployment, deployed, wait_until
from faults.invariants import check
from faults.same import Names, normalised
from lumyn.config import LumynConfig
from lumyn.home import Home
from lumyn.wiring import close_homes, open_home
from schemas.canonical import decode_trusted
from schemas.control import ControlEvent
from schemas.errors import LumynError
from schemas.request import parse_request
from streams.control import control_append, publish_event
from streams.log import Append
from streams.policy import load_policy
from streams.topics import DEAD_LETTERS, LABELS, RECEIPTS, RECORDS, REQUESTS

_PARTITIONS = 8
"""As many as the embedded log has."""


def _play(home: Home, seed: int, wait: Any) -> None:
    """Decide, label, decide again: each round of labels changes what the next round's memory says."""
    pick = random.Random(seed)
    source = POLICY.read_bytes()
    policy = load_policy(source, name="refunds.yml")
    home.log.append([publish_event(policy, "ann", "publish")])
    activated = {"type": "policy_activated", "actor": "ann", "why": "", "name": policy.name}
    event: ControlEvent = {**activated, "policy_version": policy.version, "hash": policy.policy_hash}  # type: ignore[typeddict-item]
    home.log.append([control_append(event)])
    wait("control")
    made = _Bodies(pick)
    decided: list[dict[str, Any]] = []
    for turn in range(6):
        for _ in range(25):
            (answer,) = home.agent.decide([parse_request(made.next())])
            if not isinstance(answer, LumynError) and answer.outcome == "decided":
                decided.append(decode_trusted(answer.canonical))
            time.sleep(0.002)  # equally near neighbours are told in the order of their ids, which is that of their times
        home.log.append([Append(REQUESTS, b'{"junk": %d}' % turn, None, turn)])
        home.agent.drain()
        wait("decided")
        for number in range(8):
            record = pick.choice(decided)
            label = "success" if record["request"]["evidence"]["tier"] == "gold" and record["verdict"] == "ALLOW" else "failure"
            home.labels.label(
                [
                    {
                        "event_id": f"e{turn}-{number}",
                        "decision_id": record["decision_id"],
                        "tenant": record["tenant"],
                        "type": "label",
                        "label": pick.choice([label, label, label, "retracted"]),
                        "summary": f"seen in turn {turn}",
                        "actor": pick.choice(["ann", "bob"]),
                    }
                ]
            )
        wait("labelled")


class _Bodies:
    """Requests that are like each other, so that memory has something to say; some are retries and conflicts."""

    def __init__(self, pick: random.Random) -> None:
        self._pick = pick
        self._sent: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any]:
        pick, kind = self._pick, self._pick.random()
        if self._sent and kind < 0.1:
            return pick.choice(self._sent)
        if self._sent and kind < 0.15:
            first = json.loads(json.dumps(pick.choice(self._sent)))
            first["action"]["amount"]["value"] += 1
            return dict(first)
        value = {
            "request_id": f"q{len(self._sent)}",
            "tenant": pick.choice(["acme", "acme", "acme", "globex"]),
            "subject": {"type": "user", "id": f"usr_{pick.randrange(9)}"},
            "action": {
                "type": pick.choice(["refund", "payout"]),
                "intent": pick.choice(["parcel never arrived", "parcel never came"]),
                "amount": {"value": pick.choice([90, 240, 260]), "currency": "USD"},
            },
            "evidence": {"chargeback_risk": pick.choice([0.1, 0.1, 0.85]), "tier": pick.choice(["gold", "new"])},
            "context": {"mode": "inline", "inline": {"channel": "chat"}},
        }
        if kind < 0.25:
            del value["request_id"]
        else:
            self._sent.append(value)
        return value


def _everything(read: Any, prefix: str) -> dict[str, list[Any]]:
    """All that was made of the history, in the order of partitions and offsets, with ids named as they first came."""
    names = Names()
    return {
        topic: [normalised(value, prefix, names) for _, value in read(topic)]
        for topic in (RECORDS, RECEIPTS, LABELS, DEAD_LETTERS)
    }


def _embedded(folder: Path, seed: int, prefix: str) -> dict[str, list[Any]]:
    home = open_home(LumynConfig(home=folder, prefix=prefix))
    _play(home, seed, lambda what: None)

    def read(topic: str) -> list[tuple[int, bytes]]:
        return [
            (m.partition, m.value) for p in range(home.log.partitions(topic)) for m in home.log.read(topic, p, 0, 10**6)
        ]

    return _everything(read, prefix)


def _live(deployment: Deployment, seed: int, qdrant: str | None = None) -> dict[str, list[Any]]:
    config = LumynConfig(
        home=deployment.folder / "caller", kafka=deployment.address, prefix=deployment.prefix, qdrant=qdrant
    )
    home = open_home(config)

    def wait(what: str) -> None:
        if what == "decided":
            deployment.wait_done()
        elif what == "control":
            deployment.start("decide", policy=None)
            deployment.start("labels")
            deployment.workers[0].wait_for("worker_started")
        elif what == "labelled" and qdrant:
            events = len(home.log.read(LABELS, 0, 0, 10**6))
            wait_until(lambda: home.memory.version() == events, 60)

    _play(home, seed, wait)
    snapshot = check(deployment.address, deployment.prefix, deployment.partitions)

    def read(topic: str) -> list[tuple[int, bytes | None]]:
        return [(m.partition, m.value) for m in snapshot.of(topic)]

    return _everything(read, deployment.prefix)


def test_a_history_decides_alike_embedded_and_over_kafka(broker, seed, tmp_path):
    with deployed(broker.address, partitions=_PARTITIONS) as deployment:
        live = _live(deployment, seed)
        embedded = _embedded(tmp_path, seed, deployment.prefix)
        close_homes()
    assert len(live[RECORDS]) > 80 and len(live[LABELS]) > 30 and len(live[DEAD_LETTERS]) == 6
    codes = Counter(code for record in live[RECORDS] for code in record["reason_codes"])
    assert codes["FAILURE_MEMORY_SIMILAR_BLOCK"] and codes["FAILURE_MEMORY_SIMILAR_ESCALATE"], "labels changed nothing"
    for topic, values in embedded.items():
        assert len(live[topic]) == len(values), topic
        for one, other in zip(live[topic], values, strict=True):
            assert one == other, topic
