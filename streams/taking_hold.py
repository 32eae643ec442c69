"""How long decisions went on by another policy after one was activated, from the log alone."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.reasons import CONTROL_STALE
from streams.containment import WITHIN_S
from streams.log import Log
from streams.reading import at_time, messages, object_in
from streams.topics import RECORDS


@dataclass(frozen=True, slots=True)
class TookHold:
    """What the log says of an activation; times are the log's own.

    `seconds` is from the activation to the last record of the policy's name that another version decided; None: there
    is none. `by_other` counts these, `by_it` those that it decided; `last` is the last of the others.
    """

    seconds: float | None
    by_other: int
    by_it: int
    last: str | None


def took_hold(log: Log, name: str, hash_: str, since_ms: int, *, within_s: float = WITHIN_S) -> TookHold:
    """Look at the records of `within_s` seconds from an activation on, of all tenants. Raises `StorageUnavailable`.

    A record that abstained with `CONTROL_STALE` went by no policy: it is neither.
    """
    last_ms, last, other, own = since_ms, None, 0, 0
    for partition in range(log.partitions(RECORDS)):
        for message in messages(log, RECORDS, partition, at_time(log, RECORDS, partition, since_ms)):
            if message.time_ms > since_ms + within_s * 1000:
                break
            record = object_in(message)
            policy = record.get("policy")
            if message.time_ms <= since_ms or not isinstance(policy, dict) or policy.get("name") != name:
                continue
            if policy.get("hash") == hash_:
                own += 1
            elif CONTROL_STALE not in record.get("reason_codes", ()):
                other += 1
                if message.time_ms > last_ms:
                    last_ms, last = message.time_ms, str(record.get("decision_id"))
    return TookHold((last_ms - since_ms) / 1000 if other else None, other, own, last)
