"""Verify control, labels and ledger against the checkpoints that cover them: each event is the one signed for."""

from __future__ import annotations

from collections.abc import Iterator

from streams.checkpoints import Chain
from streams.integrity import Check
from streams.leaves import GAP, event_entry
from streams.log import Log, Message
from streams.reading import is_embedded, messages, object_in
from streams.topics import LABELS, LEDGER, full_name

Finding = tuple[str, list[Check]]


def check_events(log: Log, chain: Chain, topic: str) -> Iterator[Finding]:
    """(place, checks) of each event that is not what was signed, is gone, or was put in; those that hold are silent."""
    events = messages(log, topic, 0)
    event = next(events, None)
    expected = 0
    for offset, leaf, number in chain.leaves(full_name(log.prefix, topic), 0):
        while event is not None and event.offset < offset:
            event = next(events, None)
        here = event if event is not None and event.offset == offset else None
        wrong = _fault(log, here, leaf, number)
        if wrong is not None:
            yield f"{topic}/0/{offset}", [Check("checkpoint", False, wrong)]
        expected = offset + 1
    if not is_embedded(log):
        return
    for message in messages(log, topic, 0, expected):
        if message.offset > expected:
            yield f"{topic}/0/{expected}", [Check("log", False, "an event that stood here is gone")]
        expected = message.offset + 1


def uncovered_events(log: Log, chain: Chain, topic: str) -> int:
    """How many events stand after the last checkpoint of a topic."""
    return sum(1 for _ in messages(log, topic, 0, chain.head(topic, 0)["end"]))


def _fault(log: Log, event: Message | None, leaf: bytes, number: int) -> str | None:
    if event is None:
        return None if leaf[:1] == GAP else f"an event is gone that checkpoint {number} was signed for"
    if leaf[:1] == GAP:
        return f"{_named(event)} was put in after checkpoint {number} was signed"
    if leaf != event_entry(log.prefix, event):
        return f"{_named(event)} is not what checkpoint {number} was signed for"
    return None


def _named(event: Message) -> str:
    value = object_in(event)
    if event.topic == LABELS and value.get("labeller"):
        return f"the trust in `{value.get('labeller')}`"
    if event.topic == LABELS:
        return f"the label of decision {value.get('decision_id')}"
    if event.topic == LEDGER:
        return f"the ledger's event `{value.get('type')}` of job `{value.get('job')}`"
    what = value.get("name") or value.get("switch_id")
    return f"the event `{value.get('type')}`" + (f" of `{what}`" if what else "")
