"""Faust's consumer as a decide worker needs it: it reads what is committed, from where the partitions' owner says, and

commits nothing. Faust makes a second's wait and four tasks a message of what need not be; that is left out here.
"""

from __future__ import annotations

import asyncio
import ssl
import types
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import faust
from faust.transport.drivers import aiokafka as driver
from mode import Service
from mode.services import WaitResults

_FETCH_WAIT_MS = 50
"""How long a broker holds a fetch of partitions that have nothing; the others of that broker wait for its end."""
_BUFFERED_S = 0.005


class Owner(Protocol):
    """Who is told which partitions are ours, and says where reading them starts."""

    topic: str
    """The full name of what is read."""

    @property
    def assigned(self) -> frozenset[int]:
        """The partitions that are ours now."""
        ...

    def reassigned(self, partitions: Iterable[int]) -> Any:
        """These are ours now, and no others; gives what `open` takes."""
        ...

    def open(self, assignment: Any) -> dict[int, int]:
        """The next offset of each partition. Takes its time."""
        ...

    def revoked(self, partitions: Iterable[int]) -> None:
        """These are ours no more. Takes its time."""
        ...


class _ConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Reads committed messages only, which Faust does for its own transactions alone."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        self.consumer.in_transaction = True
        try:
            consumer = super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = False
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS
        return consumer


class _Delivering(Service):  # type: ignore[misc]
    """Faust makes four tasks for each message, so that its delivery can be broken off by a rebalance.

    None is needed for a delivery that ends without waiting, as nearly all do.
    """

    async def wait_first(self, *awaited: Any, timeout: Any = None) -> Any:
        """Deliver the first of two, unless the second comes before; anything else as it was."""
        delivery = awaited[0]
        if len(awaited) != 2 or timeout is not None or not asyncio.iscoroutine(delivery):
            return await super().wait_first(*awaited, timeout=timeout)
        try:
            waits_for = delivery.send(None)
        except StopIteration as end:
            awaited[1].close()
            return WaitResults([delivery], [end.value], False)
        except BaseException:
            awaited[1].close()
            raise
        return await super().wait_first(_going_on(delivery, waits_for), awaited[1])


class _Consumer(_Delivering, driver.Consumer):  # type: ignore[misc]
    """Where reading starts and what is committed is the partition agents' business."""

    def _new_consumer_thread(self) -> Any:
        return _ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _wait_next_records(self, timeout: float) -> Any:
        """Full buffers are soon taken from, but Faust sleeps a second when all are full, and waits as long for news of

        the others when some are.
        """
        if self._buffered_partitions:
            timeout = _BUFFERED_S
            while self.flow_active and not self.should_stop and not self._get_active_partitions():
                await asyncio.sleep(_BUFFERED_S)
        return await super()._wait_next_records(timeout)

    async def perform_seek(self) -> None:
        """Called after each rebalance, and cancelled by the next."""
        owner: Owner = self.transport.owner
        places = {tp.partition: tp for tp in self.assignment() if tp.topic == owner.topic}
        positions = await asyncio.to_thread(owner.open, owner.reassigned(places))
        for partition, offset in positions.items():
            tp = places[partition]
            await self._seek(tp, offset)
            self._read_offset[tp] = offset - 1 if offset else None
            self._committed_offset[tp] = offset or None

    async def _commit(self, offsets: Any) -> bool:  # noqa: ARG002 - the name is Faust's
        return True

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        await super().on_partitions_assigned(assigned, generation_id)
        if not assigned:  # then Faust seeks nothing
            owner: Owner = self.transport.owner
            await asyncio.to_thread(owner.open, owner.reassigned(()))

    async def on_partitions_revoked(self, revoked: Any) -> None:
        owner: Owner = self.transport.owner
        partitions = [tp.partition for tp in revoked if tp.topic == owner.topic]
        owner.reassigned(owner.assigned - set(partitions))
        await asyncio.to_thread(owner.revoked, partitions)
        await super().on_partitions_revoked(revoked)


async def _going_on(begun: Any, waits_for: Any) -> Any:
    """The rest of a coroutine that has begun, and waits for something."""
    return await _rest(begun, waits_for)


@types.coroutine
def _rest(begun: Any, waits_for: Any) -> Any:
    while True:
        try:
            sent = yield waits_for
        except GeneratorExit:
            begun.close()
            raise
        except BaseException as error:
            step = partial(begun.throw, error)
        else:
            step = partial(begun.send, sent)
        try:
            waits_for = step()
        except StopIteration as end:
            return end.value


class Transport(driver.Transport):  # type: ignore[misc]
    """Faust's transport, whose partitions have an owner."""

    Consumer = _Consumer

    def __init__(self, url: Any, app: Any, owner: Owner, **options: Any) -> None:
        super().__init__(url, app, **options)
        self.owner = owner


def credentials(options: Mapping[str, Any]) -> Any:
    """The client's TLS and SASL options as Faust wants them; None for a plain connection."""
    protocol = str(options.get("security.protocol", "PLAINTEXT")).upper()
    context = None
    if protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if options.get("ssl.certificate.location"):
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                options.get("ssl.key.password"),
            )
    if protocol.startswith("SASL"):
        return faust.SASLCredentials(
            username=options.get("sasl.username"),
            password=options.get("sasl.password"),
            mechanism=options.get("sasl.mechanism", options.get("sasl.mechanisms", "PLAIN")),
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None
