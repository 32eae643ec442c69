"""The tail of a Kafka topic: one reader of all partitions, which the brokers send what is new without being asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from schemas.errors import NotFound
from streams.kafka.client import KafkaClient
from streams.kafka.facts import Fetched, Place
from streams.log import Message

_AT_ONCE = 1000
Made = Callable[[Sequence[Fetched]], list[Message]]


class KafkaTail:
    """What comes to some partitions after their ends of now. For one thread at a time."""

    def __init__(self, client: KafkaClient, places: Sequence[Place], made: Made) -> None:
        """`made` gives the log's messages from what was fetched."""
        self._client = client
        self._made = made
        self._reader = client.reader()
        try:
            self._reader.assign(client.ends(places))
        except BaseException:
            self._reader.close()
            raise

    def news(self) -> Iterator[Message]:
        """What has arrived. Where messages expired unread, or the topic was made anew, it goes on with what is held."""
        try:
            while got := self._reader.poll(_AT_ONCE, 0):
                yield from self._made(got)
        except NotFound:
            positions = dict(self._reader.positions)
            begins, ends = self._client.begins(positions), self._client.ends(positions)
            held = {p: at if begins[p] <= at <= ends[p] else begins[p] for p, at in positions.items()}
            self._reader.assign(held)

    def close(self) -> None:
        """Let go of the connection."""
        self._reader.close()
