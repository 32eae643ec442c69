"""Containment: how long decisions went on without a kill switch that was on already, from the log alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schemas.ids import time_ms_of
from schemas.reasons import CONTROL_STALE
from streams.control import KillSwitch
from streams.log import Log
from streams.reading import at_time, messages, object_in
from streams.topics import RECORDS

WITHIN_S = 30.0
"""How long after a switch records are looked at: a worker that is cut off from control abstains long before."""


@dataclass(frozen=True, slots=True)
class Containment:
    """What the log says of a switch. Times are the log's own: the switch's append, and its records' appends.

    `seconds` is from the switch to the last record under its scope that was decided without it; None: there is none.
    `without` counts these, `with_it` those that it denied; `last` is the last one's decision id.
    """

    seconds: float | None
    without: int
    with_it: int
    last: str | None


def containment(log: Log, switch: KillSwitch, *, within_s: float = WITHIN_S) -> Containment:
    """Look at the records of `within_s` seconds from the switch on. Raises `StorageUnavailable`.

    A record that abstained with `CONTROL_STALE` let nothing through: it is neither with nor without.
    """
    since_ms = time_ms_of(switch.at)
    last_ms, last, without, with_it = since_ms, None, 0, 0
    for partition in range(log.partitions(RECORDS)):
        for message in messages(log, RECORDS, partition, at_time(log, RECORDS, partition, since_ms)):
            if message.time_ms > since_ms + within_s * 1000:
                break
            record = object_in(message)
            if message.time_ms <= since_ms or not _under(switch, record):
                continue
            if any(one.get("switch_id") == switch.switch_id for one in record["control"]["switches"]):
                with_it += 1
            elif CONTROL_STALE not in record["reason_codes"]:
                without += 1
                if message.time_ms > last_ms:
                    last_ms, last = message.time_ms, str(record["decision_id"])
    return Containment((last_ms - since_ms) / 1000 if without else None, without, with_it, last)


def _under(switch: KillSwitch, record: Mapping[str, Any]) -> bool:
    """Whether a record's request is in the switch's scope; what is no record is not."""
    try:
        return switch.covers(record["tenant"], record["request"]["action"]["type"], record["policy"]["name"])
    except (KeyError, TypeError):
        return False
