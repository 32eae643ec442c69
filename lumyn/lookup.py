"""Finding a decision in a home: by whole id, unique prefix, or `01JBQX8P2M...`."""

from __future__ import annotations

from typing import Any

from lumyn.wiring import Home
from schemas.canonical import decode_trusted
from schemas.errors import IntegrityError, NotFound, UsageError
from schemas.ids import id_prefix, is_decision_id
from streams.log import Message
from streams.topics import RECORDS

_SHOWN = 5


def find_record(home: Home, text: str, tenant: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """The stored bytes and the decoded record. Raises `NotFound`; `UsageError` when a prefix fits several."""
    tenant = tenant or home.settings.tenant
    prefix = id_prefix(text)
    if prefix is None:
        raise NotFound(f"`{text[:64]}` is not a decision id", help="an id looks like 01JBQX8P2M4T5V6W7X8Y9Z0A1B")
    keys = [prefix.encode()] if is_decision_id(prefix) else home.log.keys_from(RECORDS, prefix.encode(), 1000)
    found = [
        (message, record)
        for key in keys
        if (message := home.log.latest(RECORDS, key)) is not None
        and (record := _decoded(message)).get("tenant") == tenant
    ]
    if not found:
        raise NotFound(f"no decision `{text}`", help="`lumyn list` shows the latest ones")
    if len(found) > 1:
        names = ", ".join(key.key.decode() for key, _ in found[:_SHOWN] if key.key)
        raise UsageError(
            f"`{text}` fits {len(found)} decisions: {names}{', ...' if len(found) > _SHOWN else ''}",
            help="give more of the id",
        )
    return found[0][0].value, found[0][1]


def _decoded(message: Message) -> dict[str, Any]:
    try:
        record = decode_trusted(message.value)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise IntegrityError(
            "record_digest failed (the stored record is not JSON any more)",
            where=f"{message.topic}/{message.partition}/{message.offset}",
        )
    return record
