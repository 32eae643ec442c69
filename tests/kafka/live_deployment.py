"""A deployment on a real broker as its users meet it: worker processes, and this process as their caller."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from faults.deployment import Deployment, Worker, wait_until

from lumyn import LumynConfig, wiring
from schemas.canonical import decode_trusted
from schemas.errors import LumynError
from schemas.request import parse_request
from streams.control import control_append, publish_event
from streams.log import Append, Message
from streams.policy import CompiledPolicy, load_policy
from streams.topics import TOPICS

HERE = Path(__file__).parent
POLICY = (HERE.parents[1] / "examples" / "refunds" / "policy.yml").read_text()
TIMEOUT_S = 60.0
"""How long something that must come may take on a machine that does much else."""


_RUNTIME = {"session_timeout_s": 6.0, "heartbeat_s": 1.5}
"""As short as any broker allows by default."""


class Live(Deployment):
    """A deployment with what a caller needs: configurations, policies, topics read in this process."""

    def __init__(self, address: str, *, runtime: Mapping[str, float] | None = None, **options: Any) -> None:
        super().__init__(address, runtime={**_RUNTIME, **(runtime or {})}, **options)

    def config(self, tenant: str = "default", home: str = "caller", **more: Any) -> LumynConfig:
        """What a caller of a tenant passes to the SDK."""
        given: dict[str, Any] = {"kafka": self.address, "prefix": self.prefix, "timeout_s": TIMEOUT_S, **more}
        return LumynConfig(tenant=tenant, home=self.folder / home, **given)

    def start_raising(self, name: str) -> Worker:
        """A decide worker whose engine has a fault (raising_worker.py)."""
        return self.start("decide", name, module="kafka.raising_worker")

    def use_policy(self, source: str) -> CompiledPolicy:
        """Publish and activate a document, as `lumyn policy` does."""
        policy = load_policy(source.encode(), name="policy.yml")
        activated = {"type": "policy_activated", "actor": "test", "why": "", "name": policy.name,
                     "policy_version": policy.version, "hash": policy.policy_hash}  # fmt: skip
        self.log.append([publish_event(policy, "test", "publish")])
        self.log.append([control_append(activated)])
        return policy

    def put(self, topic: str, payload: bytes, key: bytes | None = None, partition: int | None = None) -> Message:
        """A message as any producer may write it."""
        return self.log.append([Append(topic, payload, key, partition)])[0]

    def submit(self, *bodies: dict[str, Any], tenant: str = "default") -> list[Message]:
        """Requests as gateways append them, without waiting."""
        requests = [parse_request(body, tenant=tenant) for body in bodies]
        return [self.put("requests", r.canonical, r.key, None if r.key else 0) for r in requests]

    def values(self, topic: str) -> list[dict[str, Any]]:
        """Everything in a topic, decoded, partition by partition; what a tombstone took out is not there."""
        return [decode_trusted(message.value) for message in self.messages(topic) if message.value]

    def messages(self, topic: str) -> list[Message]:
        """All messages of a topic as they lie there, partition by partition."""
        out: list[Message] = []
        for partition in range(self.log.partitions(topic)):
            offset = 0
            while found := self.log.read(topic, partition, offset):
                out += found
                offset = found[-1].offset + 1
        return out

    def records_of(self, tenant: str) -> list[dict[str, Any]]:
        """A tenant's records."""
        return [record for record in self.values("records") if record["tenant"] == tenant]

    def receipts_of(self, tenant: str) -> list[dict[str, Any]]:
        """A tenant's receipts."""
        return [receipt for receipt in self.values("receipts") if receipt["tenant"] == tenant]

    def wait_records(self, tenant: str, count: int) -> list[dict[str, Any]]:
        """A tenant's records, once there are so many."""
        wait_until(
            lambda: len(self.records_of(tenant)) >= count,
            TIMEOUT_S,
            lambda: f"{len(self.records_of(tenant))} of {count} records\n{self.tails()}",
            every_s=0.2,
        )
        return self.records_of(tenant)

    def wait_decided(self) -> None:
        """Until every request in the log was taken up."""
        self.wait_done(TIMEOUT_S)


    def close(self, *, keep: bool = False) -> None:
        """As before, and without the topics: a broker that lives on gets slower with each thousand."""
        for worker in self.workers:
            if worker.alive:
                worker.resume()
                worker.kill()
        with suppress(LumynError):
            self.log.client.delete_topics([self.name(topic) for topic in TOPICS])
        super().close(keep=keep)


@contextmanager
def living(address: str, **options: Any) -> Iterator[Live]:
    """A deployment of a test's own, that leaves nothing running."""
    live = Live(address, **options)
    keep = True
    try:
        yield live
        keep = False
    finally:
        wiring.close_homes()
        live.close(keep=keep)
        if keep:
            print(f"logs of the workers: {live.folder}")


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """The environment of a command that runs in this process; no other setting of lumyn's stays."""
    before = {name: value for name, value in os.environ.items() if name.startswith("LUMYN_")}
    for name in before:
        del os.environ[name]
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)
        os.environ.update(before)

