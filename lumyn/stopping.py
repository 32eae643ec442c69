"""Putting a kill switch into the log by the shortest way there is: what it stops goes on until it stands there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lumyn.config import Settings
from schemas.canonical import encode
from streams.log import Append
from streams.topics import CONTROL


def append_switch(settings: Settings, event: Mapping[str, Any]) -> None:
    """Append a control event that means the same when it stands there twice. Raises `StorageUnavailable`."""
    item = Append(CONTROL, encode(event), partition=0)
    if settings.kafka is not None:
        from lumyn.kafka_log import kafka_log

        kafka_log(settings).append_at_once(item)
    else:
        from lumyn.wiring import operator_home

        operator_home().log.append([item])
