"""The record that the receipt of a retry speaks of, found by its id with bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from schemas.ids import decision_time_ms, is_decision_id
from streams.log import Log, Message
from streams.reading import first_from, is_embedded, messages, object_in
from streams.topics import RECORDS

_KEPT = 4096


class PriorRecords:
    """Looks records of one partition up. The latest answers are kept: retries come in bursts."""

    def __init__(self, log: Log, partition: int) -> None:
        self._log = log
        self._partition = partition
        self._digests: OrderedDict[str, str | None] = OrderedDict()

    def digest_of(self, decision_id: object) -> str | None:
        """The `record_digest` in the record of an id; None when there is no such record."""
        if not isinstance(decision_id, str) or not is_decision_id(decision_id):
            return None
        if decision_id not in self._digests:
            found = self._find(decision_id)
            digest = object_in(found).get("record_digest") if found is not None else None
            self._digests[decision_id] = digest if isinstance(digest, str) else None
            if len(self._digests) > _KEPT:
                self._digests.popitem(last=False)
        return self._digests[decision_id]

    def _find(self, decision_id: str) -> Message | None:
        """Ids carry the log's time and records stand in its order; where a clock went back, the whole log is read."""
        key = decision_id.encode()
        if not is_embedded(self._log):
            then = decision_time_ms(decision_id)
            for message in messages(
                self._log, RECORDS, self._partition, first_from(self._log, RECORDS, self._partition, then, _time)
            ):
                if message.key == key:
                    return message
                if (_time(message) or 0) > then:
                    break
        return self._log.latest(RECORDS, key)


def _time(record: Message) -> int | None:
    key = (record.key or b"").decode("ascii", "replace")
    return decision_time_ms(key) if is_decision_id(key) else None
