"""Finding a decision in a home: by whole id, unique prefix, or `01JBQX8P2M...`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lumyn.home import Home
from schemas.canonical import decode_trusted
from schemas.errors import IntegrityError, NotFound, UsageError
from schemas.ids import id_prefix
from schemas.seal import is_sealed
from streams.integrity import check_record, require
from streams.log import Message
from streams.sealing import opened_record

_SHOWN = 5
_SHOWN_CHARS = 64
_MOST_KEYS = 1000


def find_record(home: Home, text: str, tenant: str | None = None) -> tuple[bytes, dict[str, Any]]:
    """The stored bytes and the decoded record. Raises `NotFound`; `UsageError` when a prefix fits several."""
    tenant = tenant or home.settings.tenant
    prefix = id_prefix(text)
    if prefix is None:
        raise NotFound(f"`{shown(text)}` is not a decision id", help="an id looks like 01JBQX8P2M4T5V6W7X8Y9Z0A1B")
    messages = home.records(prefix, _MOST_KEYS)
    found = [(m, record) for m in messages if (record := _decoded(m)).get("tenant") == tenant]
    if len(messages) == _MOST_KEYS and len(found) < 2:  # the one that fits may not be the only one
        raise UsageError(f"`{shown(text)}` is too short to find one decision", help="give more of the id")
    if not found:
        raise NotFound(f"no decision `{shown(text)}`", help="`lumyn list` shows the latest ones")
    if len(found) > 1:
        names = ", ".join(key.key.decode() for key, _ in found[:_SHOWN] if key.key)
        raise UsageError(
            f"`{shown(text)}` fits {len(found)} decisions: {names}{', ...' if len(found) > _SHOWN else ''}",
            help="give more of the id",
        )
    return found[0][0].value, found[0][1]


def sound_record(home: Home, text: str, tenant: str | None = None) -> tuple[bytes, Mapping[str, Any]]:
    """Like `find_record`, for showing, and opened where this home's keys can.

    A record that does not say what was decided raises `IntegrityError`.
    """
    raw, stored = find_record(home, text, tenant)
    where = f"decision {stored.get('decision_id') or shown(text)}"
    require(check_record(stored), where=where)
    if not is_sealed(stored):
        return raw, stored
    record = opened_record(home.log.keys, stored)
    require(check_record(record), where=where)
    return raw, record


def shown(text: str) -> str:
    """What a user gave as an id, fit to be part of one line."""
    cut = text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)


def _decoded(message: Message) -> dict[str, Any]:
    try:
        record = decode_trusted(message.value)
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("tenant"), str):
        raise IntegrityError(
            "record_digest failed (the stored bytes are not a record any more)",
            where=f"{message.topic}/{message.partition}/{message.offset}",
        )
    return record
